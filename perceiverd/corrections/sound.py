"""The sound of a correction: cut out of the recent sound of a machine, or the clip of the event. Writes nothing."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perceiverd.core.errors import MediaError
from perceiverd.corrections.manifest import Correction
from perceiverd.sources.snapshots import recent
from perceiverd.sources.snapshots.sound import flac

AROUND = timedelta(seconds=2)
"""This much before and after the marked time is kept too: a sound begins before a person reacts."""
LONGEST = timedelta(seconds=60)
"""Of a longer event, this much from its beginning is kept."""
LEAST_SHARE = 0.5
"""Sound that covers less of the marked time does not count."""
AWAITED_S = 120.0
"""A daemon writes recent sound within this time."""
AWAITED = "the sound is not on disk yet; it is fetched within two minutes"
CLIP_BYTES = 200_000_000
"""A larger clip is not ours."""
MAGIC = {b"fLaC": ".flac", b"\x1aE\xdf\xa3": ".mkv"}
"""How the clips that a daemon writes begin. Nothing else is copied, whatever a message names as its clip."""


@dataclass(frozen=True, slots=True)
class FoundSound:
    """The sound of a correction, or why there is none."""

    data: bytes | None = None
    """The file's contents."""
    suffix: str = ""
    start: datetime | None = None
    """UTC of its first sample; None if that is not known exactly."""
    why: str | None = None

    def name(self, number: str) -> str | None:
        """The file of the correction with this id."""
        return None if self.data is None else f"{number}{self.suffix}"


def is_awaited(correction: Correction) -> bool:
    """Whether its sound may still come."""
    return correction.sound is None and correction.why == AWAITED


def find(correction: Correction, folder: Path | None, clip: Path | None) -> FoundSound:
    """The sound of a correction. `folder`: the recent sound of its machine, if that is at hand; `clip`: of its event.

    A clip with pictures is preferred, because the model learns from both. Otherwise recent sound is, because its
    times are exact.
    """
    copied = FoundSound(why="the event has no clip") if clip is None else _copied(clip)
    if copied.suffix == ".mkv":
        return copied
    found = _cut(correction, folder)
    return found if found.data is not None or copied.data is None else copied


def _copied(clip: Path) -> FoundSound:
    try:
        descriptor = os.open(clip, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode) or info.st_size > CLIP_BYTES:
                return FoundSound(why="the event's clip is not a file of perceiverd")
            data = file.read(CLIP_BYTES)
    except OSError as error:
        return FoundSound(why=f"the event's clip cannot be read ({error.strerror})")
    if (suffix := MAGIC.get(data[:4])) is None:
        return FoundSound(why="the event's clip is not a file of perceiverd")
    return FoundSound(data, suffix)


def _cut(correction: Correction, folder: Path | None) -> FoundSound:
    if folder is None:
        return FoundSound(why="no recent sound is kept of this machine; set snapshots.recent_hours of its daemon")
    end = min(correction.end, correction.start + LONGEST)
    awaited = (datetime.now(UTC) - correction.end).total_seconds() < AWAITED_S
    try:
        found = recent.cut(folder, correction.stream, correction.start - AROUND, end + AROUND)
    except MediaError as error:
        return FoundSound(why=str(error))
    except OSError as error:
        return FoundSound(why=f"{folder}: cannot be read ({error.strerror})")
    wanted_s = (end - correction.start).total_seconds()
    have_s = 0.0 if found is None else (min(found.end, end) - max(found.start, correction.start)).total_seconds()
    # While the daemon still writes, wait for the sound after the mark too.
    if awaited and (found is None or found.end < end + AROUND - timedelta(milliseconds=recent.JOIN_MS)):
        return FoundSound(why=AWAITED)
    if found is None or have_s < LEAST_SHARE * wanted_s:
        return FoundSound(why="the daemon kept no sound of that time")
    return FoundSound(flac(found.samples, found.rate_hz), ".flac", found.start)
