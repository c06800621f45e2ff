"""The border to PyAV: whatever it raises comes out as an error of FFmpeg, so that one damaged file costs one line.

Knows nothing of files and streams.
"""

from __future__ import annotations

from types import TracebackType

import av

INVALID_DATA = -0x41444E49
"""AVERROR_INVALIDDATA: minus "INDA", little-endian."""


class _Boundary:
    """A class, because a generator with `contextmanager` takes ten times as long, and each packet passes three."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, av.FFmpegError):
            raise av.error.InvalidDataError(-INVALID_DATA, f"{type(error).__name__}: {error}"[:200]) from error


_BOUNDARY = _Boundary()


def ffmpeg_errors() -> _Boundary:
    """Turn any other exception into an InvalidDataError. Put only calls of PyAV inside.

    Damaged files make PyAV raise UnicodeDecodeError, IndexError, OverflowError, MemoryError and others, because it
    trusts the texts and numbers in a container. The list has no end, so this names none.
    """
    return _BOUNDARY
