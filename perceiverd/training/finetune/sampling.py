"""Windows to train on: a random place in a clip, augmented, and the targets of each label.

A sample depends on seed, clip and number alone. So a fit that is resumed, or shared between processes, uses the same
samples. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.labels import Label, ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.evaluation.manifest import ManifestRow
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.windower import Window
from perceiverd.training.finetune import clip_cache
from perceiverd.training.finetune.clip_cache import DecodedClip
from perceiverd.training.finetune.settings import AugmentSettings
from perceiverd.training.synthesis.tones import coloured_noise

CANDIDATES = 3
"""Places tried in a labelled clip. The loudest is used, because a clip is named after what stands out in it."""
UNSURE_DB, SILENT_DB = 25.0, 40.0
"""How far a window is below the clip's loudest block: from the first on its labels are unknown, then absent."""
SUBSTITUTES = 50
"""The most clips in a row that may be unreadable."""

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """One window and its targets."""

    audio: Vector | None
    """(samples,)"""
    video: NDArray[np.uint8] | None
    """(T, H, W, 3)"""
    targets: Vector
    """(classes,) 0..1; NaN: use the score of the model that the fit started from."""
    weights: Vector
    """(classes,) 0 or 1: whether the label counts."""


class Vocabulary:
    """What the labels of a clip say about each class of the model."""

    def __init__(self, labels: Sequence[Label], mids: Sequence[str], *, old: int) -> None:
        """`labels`: all of the model's; the model to start from has the first `old` (0: there is no such model).

        `mids`: the labels in the manifest. About the other old labels the manifest says nothing.
        """
        self._index = {label.mid: label.index for label in labels}
        self.taught = tuple(self._index[mid] for mid in mids)
        """Indices of the labels in the manifest."""
        self.old = old
        self._unlabelled = np.zeros(len(labels), np.float32)
        self._unlabelled[:old] = np.nan
        self._absent = self._unlabelled.copy()
        self._absent[list(self.taught)] = 0
        places = set(self.taught) if old else set()
        self._above = {
            index: [
                self._index[mid] for mid in ontology().ancestors(labels[index].mid) if self._index.get(mid) in places
            ]
            for index in places
        }
        self._below = {index: [other for other in places if index in self._above[other]] for index in places}

    def present(self, mids: Sequence[str]) -> list[int]:
        """The classes that a clip with these labels has. A bark is a dog too, if the manifest has dogs."""
        places = [self._index[mid] for mid in mids]
        return sorted({*places, *(index for place in places for index in self._above.get(place, ()))})

    def targets(self, mids: Sequence[str]) -> tuple[Vector, Vector]:
        """(targets, weights) of a clip, both (classes,)."""
        if not mids:
            return self._unlabelled.copy(), np.ones_like(self._unlabelled)
        targets, weights = self._absent.copy(), np.ones_like(self._absent)
        present = self.present(mids)
        for place in present:
            weights[self._below.get(place, [])] = 0  # a clip labelled Dog may have any sound of a dog
        targets[present], weights[present] = 1, 1
        return targets, weights


class ClipSampler:
    """Samples from a list of clips. Only the count of unreadable clips changes after construction."""

    def __init__(
        self,
        rows: Sequence[ManifestRow],
        places: Sequence[Path] | None,
        geometry: Geometry,
        vocabulary: Vocabulary,
        augment: AugmentSettings,
        *,
        seed: int,
        skip: float,
    ) -> None:
        """`places`: the decoded clip of each row; None: clips are decoded for each sample.

        In that case a share `skip` of the clips may be unreadable.
        """
        self.rows, self.vocabulary = tuple(rows), vocabulary
        self._places, self._geometry, self._augment = places, geometry, augment
        self._seed, self._skip = seed, skip
        self._unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def unreadable(self) -> int:
        """Clips that could not be decoded so far."""
        return len(self._unreadable)

    def sample(self, index: int, number: int) -> Sample:
        """Sample `number` of the clip at `index`, or of the next clip if that is unreadable. Raises MediaError."""
        for at in range(index, index + SUBSTITUTES):
            place = at % len(self.rows)
            rng = np.random.default_rng([self._seed, place, number])
            try:
                return self._sample(self._clip(place), self.rows[place], rng)
            except MediaError as error:
                if self._places is not None:
                    raise
                self._skip_clip(place, error)
        raise MediaError(f"{SUBSTITUTES} clips in a row, from {self.rows[index].file} on, cannot be read")

    def _skip_clip(self, place: int, error: MediaError) -> None:
        self._unreadable.add(place)
        if len(self._unreadable) > self._skip * len(self.rows):
            raise MediaError(
                f"{len(self._unreadable)} of {len(self.rows)} clips cannot be read; "
                f"--skip allows a share of {self._skip:g}; the last: {error}"
            ) from error

    def _clip(self, place: int) -> DecodedClip:
        if self._places is not None:
            return clip_cache.load(self._places[place])
        row = self.rows[place]
        (clip,) = clip_cache.decode(row.file, [row], self._geometry.media_format)
        if isinstance(clip, MediaError):
            raise clip
        return clip

    def _sample(self, clip: DecodedClip, row: ManifestRow, rng: np.random.Generator) -> Sample:
        window = self._random_window(clip, row, rng)
        targets, weights = self.vocabulary.targets(row.labels)
        if window.audio is not None and window.video is None and clip.loudest > 0:
            level = clip_cache.peak_level(window.audio, clip.rate_hz)
            below_db = 20 * np.log10(clip.loudest / max(level, 1e-9))
            present = self.vocabulary.present(row.labels)
            if below_db > SILENT_DB:
                targets[present] = 0
            elif below_db > UNSURE_DB:
                weights[present] = 0
        audio, video = augment(window, self._augment, rng)
        return Sample(audio, video, targets, weights)

    def _random_window(self, clip: DecodedClip, row: ManifestRow, rng: np.random.Generator) -> Window:
        spare_ns = clip.end_ns - self._geometry.window_ns
        if spare_ns <= 0:
            found = [clip.window(self._geometry, 0)]
        else:
            tries = CANDIDATES if row.labels and self.vocabulary.old and len(clip.chunks) else 1
            found = [clip.window(self._geometry, int(start)) for start in rng.integers(0, spare_ns + 1, tries)]
        windows = [window for window in found if window is not None]
        if not windows:
            raise MediaError(f"{row.file}: has no audio or video")
        window = max(windows, key=lambda one: _level(one, clip.rate_hz))
        if spare_ns < 0 and window.audio is not None and window.video is None:
            # A clip shorter than a window lies at its start. In a live window it may lie anywhere.
            shift = int(rng.integers(0, max(1, -spare_ns * clip.rate_hz // NS_PER_S)))
            return Window(window.start_ns, window.end_ns, np.roll(window.audio, shift), None)
        return window


def _level(window: Window, rate_hz: int) -> float:
    return 0 if window.audio is None else clip_cache.peak_level(window.audio, rate_hz)


def augment(
    window: Window, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[Vector | None, NDArray[np.uint8] | None]:
    """The window's audio (samples,) and video (T, H, W, 3) after random changes that keep its labels true."""
    audio, video = window.audio, window.video
    if audio is not None and video is not None:
        lot = rng.random()
        if lot < settings.without_video:
            video = None
        elif lot < settings.without_video + settings.without_audio:
            audio = None
    if audio is not None:
        audio = _augment_audio(audio, settings, rng)
    if video is not None and rng.random() < settings.flip:
        video = np.ascontiguousarray(video[:, :, ::-1])
    return audio, video


def _augment_audio(audio: Vector, settings: AugmentSettings, rng: np.random.Generator) -> Vector:
    audio = audio * np.float32(10 ** (rng.uniform(-settings.gain_db, settings.gain_db) / 20))
    power = float(np.mean(np.square(audio)))
    if rng.random() < settings.noise and power > 0:
        noise = coloured_noise(rng, len(audio), rng.uniform(0, 2))
        audio = audio + noise * np.float32(power**0.5 * 10 ** (-rng.uniform(20, 50) / 20))
    return np.clip(audio, -1, 1).astype(np.float32)


def shuffled_order(seed: int, count: int, first: int, rows: int) -> Iterator[tuple[int, int]]:
    """(clip, epoch) of `rows` places, from place `first` on, in an endless sequence of epochs.

    Each epoch has all `count` clips once, in a different order.
    """
    place = first
    while place < first + rows:
        epoch, within = divmod(place, count)
        shuffled = np.random.default_rng([seed, epoch]).permutation(count)
        for index in shuffled[within : within + first + rows - place].tolist():
            yield index, epoch
            place += 1


class BatchLoader:
    """The samples of each step that belong to this process. Threads make the next step's samples ahead."""

    def __init__(
        self, parts: Sequence[tuple[ClipSampler, int]], seed: int, rank: int, size: int, pool: ThreadPoolExecutor
    ) -> None:
        """`parts`: samplers, and how many samples a step takes of each, over all processes."""
        self._parts, self._seed, self._rank, self._size, self._pool = parts, seed, rank, size, pool
        self._ahead: dict[int, list[list[Future[Sample]]]] = {}

    def __call__(self, step: int) -> list[list[Sample]]:
        """The samples of this step, part by part. Starts to make those of the next step."""
        ahead = self._ahead.pop(step, None) or self._start(step)
        self._ahead = {step + 1: self._start(step + 1)}
        return [[future.result() for future in part] for part in ahead]

    def map(self, sampler: ClipSampler, places: Sequence[tuple[int, int]]) -> list[Sample]:
        """The samples (clip, number) at these places, made by the threads."""
        return list(self._pool.map(lambda place: sampler.sample(*place), places))

    def _start(self, step: int) -> list[list[Future[Sample]]]:
        found = []
        for number, (sampler, rows) in enumerate(self._parts):
            places = list(shuffled_order(self._seed + number, len(sampler), step * rows, rows)) if len(sampler) else []
            found.append([self._pool.submit(sampler.sample, *place) for place in places[self._rank :: self._size]])
        return found


@contextmanager
def batch_loader(
    parts: Sequence[tuple[ClipSampler, int]], *, seed: int, rank: int, size: int, threads: int
) -> Iterator[BatchLoader]:
    """A loader whose threads end with the context."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield BatchLoader(parts, seed, rank, size, pool)
    finally:
        pool.shutdown(cancel_futures=True)
