"""The border to PyAV: whatever it raises comes out as an error of FFmpeg, so that one damaged file costs one line.

Knows nothing of files and streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av

INVALID_DATA = -0x41444E49
"""AVERROR_INVALIDDATA: minus "INDA", little-endian."""


@contextmanager
def ffmpeg_errors() -> Iterator[None]:
    """Turn any other exception into an InvalidDataError. Put only calls of PyAV inside.

    Damaged files make PyAV raise UnicodeDecodeError, IndexError, OverflowError, MemoryError and others, because it
    trusts the texts and numbers in a container. The list has no end, so this names none.
    """
    try:
        yield
    except av.FFmpegError:
        raise
    except Exception as error:
        raise av.error.InvalidDataError(-INVALID_DATA, f"{type(error).__name__}: {error}"[:200]) from error
