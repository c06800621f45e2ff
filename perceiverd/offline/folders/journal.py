"""What has been done in a folder of outputs, one line of JSON for each file. It survives a kill at any moment.

A line is appended with one write, after the file's outputs have their names. A line that was cut off by a full disk or
a power failure does not count: its file is tagged again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import PerceiverdError
from perceiverd.offline.folders.walk import Found

Utc = Annotated[datetime, msgspec.Meta(tz=True)]


class RunBegins(msgspec.Struct, frozen=True, kw_only=True, tag="run"):
    """A run begins."""

    time: Utc
    settings: str
    """A checksum of all that decides what the outputs contain."""
    resumes: bool
    """Whether it continues the run before, which did not finish."""


class FileDone(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """A file is done: its outputs are there, or it has failed."""

    file: str
    """Its path, for people."""
    key: str
    """A checksum of its path, size, time of change and the settings, in hexadecimal."""
    windows: int = 0
    media_s: float = 0.0
    """Seconds of media that were tagged."""
    wall_s: float = 0.0
    """Seconds that it took."""
    error: str | None = None
    """Why it could not be read, or not to its end."""
    warnings: tuple[str, ...] = ()
    """What was logged of it: damage, holes, a choice of tracks."""


class RunEnds(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """A run has done all its files."""

    time: Utc


_Line = RunBegins | FileDone | RunEnds
_KEY_BYTES = 8
"""With a million files, the chance that any two have one key is below one in ten million."""


def key_of(found: Found, settings: str) -> str:
    """Identifies a file in one state, tagged in one way. It may be moved together with the folder that was named."""
    parts = (os.fsencode(found.name), b"%d" % found.size, b"%d" % found.mtime_ns, settings.encode())
    return hashlib.blake2b(b"\0".join(parts), digest_size=_KEY_BYTES).hexdigest()


class Journal:
    """A context manager: the journal of a folder of outputs, for one run."""

    def __init__(self, folder: Path, settings: str) -> None:
        """`folder` must exist. Raises PerceiverdError if another run uses it, OSError if it cannot be written."""
        self._path, self._settings = folder / "journal.jsonl", settings
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise PerceiverdError(
                f"{folder.parent}: another run writes here; wait for it, or name another folder"
            ) from None
        before = _read(self._path, settings)
        self._begin = before.begin if before.resumes else os.fstat(self._file).st_size
        self.resumes = before.resumes
        """Whether the last run has not finished and had these settings. Then this one continues it."""
        self._before = before
        if before.is_cut:
            os.write(self._file, b"\n")
        self._append(RunBegins(time=datetime.now(UTC), settings=settings, resumes=self.resumes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def was_done(self, found: Found, *, in_any_run: bool) -> Literal["no", "with outputs", "without outputs"]:
        """Whether the interrupted run has done this file, or any run without error if `in_any_run`.

        A file that could not be read at all has no outputs.
        """
        if not found.mtime_ns and "://" not in found.address:
            return "no"  # a pipe: what comes through it now is something else
        key = int(key_of(found, self._settings), 16)
        if _holds(self._before.unreadable, key):
            return "without outputs"
        return (
            "with outputs"
            if _holds(self._before.interrupted, key) or (in_any_run and _holds(self._before.done, key))
            else "no"
        )

    def add(self, found: Found, done: FileDone) -> None:
        """Note that a file is done."""
        self._append(msgspec.structs.replace(done, key=key_of(found, self._settings)))

    def finish(self) -> None:
        """Note that the run is complete: the next one starts from the beginning."""
        os.fsync(self._file)
        self._append(RunEnds(time=datetime.now(UTC)))

    def done(self) -> Iterator[FileDone]:
        """The files that this run, and those that it continues, have done, in order."""
        return (line for _, line in _lines(self._path, self._begin) if isinstance(line, FileDone))

    def _append(self, line: _Line) -> None:
        data = msgspec.json.encode(line) + b"\n"
        if os.write(self._file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True, slots=True)
class _Before:
    """What a journal says about runs before."""

    resumes: bool
    """Whether the last run has not finished and had these settings."""
    begin: int
    """Where in the file the last run begins, with those that it continues."""
    is_cut: bool
    """Whether the last line has no end."""
    done: NDArray[np.uint64]
    """Keys of files that any run has done without error, sorted."""
    interrupted: NDArray[np.uint64]
    """Keys of files with outputs that the run to be resumed has done, sorted."""
    unreadable: NDArray[np.uint64]
    """Keys of its files without outputs, sorted."""


def _read(path: Path, settings: str) -> _Before:
    done = array("Q")  # of all runs; the others of the last run and those that it continues
    last, unreadable = array("Q"), array("Q")
    begin, running = 0, ""
    for at, line in _lines(path):
        match line:
            case RunBegins():
                running = line.settings
                if not line.resumes:
                    begin, last, unreadable = at, array("Q"), array("Q")
            case FileDone():
                key = int(line.key, 16)
                (last if line.windows else unreadable).append(key)
                if line.error is None:
                    done.append(key)
            case RunEnds():
                running = ""
    resumes = running == settings
    if not resumes:
        last, unreadable = array("Q"), array("Q")
    return _Before(resumes, begin, _is_cut(path), _sorted(done), _sorted(last), _sorted(unreadable))


def _is_cut(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) not in (b"", b"\n")


def _lines(path: Path, begin: int = 0) -> Iterator[tuple[int, _Line]]:
    """Each complete line with its place in the file, from this place on."""
    with path.open("rb") as file:
        at = file.seek(begin)
        for text in file:
            with suppress(msgspec.DecodeError):  # a line that was cut off
                yield at, _decoder.decode(text)
            at += len(text)


_decoder: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)


def _sorted(keys: array[int]) -> NDArray[np.uint64]:
    return np.sort(np.frombuffer(keys, np.uint64)) if keys else np.zeros(0, np.uint64)


def _holds(keys: NDArray[np.uint64], key: int) -> bool:
    at = int(np.searchsorted(keys, np.uint64(key)))
    return at < len(keys) and int(keys[at]) == key
