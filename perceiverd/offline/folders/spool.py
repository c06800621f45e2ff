"""The list of files to tag, on disk: a walk appends to it in its own thread, and workers take from it.

So the whole number and size of the files is known soon, for the progress bar, while memory stays the same for a million
files as for one.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from perceiverd.offline.folders.walk import Found

_LENGTH_BYTES = 4


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """A `Found` whose texts may be any bytes."""

    address: bytes
    name: bytes
    size: int
    mtime_ns: int
    fault: str


class Spool:
    """A context manager. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the list is kept; it has no name there. Raises OSError."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed on exit
        self._change = threading.Condition()
        self._end = self._next = 0
        self._stopped = False
        self._fault: BaseException | None = None
        self._walker: threading.Thread | None = None
        self.files = 0
        """Found so far."""
        self.size = 0
        """Their bytes."""
        self.is_complete = False
        """Whether the walk is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._walker:
            self._walker.join()
        self._file.close()

    def fill(self, found: Iterable[Found]) -> None:
        """Begin to append these, in a thread."""
        self._walker = threading.Thread(target=self._fill, args=(found,), name="walk")
        self._walker.start()

    def take(self) -> Found | None:
        """The next file; waits for the walk. None if there is no other, or after `stop`.

        Raises what the walk has raised.
        """
        with self._change:
            self._change.wait_for(lambda: self._next < self._end or self.is_complete or self._stopped)
            if self._fault:
                raise self._fault
            if self._next == self._end or self._stopped:
                return None
            at = self._next
            length = int.from_bytes(os.pread(self._file.fileno(), _LENGTH_BYTES, at), "little")
            self._next = at + _LENGTH_BYTES + length
        entry = msgspec.msgpack.decode(os.pread(self._file.fileno(), length, at + _LENGTH_BYTES), type=_Entry)
        address, name = os.fsdecode(entry.address), os.fsdecode(entry.name)
        return Found(address, name, entry.size, entry.mtime_ns, entry.fault)

    def stop(self) -> None:
        """Give out no more files, and end the walk."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def _fill(self, found: Iterable[Found]) -> None:
        try:
            for each in found:
                if self._stopped:
                    break
                self._append(each)
        except Exception as error:  # handed to those who wait, whose thread can report it
            self._fault = error
        with self._change:
            self.is_complete = True
            self._change.notify_all()

    def _append(self, found: Found) -> None:
        address, name = os.fsencode(found.address), os.fsencode(found.name)
        body = msgspec.msgpack.encode(_Entry(address, name, found.size, found.mtime_ns, found.fault))
        data = len(body).to_bytes(_LENGTH_BYTES, "little") + body
        written = 0
        while written < len(data):
            written += os.pwrite(self._file.fileno(), data[written:], self._end + written)
        with self._change:
            self._end += len(data)
            self.files += 1
            self.size += found.size
            self._change.notify_all()
