"""What a fit learns from: the clips of the corrections, and ordinary hours as background. Reads files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import ConfigError, MediaError
from perceiverd.core.logs import log_event
from perceiverd.core.media import Chunk, MediaFormat
from perceiverd.corrections import Correction, Corrections
from perceiverd.evaluation.manifest import files_in
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.windower import Window
from perceiverd.sources.decode import container
from perceiverd.sources.snapshots.recent import streams as streams_of
from perceiverd.training.corrections.learning import LearntClip, Ordinary
from perceiverd.training.corrections.rows import Vectors
from perceiverd.training.corrections.windows import (
    HOP_S,
    Embedder,
    Run,
    audible,
    clip_windows,
    of_mark,
    recent_runs,
    variants,
)
from perceiverd.training.fitting.progress import ProgressReporter

logger = logging.getLogger("perceiverd.training")

STRETCH = 120
"""Windows of a stretch of background: a minute. Each counts once when a threshold is chosen."""
NEAR = timedelta(seconds=5)
"""Sound this close to a mark is no background."""
NOISES = 200
"""Pieces of background that are mixed into clips."""


@dataclass(frozen=True, eq=False)
class Background:
    """Ordinary sound as vectors."""

    vectors: Vectors
    runs: tuple[slice, ...]
    """The consecutive windows."""
    places: tuple[tuple[str, datetime | None], ...]
    """Of each run, the stream and the time of its first window; the time is None for a file."""
    noises: tuple[NDArray[np.float32], ...]
    """Some of its windows, (samples,)."""

    @property
    def hours(self) -> float:
        return len(self.vectors) * HOP_S / 3600

    def stretches(self) -> tuple[slice, ...]:
        """The consecutive windows in stretches of a minute or less."""
        return tuple(
            slice(first, min(first + STRETCH, run.stop))
            for run in self.runs
            for first in range(run.start, run.stop, STRETCH)
        )

    def ordinary(self, remembered: Vectors, geometry: Geometry) -> Ordinary:
        """With the memories of the model that has this geometry, as a learner takes it."""
        parts = tuple(geometry.vector_parts.values())
        return Ordinary(self.vectors, self.stretches(), HOP_S, remembered, parts)


def usable(corrections: Corrections) -> tuple[Correction, ...]:
    """The corrections that have sound. Raises ConfigError if none has; logs those that have none."""
    every = corrections.every()
    if not every:
        raise ConfigError(f"{corrections.directory}: has no corrections; `perceiverd teach` and the web page make them")
    for each in every:
        if each.sound is None:
            log_event(logger, logging.WARNING, "correction-skipped", id=each.id, label=each.name, reason=each.why)
    found = tuple(each for each in every if each.sound is not None)
    if not found:
        raise ConfigError(f"{corrections.directory}: none of its {len(every)} corrections has sound; {every[-1].why}")
    return found


def background(
    recent: Sequence[Path],
    folders: Sequence[Path],
    corrections: Sequence[Correction],
    embedder: Embedder,
    hours: float,
    progress: ProgressReporter,
) -> Background:
    """Up to `hours` of recent sound and files, without the times near marks. Raises ConfigError, MediaError."""
    geometry, most = embedder.card.geometry, round(hours * 3600 / HOP_S)
    parts: list[Vectors] = []
    runs: list[slice] = []
    places: list[tuple[str, datetime | None]] = []
    noises: list[NDArray[np.float32]] = []
    count, rng = 0, np.random.default_rng(1)
    for run in _runs(recent, folders, corrections, geometry):
        windows = list(run.windows(geometry))[: most - count]
        if not windows:
            continue
        parts.append(embedder.vectors(windows))
        runs.append(slice(count, count + len(windows)))
        places.append((run.stream, run.start if run.stream else None))
        few = rng.choice(len(windows), min(len(windows), max(1, len(windows) * NOISES // most)), replace=False)
        noises += [audio for at in few.tolist() if (audio := windows[at].audio) is not None]
        count += len(windows)
        progress.update(count, count / most)
        if count >= most:
            break
    width = geometry.vector_width
    vectors = np.concatenate(parts) if parts else np.zeros((0, width), np.float32)
    return Background(vectors, tuple(runs), tuple(places), tuple(noises))


def _runs(
    recent: Sequence[Path], folders: Sequence[Path], corrections: Sequence[Correction], geometry: Geometry
) -> Iterator[Run]:
    """Recent sound by turns of the folders' streams, then files."""
    since = datetime.now(UTC) - timedelta(days=7)
    for folder in recent:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder of recent sound; recent_hours in [snapshots] makes one")
        streams = [iter(recent_runs(folder, stream, geometry, since)) for stream in streams_of(folder)]
        while streams:  # each stream in turn, so that a limit leaves some of each
            for each in tuple(streams):
                if (run := next(each, None)) is None:
                    streams.remove(each)
                else:
                    yield from _without_marks(run, corrections, geometry)
    assert geometry.audio
    wanted = MediaFormat(audio_rate_hz=geometry.audio.rate_hz, video=None)
    for row in (row for folder in folders for row in files_in(folder)):
        try:
            chunks = [item.samples for item in container.read(row.file, wanted) if isinstance(item, Chunk)]
        except MediaError as error:
            log_event(logger, logging.WARNING, "background-skipped", file=str(row.file), reason=str(error))
            continue
        if chunks:
            yield Run("", datetime.fromtimestamp(0, UTC), np.concatenate(chunks))


def _without_marks(run: Run, corrections: Sequence[Correction], geometry: Geometry) -> Iterator[Run]:
    """The parts of a run that are not near a mark of its stream."""
    assert geometry.audio
    rate_hz = geometry.audio.rate_hz
    free = np.ones(len(run.samples), np.bool_)
    for each in corrections:
        if each.stream == run.stream:
            begin, end = ((time - run.start).total_seconds() for time in (each.start - NEAR, each.end + NEAR))
            free[max(0, round(begin * rate_hz)) : max(0, round(end * rate_hz))] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]]).astype(np.int8))).tolist()
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        yield Run(run.stream, run.start + timedelta(seconds=first / rate_hz), run.samples[first:after])


def clips(
    corrections: Corrections,
    chosen: Sequence[Correction],
    embedder: Embedder,
    noises: Sequence[NDArray[np.float32]],
    progress: ProgressReporter,
) -> list[LearntClip]:
    """The vectors of the corrections' clips. Logs those that cannot be read; raises MediaError if none can."""
    found, fault = [], None
    for number, each in enumerate(chosen, 1):
        path = corrections.path(each)
        assert path
        try:
            found.append(_clip(each, path, embedder, noises, number))
        except MediaError as error:
            fault = error
            log_event(logger, logging.WARNING, "correction-skipped", id=each.id, label=each.name, reason=str(error))
        progress.update(number, number / len(chosen))
    if not found and fault is not None:
        raise fault
    return found


def _clip(
    correction: Correction, path: Path, embedder: Embedder, noises: Sequence[NDArray[np.float32]], seed: int
) -> LearntClip:
    windows = clip_windows(path, embedder.card.geometry)
    if not windows:
        raise MediaError(f"{path}: has no audio or video")
    context = embedder.vectors(windows)
    marked = of_mark(windows, correction)
    if correction.sound_start is None:
        marked = _highest(windows, context, embedder, correction.mid)
    examples = embedder.vectors(variants(audible(marked), noises, seed))
    place = f"{correction.machine}/{correction.stream} {correction.start:%Y-%m-%d %H:%M:%S}"
    return LearntClip(correction.verdict, correction.mid, correction.name, place, context, examples)


def _highest(windows: Sequence[Window], vectors: Vectors, embedder: Embedder, mid: str) -> list[Window]:
    """The windows of an event at an unknown time in its clip: those with at least half of the label's best score."""
    index = next((label.index for label in embedder.card.labels if label.mid == mid), None)
    if index is None:
        return list(windows)
    scores = 1 / (1 + np.exp(-embedder.logits(vectors)[:, index]))
    return [window for window, score in zip(windows, scores, strict=True) if score >= scores.max() / 2]
