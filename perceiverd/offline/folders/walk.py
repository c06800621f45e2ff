"""Finds the media in a folder. Knows no model and no output.

Memory does not grow with the number of files: it holds one folder's names at a time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from perceiverd.offline.folders.signatures import HEAD_BYTES, is_media

MEDIA_SUFFIXES = frozenset(
    ".3gp .aac .ac3 .aif .aiff .amr .ape .avi .dav .dts .flac .flv .h264 .h265 .hevc .m2ts .m4a .m4b .m4v .mka .mkv "
    ".mov .mp2 .mp3 .mp4 .mpeg .mpg .mts .mxf .oga .ogg .ogv .opus .ts .vob .wav .webm .wma .wmv".split()
)
"""A file with such a name counts as media whatever its first bytes are: if it is damaged, that must be reported."""
TEXT_SUFFIXES = frozenset({".ts"})
"""Endings that also belong to text: TypeScript."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a folder to take."""

    recursive: bool = False
    """Also those in folders below it."""
    since_ns: int | None = None
    """Only those that were changed at this time (nanoseconds since 1970) or later."""
    include: tuple[str, ...] = ()
    """If there are any: only files that match one of these patterns."""
    exclude: tuple[str, ...] = ()
    """No files and no folders that match one of these patterns."""

    def takes(self, name: str) -> bool:
        """Whether a file with this path below the folder is wanted, by its name alone."""
        return (not self.include or _matches(name, self.include)) and not _matches(name, self.exclude)

    def enters(self, name: str) -> bool:
        """Whether to look into this folder below the folder."""
        return self.recursive and not _matches(name, self.exclude)


@dataclass(frozen=True, slots=True)
class Found:
    """A file to tag."""

    address: str
    """Path or URL, to open it."""
    name: str
    """The path below the folder that was named, with `/`: its outputs get it below theirs."""
    size: int = 0
    """Bytes."""
    mtime_ns: int = 0
    """When it was changed, in nanoseconds since 1970."""
    fault: str = ""
    """Why it cannot be looked at, in one line; it is reported, not opened."""


@dataclass(slots=True)
class Passed:
    """What a walk has passed over."""

    empty: int = 0
    """Files of no bytes."""
    other: int = 0
    """Files that are no media."""
    unwanted: int = 0
    """Files that the selection leaves out, or that are older than it wants."""
    hidden: int = 0
    """Files and folders whose name begins with a dot."""


@dataclass(slots=True)
class Walk:
    """The media of one folder, sorted by name within each folder. Symbolic links to folders are not followed."""

    root: str
    selection: Selection
    leave_out: Path | None = None
    """A folder that is not looked into: that of the outputs."""
    passed: Passed = field(default_factory=Passed)

    def __iter__(self) -> Iterator[Found]:
        folders = [""]
        while folders:
            folder = folders.pop()
            below: list[str] = []
            yield from self._folder(folder, below)
            folders += reversed(below)

    def _folder(self, folder: str, below: list[str]) -> Iterator[Found]:
        """The files in a folder; its folders go into `below`."""
        path = os.path.join(self.root, folder) if folder else self.root  # noqa: PTH118 - names may be any bytes
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield Found(path, folder or ".", fault=f"cannot be listed ({error.strerror}); check its permissions")
            return
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                self.passed.hidden += 1
            elif _is_folder(entry):
                if self.selection.enters(name) and not self._is_left_out(entry):
                    below.append(name)
            elif file := self._file(entry, name):
                yield file

    def _file(self, entry: os.DirEntry[str], name: str) -> Found | None:
        if not self.selection.takes(name):
            self.passed.unwanted += 1
            return None
        try:
            facts = entry.stat()
            if not stat.S_ISREG(facts.st_mode):
                return None
            if self.selection.since_ns is not None and facts.st_mtime_ns < self.selection.since_ns:
                self.passed.unwanted += 1
                return None
            if not facts.st_size:
                self.passed.empty += 1
                return None
            head = _head(entry.path)
        except OSError as error:
            return Found(entry.path, name, fault=f"cannot be read ({error.strerror}); check its permissions")
        if not is_media(head) and not _is_called_media(name, head):
            self.passed.other += 1
            return None
        return Found(entry.path, name, facts.st_size, facts.st_mtime_ns)

    def _is_left_out(self, entry: os.DirEntry[str]) -> bool:
        if self.leave_out is None:
            return False
        try:
            return self.leave_out.samefile(entry.path)
        except OSError:
            return False


def _head(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, HEAD_BYTES)
    finally:
        os.close(descriptor)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_called_media(name: str, head: bytes) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in MEDIA_SUFFIXES and not (suffix in TEXT_SUFFIXES and _is_text(head))


def _is_text(head: bytes) -> bool:
    return b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path matches: a pattern with `/` is for the whole path, another one for the last name."""
    last = name.rpartition("/")[2]
    return any(fnmatchcase(name if "/" in pattern else last, pattern) for pattern in patterns)
