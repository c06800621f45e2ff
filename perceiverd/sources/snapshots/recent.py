"""A folder with the recent sound of streams: FLAC files whose names say which time they hold, a folder for each stream.

The daemon's workers write it, and other programs cut sound out of it by time. Its functions wait for the disk.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S

NAME = re.compile(r"(\d{8}T\d{6})\.(\d{3})Z_(\d{1,7})ms\.flac")
"""Start in UTC and length."""
PART = re.compile(NAME.pattern + r"\.part")
STREAM = re.compile(r"[A-Za-z0-9_-]{1,64}")
LONGEST_MS = 60_000
"""No file is longer than this, so a search by time can start this long before."""
JOIN_MS = 5
"""Files that are this close to each other hold one sound: their names are rounded to milliseconds."""
TIME = "%Y%m%dT%H%M%S"


@dataclass(frozen=True, slots=True)
class RecentSegment:
    """One file of recent sound."""

    path: Path
    start: datetime
    """UTC of its first sample."""
    length_ms: int

    @property
    def end(self) -> datetime:
        """UTC after its last sample."""
        return self.start + timedelta(milliseconds=self.length_ms)


@dataclass(frozen=True, slots=True, eq=False)
class CutSound:
    """Sound that was cut out of the recent sound."""

    start: datetime
    """UTC of its first sample."""
    samples: NDArray[np.float32]
    """(S,), -1..1."""
    rate_hz: int

    @property
    def end(self) -> datetime:
        """UTC after its last sample."""
        return self.start + timedelta(seconds=len(self.samples) / self.rate_hz)


def name_of(start_ns: int, length_ms: int) -> str:
    """The name of the file with `length_ms` of sound from this time on, in nanoseconds since 1970."""
    at = datetime.fromtimestamp(start_ns // NS_PER_S, UTC)
    return f"{at:{TIME}}.{start_ns % NS_PER_S // 1_000_000:03d}Z_{length_ms}ms.flac"


def segment_of(path: Path) -> RecentSegment | None:
    """The segment in this file by its name; None if the name is not one of ours."""
    found = NAME.fullmatch(path.name)
    if found is None:
        return None
    try:
        start = datetime.strptime(found[1], TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return RecentSegment(path, start + timedelta(milliseconds=int(found[2])), min(int(found[3]), LONGEST_MS))


def streams(directory: Path) -> tuple[str, ...]:
    """The streams that have recent sound in this folder, by name. Raises OSError if it cannot be read."""
    with os.scandir(directory) as entries:
        return tuple(
            sorted(each.name for each in entries if STREAM.fullmatch(each.name) and each.is_dir(follow_symlinks=False))
        )


def segments(
    directory: Path, stream: str, start: datetime | None = None, end: datetime | None = None
) -> tuple[RecentSegment, ...]:
    """The segments of a stream that overlap [start, end), in order of time; empty if it has none. Raises OSError."""
    if not STREAM.fullmatch(stream):
        return ()
    try:
        paths = sorted((directory / stream).iterdir())
    except FileNotFoundError:
        return ()
    found = map(segment_of, paths)
    return tuple(
        each
        for each in found
        if each is not None and (start is None or each.end > start) and (end is None or each.start < end)
    )


def cut(directory: Path, stream: str, start: datetime, end: datetime) -> CutSound | None:
    """The sound of [start, end) that is there without a gap; of several stretches the longest. None if there is none.

    Raises MediaError if a file is damaged, OSError if one cannot be read.
    """
    runs: list[list[RecentSegment]] = []
    for each in segments(directory, stream, start, end):
        if runs and each.start - runs[-1][-1].end <= timedelta(milliseconds=JOIN_MS):
            runs[-1].append(each)
        else:
            runs.append([each])
    best = max(runs, key=lambda run: min(run[-1].end, end) - max(run[0].start, start), default=None)
    return None if best is None else _joined(best, start, end)


def read(path: Path) -> tuple[NDArray[np.float32], int]:
    """The samples (S,) of a mono FLAC file and its rate. Raises MediaError if it is damaged, OSError."""
    try:
        with av.open(str(path), "r", format="flac") as container:
            rate_hz = container.streams.audio[0].rate
            parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    except FileNotFoundError:
        raise
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(f"{path}: cannot be read as FLAC ({error})") from error
    if not parts:
        raise MediaError(f"{path}: has no sound")
    return np.concatenate(parts).astype(np.float32) / np.float32(32768), rate_hz


def _joined(run: Sequence[RecentSegment], start: datetime, end: datetime) -> CutSound | None:
    """The part of these adjoining segments that lies in [start, end)."""
    parts: list[NDArray[np.float32]] = []
    rate_hz, first = 0, run[0].start
    for each in run:
        with contextlib.suppress(FileNotFoundError):  # it became too old a moment ago
            samples, here_hz = read(each.path)
            if here_hz != rate_hz or not parts:  # another model with another rate: only what follows fits together
                parts, rate_hz, first = [], here_hz, each.start
            parts.append(samples)
    if not parts:
        return None
    samples = np.concatenate(parts)
    begin = max(0, round((start - first).total_seconds() * rate_hz))
    stop = min(len(samples), round((end - first).total_seconds() * rate_hz))
    if begin >= stop:
        return None
    return CutSound(first + timedelta(seconds=begin / rate_hz), samples[begin:stop], rate_hz)
