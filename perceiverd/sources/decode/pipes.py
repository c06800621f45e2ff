"""Reads media from a pipe, or from any other open file descriptor, for FFmpeg. Knows no container and no process."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

WAIT_MS = 500
"""While nothing comes, the caller hears about it this often."""
MP4_BOXES = (b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip")
"""What an MP4 begins with, after 4 bytes."""
HEAD_BYTES = 12
"""The first bytes, which explain what could not be read."""


class Pipe:
    """A file object for PyAV. It owns the descriptor.

    A read waits for data as long as it takes, and calls `waiting` while it does. That may raise an error, which then
    ends the read.
    """

    def __init__(self, descriptor: int, name: str, waiting: Callable[[], None]) -> None:
        self.name = name
        """What errors call it. PyAV reads this attribute, too."""
        self.head = b""
        """The first bytes that came; empty if none did."""
        self._descriptor, self._waiting = descriptor, waiting
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def read(self, size: int) -> bytes:
        """At least one byte and at most `size`; nothing at the end, which is when the last writer has gone."""
        while not self._poll.poll(WAIT_MS):
            self._waiting()
        data = os.read(self._descriptor, size)
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        return data

    def is_mp4_stream(self) -> bool:
        """Whether this begins like an MP4, and cannot go back to its index."""
        return self.head[4:8] in MP4_BOXES and not self.seekable()

    def seekable(self) -> bool:
        """Whether this is a file after all, as after `< FILE` in a shell."""
        try:
            os.lseek(self._descriptor, 0, os.SEEK_CUR)
        except OSError:
            return False
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Only for files. Raises OSError for a pipe."""
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        """Only for files. Raises OSError for a pipe."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)
