"""A folder of snapshots that only its owner may read. Removes files that are too old or too many.

It touches only files with names that it gave itself. Its functions wait for the disk, so the daemon's loop must not
call them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RESERVE_BYTES = 100_000_000
"""We leave this much free on the disk for other programs."""
NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z_[A-Za-z0-9_-]+\.(jpg|mkv|flac)(\.part)?")
LABEL_LETTERS = 40


def name_of(stream: str, label: str, at: datetime) -> str:
    """`20260131T235959.123Z_door_Dog`: sorts by time, and holds nothing that is special to a shell or a file system."""
    safe = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")[:LABEL_LETTERS] or "label"
    at = at.astimezone(UTC)
    return f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03d}Z_{stream}_{safe}"


def prepare(directory: Path) -> None:
    """Make the folder. Raises OSError if it cannot be made, or if other users may read it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    check(directory)


def check(directory: Path) -> None:
    """Check that `prepare` would succeed, without making anything. Raises OSError if it would not."""
    try:
        info = directory.stat()
    except FileNotFoundError:
        above = next(folder for folder in directory.parents if folder.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            raise PermissionError(errno.EACCES, f"this user may not make it in {above}", str(directory)) from None
        return
    if not stat.S_ISDIR(info.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise PermissionError(errno.EPERM, f"other users may read it; chmod 700 {directory}", str(directory))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "this user may not write to it", str(directory))


@dataclass(frozen=True)
class SnapshotStore:
    """The files in one folder, and how long they stay."""

    directory: Path
    max_age_s: float
    max_bytes: int

    def add(self, name: str, data: bytes) -> None:
        """Write a file; a reader never sees a part of it. Raises OSError, with ENOSPC if the disk is full."""
        prepare(self.directory)
        disk = os.statvfs(self.directory)
        if disk.f_bavail * disk.f_frsize < RESERVE_BYTES + len(data):
            raise OSError(errno.ENOSPC, f"less than {RESERVE_BYTES // 1_000_000} MB are free")
        part = self.directory / f"{name}.part"
        try:
            with open(part, "xb", opener=_private) as file:
                file.write(data)
            part.rename(self.directory / name)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def prune(self, now_s: float) -> None:
        """Remove files older than `max_age_s`, and the oldest ones while all together exceed `max_bytes`."""
        kept = sorted(self._files())  # sorted by name is sorted by time
        total = sum(size for _, size, _ in kept)
        for path, size, written_s in kept:
            if total <= self.max_bytes and written_s >= now_s - self.max_age_s:
                continue
            with contextlib.suppress(FileNotFoundError):  # another stream's process has removed it
                path.unlink()
            total -= size

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """Path, bytes and modification time of each file that is ours."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        info = entry.stat(follow_symlinks=False)
                        yield Path(entry.path), info.st_size, info.st_mtime


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
