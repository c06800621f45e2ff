"""Which of the URL schemes that a configuration may name the installed FFmpeg can open."""

from __future__ import annotations

from collections.abc import Iterable

import av

HERE = "127.0.0.1:9"
"""Discard: nothing answers there, and what would be read does not matter."""


def missing(schemes: Iterable[str], timeout_s: float = 0.5) -> tuple[str, ...]:
    """Those that cannot be opened at all. Each is tried on this very machine, for so many seconds at most."""
    return tuple(scheme for scheme in schemes if not _known(scheme, timeout_s))


def _known(scheme: str, timeout_s: float) -> bool:
    try:
        with av.open(f"{scheme}://{HERE}", timeout=(timeout_s, timeout_s)):
            return True
    except av.error.ProtocolNotFoundError:
        return False
    except (av.error.FFmpegError, OSError):
        return True  # it was refused, gave no answer, or was silent: somebody tried
