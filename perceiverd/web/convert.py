"""`python -m perceiverd.web.convert KIND`: makes a clip from standard input playable, and writes it to standard output.

A process of its own: a fault of a decoder ends this process and not the server. It has limits of memory and CPU time.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping

from perceiverd.core.errors import MediaError
from perceiverd.core.signals import die_with_parent
from perceiverd.sources.snapshots import playable

FORMS: Mapping[str, Callable[[bytes], bytes]] = {
    "clip": playable.webm,
    "sound": playable.sound,
    "spectrogram": playable.picture_of_sound,
}
MOST_BYTES = 200_000_000
"""Of a clip. Those of the daemon have some megabytes."""
MEMORY_BYTES, CPU_S = 4_000_000_000, 60


def main() -> int:
    """The exit status: 1 if the clip cannot be read; then standard error has the reason."""
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    clip = sys.stdin.buffer.read(MOST_BYTES + 1)
    try:
        if len(clip) > MOST_BYTES:
            raise MediaError(f"the clip has more than {MOST_BYTES} bytes")
        sys.stdout.buffer.write(FORMS[sys.argv[1]](clip))
    except MediaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
