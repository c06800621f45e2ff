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


class PipeReader:
    """A file object for PyAV. It owns the descriptor.

    A read waits for data as long as it takes, and calls `waiting` while it does. That may raise an error, which then
    ends the read.
    """

    def __init__(self, descriptor: int, name: str, waiting: Callable[[], None], block_bytes: int = 1) -> None:
        """A read returns a multiple of `block_bytes`, so that no sample is torn; at the end the rest is dropped."""
        self.name = name
        """What errors call it. PyAV reads this attribute, too."""
        self.head = b""
        """The first bytes that came; empty if none did."""
        self._descriptor, self._waiting, self._block_bytes = descriptor, waiting, block_bytes
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def read(self, size: int) -> bytes:
        """At least one byte and at most `size`; nothing at the end, which is when the last writer has gone."""
        size = max(size - size % self._block_bytes, self._block_bytes)
        data = self._read_some(size)
        while data and len(data) % self._block_bytes:
            more = self._read_some(self._block_bytes - len(data) % self._block_bytes)
            if not more:
                data = data[: -(len(data) % self._block_bytes)]
                break
            data += more
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        return data

    def has_data(self, within_ms: int) -> bool:
        """Wait for the first byte at most this long: whether a read would now return."""
        return any(events & select.POLLIN for _, events in self._poll.poll(within_ms))

    def is_over(self) -> bool:
        """Whether there was a writer and it has gone, and all that it wrote was read."""
        events = next((events for _, events in self._poll.poll(0)), 0)
        return bool(events & select.POLLHUP) and not events & select.POLLIN

    def _read_some(self, size: int) -> bytes:
        while not self._poll.poll(WAIT_MS):
            self._waiting()
        return os.read(self._descriptor, size)

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
