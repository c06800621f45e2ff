"""A folder of corrections: `corrections.jsonl` and a file with the sound of each. Every change is atomic.

It waits for the disk and for other programs that change the folder, so an event loop calls it in a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from msgspec.structs import replace

from perceiverd.core.errors import CorrectionError
from perceiverd.corrections import sound
from perceiverd.corrections.manifest import SOUND, Correction, Verdict, decoded, encoded

MANIFEST, LOCK = "corrections.jsonl", ".lock"
MOST = 10_000
"""Corrections in one folder."""
MOST_BYTES = 4_000_000_000
"""Of all sounds in one folder."""
RESERVE_BYTES = 100_000_000
"""We leave this much free on the disk for other programs."""
LOCK_S, LOCK_EVERY_S = 10.0, 0.02
"""How long to wait for another program that changes the folder."""
FILE_MODE, FOLDER_MODE = 0o640, 0o750
"""The group may read, so that the operator can train with what a service has stored."""
NOBODY: Mapping[str, Path] = MappingProxyType({})


class Corrections:
    """The corrections in one folder. Threads and programs may use it at the same time."""

    def __init__(self, directory: Path, recent: Mapping[str, Path] = NOBODY) -> None:
        """`recent` has the folder of recent sound of each machine whose sound is at hand, by the machine's name.

        Makes nothing yet.
        """
        self.directory, self._recent = directory, recent
        self._read: tuple[tuple[int, int, int], tuple[Correction, ...]] | None = None

    def add(
        self,
        verdict: Verdict,
        machine: str,
        stream: str,
        mid: str,
        name: str,
        start: datetime,
        end: datetime,
        event: str | None = None,
        clip: Path | None = None,
    ) -> Correction:
        """Store a correction, with its sound if that is at hand: cut out of the recent sound, or a copy of `clip`.

        `event` is the event's id in the daemon's messages. A second verdict on one event replaces the first. Sound
        that the daemon has not written yet is fetched later, by `every`. Raises CorrectionError.
        """
        try:
            made = Correction(
                id=secrets.token_hex(8),
                at=datetime.now(UTC),
                verdict=verdict,
                machine=machine,
                stream=stream,
                mid=mid,
                name=name,
                start=start.astimezone(UTC),
                end=end.astimezone(UTC),
                event=event,
            )
        except ValueError as error:
            raise CorrectionError(f"the correction is invalid: {error}") from None
        found = sound.find(made, self._recent.get(machine), clip)
        made = replace(made, sound=found.name(made.id), sound_start=found.start, why=found.why)
        with self._changing() as before:
            kept = tuple(each for each in before if not _same_event(each, made))
            if len(kept) >= MOST:
                raise CorrectionError(f"{self.directory}: has {MOST} corrections already; remove some first")
            if found.data is not None and made.sound is not None:
                self._write_sound(made.sound, found.data)
            self._write((*kept, made))
            self._forget(before, kept)
        return made

    def every(self) -> tuple[Correction, ...]:
        """All corrections, the oldest first. Fetches sound that was not on disk before. Raises CorrectionError."""
        found = self._load()
        # Somebody else's folder may only be readable; then its owner fetches the sound.
        if any(sound.is_awaited(each) for each in found) and os.access(self.directory, os.W_OK):
            self._fetch()
            found = self._load()
        return found

    def remove(self, number: str) -> bool:
        """Remove the correction of this id and its sound; False if there is none. Raises CorrectionError."""
        if not any(each.id == number for each in self._load()):
            return False
        with self._changing() as before:
            kept = tuple(each for each in before if each.id != number)
            self._write(kept)
            self._forget(before, kept)
        return len(kept) < len(before)

    def verdict_of(self, machine: str, stream: str, event: str, start: datetime) -> Verdict | None:
        """The verdict on the event with this id that began at this time; None if there is none.

        After a reboot a daemon may use an id again, so the time counts too. Raises CorrectionError.
        """
        for each in self._load():
            if (each.machine, each.stream, each.event) == (machine, stream, event) and _near(each.start, start):
                return each.verdict
        return None

    def path(self, correction: Correction) -> Path | None:
        """The file with its sound; None if there is none."""
        return None if correction.sound is None else self.directory / correction.sound

    # Reading.

    def _load(self) -> tuple[Correction, ...]:
        """The file as it is now. It is decoded again only if it has changed."""
        path = self.directory / MANIFEST
        try:
            info = path.stat()
            stamp = (info.st_mtime_ns, info.st_size, info.st_ino)
            if self._read is None or self._read[0] != stamp:
                self._read = stamp, decoded(path.read_bytes(), str(path))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise CorrectionError(f"{path}: cannot be read ({error.strerror})") from error
        return self._read[1]

    # Changing.

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[Correction, ...]]:
        """The corrections; nobody else changes them inside. Raises CorrectionError."""
        try:
            self.directory.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            with open(self.directory / LOCK, "ab", opener=_private) as lock:
                self._acquire(lock.fileno())
                self._read = None
                yield self._load()
        except OSError as error:
            what = error.filename or self.directory
            raise CorrectionError(f"{what}: cannot be written ({error.strerror})") from error

    def _acquire(self, descriptor: int) -> None:
        deadline_s = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise CorrectionError(
                        f"{self.directory}: another program has been changing it for {LOCK_S:g} s; try again"
                    ) from None
                time.sleep(LOCK_EVERY_S)
            else:
                return

    def _write(self, corrections: tuple[Correction, ...]) -> None:
        """Replace the file; after a crash it is the old or the new one."""
        self._write_file(MANIFEST, encoded(corrections))
        self._read = None

    def _write_sound(self, name: str, data: bytes) -> None:
        total = sum(size for _, size in self._sounds())
        if total + len(data) > MOST_BYTES:
            raise CorrectionError(
                f"{self.directory}: has {total / 1e9:.1f} GB of sound already; remove some corrections first"
            )
        disk = os.statvfs(self.directory)
        if disk.f_bavail * disk.f_frsize < RESERVE_BYTES + len(data):
            raise CorrectionError(f"{self.directory}: less than {RESERVE_BYTES // 1_000_000} MB are free")
        self._write_file(name, data)

    def _write_file(self, name: str, data: bytes) -> None:
        part = self.directory / f"{name}.part"
        part.unlink(missing_ok=True)  # of a program that was killed
        try:
            with open(part, "xb", opener=_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.directory / name)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # otherwise the new name may be lost with the power
        finally:
            os.close(folder)

    def _forget(self, before: tuple[Correction, ...], kept: tuple[Correction, ...]) -> None:
        """Remove the sounds of corrections that are not kept."""
        for each in {each.sound for each in before} - {each.sound for each in kept} - {None}:
            assert each
            (self.directory / each).unlink(missing_ok=True)

    def _fetch(self) -> None:
        """Get the sounds that were not on disk before."""
        with self._changing() as before:
            after = tuple(self._fetched(each) if sound.is_awaited(each) else each for each in before)
            if after != before:
                self._write(after)

    def _fetched(self, correction: Correction) -> Correction:
        found = sound.find(correction, self._recent.get(correction.machine), None)
        if found.data is not None:
            self._write_sound(f"{correction.id}{found.suffix}", found.data)
        return replace(correction, sound=found.name(correction.id), sound_start=found.start, why=found.why)

    def _sounds(self) -> Iterator[tuple[str, int]]:
        """Name and bytes of each sound."""
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if SOUND.fullmatch(entry.name):
                    yield entry.name, entry.stat(follow_symlinks=False).st_size


def _same_event(one: Correction, other: Correction) -> bool:
    """Whether both are verdicts on one event."""
    if one.event is None or (one.machine, one.stream, one.event) != (other.machine, other.stream, other.event):
        return False
    return _near(one.start, other.start)


def _near(one: datetime, other: datetime) -> bool:
    return abs(one - other) < timedelta(seconds=1)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
