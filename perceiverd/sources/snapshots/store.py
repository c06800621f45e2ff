"""A folder of snapshots for its owner, and for its group if the operator says so. Removes what is too old or too much.

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
from functools import partial
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
    _make(directory)
    check(directory)


def _make(directory: Path) -> None:
    """Make the folder and those above it, for the owner alone, or for the group too if the folder above is shared."""
    if directory.exists():
        return
    _make(directory.parent)
    # The kernel gives a folder in a shared one the same group and the same set-group-ID bit.
    directory.mkdir(mode=0o750 if is_shared(directory.parent) else 0o700, exist_ok=True)


def is_shared(directory: Path) -> bool:
    """Whether the operator lets the folder's group read it: `chmod 2750`. New files then get that group, too."""
    mode = stat.S_IMODE(directory.stat().st_mode)
    return mode & (stat.S_ISGID | stat.S_IRWXG) == stat.S_ISGID | stat.S_IRGRP | stat.S_IXGRP


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
    if info.st_mode & stat.S_IRWXO or (info.st_mode & stat.S_IRWXG and not is_shared(directory)):
        what = f"other users may read it; chmod 700 {directory}, or 2750 to let its group read it"
        raise PermissionError(errno.EPERM, what, str(directory))
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
            mode = 0o640 if is_shared(self.directory) else 0o600
            with open(part, "xb", opener=partial(_opened, mode=mode)) as file:
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


def _opened(path: str, flags: int, mode: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
