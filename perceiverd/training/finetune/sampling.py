"""Windows to learn from: somewhere in a clip, a little louder, noisier or mirrored; and what they hold.

A draw is a function of seed, clip and number alone, so that a fit goes on after a stop, or is shared out among
processes, as if nothing had happened. Knows nothing of networks.
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
from perceiverd.core.labels import Label
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.windower import Window
from perceiverd.training.finetune import clip_cache
from perceiverd.training.finetune.clip_cache import DecodedClip
from perceiverd.training.finetune.manifest import ManifestRow, above
from perceiverd.training.finetune.settings import AugmentSettings
from perceiverd.training.synthesis.tones import coloured_noise

CANDIDATES = 3
"""Of so many places in a labelled clip the loudest is taken: a clip is named after what stands out in it."""
VOUCHED_DB, SILENT_DB = 25.0, 40.0
"""A window this much fainter than the clip's loudest tenth of a second may lack what the clip is named after; surely
lacks it."""
SUBSTITUTES = 50
"""So many clips in a row that can't be read, and a draw is given up."""

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """One window and what is known of it."""

    audio: Vector | None
    """(samples,)"""
    video: NDArray[np.uint8] | None
    """(T, H, W, 3)"""
    targets: Vector
    """(classes,) 0..1; NaN where the model that a fit started from is to be followed."""
    weights: Vector
    """(classes,) how much each counts: 0 or 1."""


class Vocabulary:
    """What the labels of a clip say of each class."""

    def __init__(self, labels: Sequence[Label], named: Sequence[str], *, old: int) -> None:
        """`labels`: all of the model's; the first `old` are known to the model that was started from, 0 of a new one.

        `named`: the mids that the manifest speaks of. Of the other old ones it says nothing.
        """
        self._place = {label.mid: label.index for label in labels}
        self.named = tuple(self._place[mid] for mid in named)
        """Indices of what the manifest speaks of."""
        self.old = old
        self._nothing = np.zeros(len(labels), np.float32)
        self._nothing[:old] = np.nan
        self._absent = self._nothing.copy()
        self._absent[list(self.named)] = 0
        places = set(self.named) if old else set()
        self._above = {
            index: [self._place[mid] for mid in above(labels[index].mid) if self._place.get(mid) in places]
            for index in places
        }
        self._below = {index: [other for other in places if index in self._above[other]] for index in places}

    def present(self, mids: Sequence[str]) -> list[int]:
        """The classes that a clip with these labels has: a bark is a dog's, where the manifest speaks of dogs."""
        places = [self._place[mid] for mid in mids]
        return sorted({*places, *(index for place in places for index in self._above.get(place, ()))})

    def targets(self, mids: Sequence[str]) -> tuple[Vector, Vector]:
        """(targets, weights), both (classes,)."""
        if not mids:
            return self._nothing.copy(), np.ones_like(self._nothing)
        targets, weights = self._absent.copy(), np.ones_like(self._absent)
        present = self.present(mids)
        for place in present:
            weights[self._below.get(place, [])] = 0  # it may be any kind of dog
        targets[present], weights[present] = 1, 1
        return targets, weights


class ClipSampler:
    """Draws from a list of clips. Nothing changes after construction but the count of what failed."""

    def __init__(
        self,
        lines: Sequence[ManifestRow],
        places: Sequence[Path] | None,
        geometry: Geometry,
        vocabulary: Vocabulary,
        augment: AugmentSettings,
        *,
        seed: int,
        skip: float,
    ) -> None:
        """`places`: where each line's clip is kept; None: it is decoded whenever it is drawn.

        Of those a share `skip` may fail.
        """
        self.lines, self.vocabulary = tuple(lines), vocabulary
        self._places, self._geometry, self._augment = places, geometry, augment
        self._seed, self._skip = seed, skip
        self._lost: set[int] = set()

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def lost(self) -> int:
        """Clips that could not be read when they were drawn."""
        return len(self._lost)

    def draw(self, index: int, number: int) -> Sample:
        """Draw `number` of the clip at `index`; of the next one where that can't be read. Raises MediaError."""
        for at in range(index, index + SUBSTITUTES):
            place = at % len(self.lines)
            try:
                return self._draw(
                    self._take(place), self.lines[place], np.random.default_rng([self._seed, place, number])
                )
            except MediaError as error:
                if self._places is not None:
                    raise
                self._lost.add(place)
                if len(self._lost) > self._skip * len(self.lines):
                    raise MediaError(
                        f"{len(self._lost)} of {len(self.lines)} clips can't be read, more than a share of "
                        f"{self._skip:g}; the last: {error}"
                    ) from error
        raise MediaError(f"{SUBSTITUTES} clips in a row, from {self.lines[index].file} on, can't be read")

    def _take(self, place: int) -> DecodedClip:
        if self._places is not None:
            return clip_cache.load(self._places[place])
        line = self.lines[place]
        (take,) = clip_cache.decode(line.file, [line], self._geometry.media_format)
        if isinstance(take, MediaError):
            raise take
        return take

    def _draw(self, take: DecodedClip, line: ManifestRow, rng: np.random.Generator) -> Sample:
        window = self._somewhere(take, line, rng)
        targets, weights = self.vocabulary.targets(line.labels)
        if window.audio is not None and window.video is None and take.loudest > 0:
            heard = clip_cache.peak_level(window.audio, take.rate_hz)
            below_db = 20 * np.log10(take.loudest / max(heard, 1e-9))
            present = self.vocabulary.present(line.labels)
            if below_db > SILENT_DB:
                targets[present] = 0
            elif below_db > VOUCHED_DB:
                weights[present] = 0
        audio, video = augment(window, self._augment, rng)
        return Sample(audio, video, targets, weights)

    def _somewhere(self, take: DecodedClip, line: ManifestRow, rng: np.random.Generator) -> Window:
        spare_ns = take.end_ns - self._geometry.window_ns
        if spare_ns <= 0:
            found = [take.window(self._geometry, 0)]
        else:
            several = CANDIDATES if line.labels and self.vocabulary.old and len(take.chunks) else 1
            found = [take.window(self._geometry, int(start)) for start in rng.integers(0, spare_ns + 1, several)]
        windows = [window for window in found if window is not None]
        if not windows:
            raise MediaError(f"{line.file}: nothing to hear or see in it")
        window = max(
            windows, key=lambda one: 0 if one.audio is None else clip_cache.peak_level(one.audio, take.rate_hz)
        )
        if spare_ns < 0 and window.audio is not None and window.video is None:
            # A clip shorter than a window begins with it; live it may be anywhere in it.
            rate = take.rate_hz
            shift = int(rng.integers(0, max(1, -spare_ns * rate // 1_000_000_000)))
            return Window(window.start_ns, window.end_ns, np.roll(window.audio, shift), None)
        return window


def augment(
    window: Window, how: AugmentSettings, rng: np.random.Generator
) -> tuple[Vector | None, NDArray[np.uint8] | None]:
    """The window's sound and pictures, changed as a listener would not mind."""
    audio, video = window.audio, window.video
    if audio is not None and video is not None:
        lot = rng.random()
        if lot < how.without_video:
            video = None
        elif lot < how.without_video + how.without_audio:
            audio = None
    if audio is not None:
        audio = audio * np.float32(10 ** (rng.uniform(-how.gain_db, how.gain_db) / 20))
        power = float(np.mean(np.square(audio)))
        if rng.random() < how.noise and power > 0:
            noise = coloured_noise(rng, len(audio), rng.uniform(0, 2))
            audio = audio + noise * np.float32(power**0.5 * 10 ** (-rng.uniform(20, 50) / 20))
        audio = np.clip(audio, -1, 1).astype(np.float32)
    if video is not None and rng.random() < how.flip:
        video = np.ascontiguousarray(video[:, :, ::-1])
    return audio, video


def shuffled_order(seed: int, count: int, first: int, rows: int) -> Iterator[tuple[int, int]]:
    """(clip, epoch) of `rows` places from `first` on in the endless sequence of epochs, each in an order of its own."""
    place = first
    while place < first + rows:
        epoch, within = divmod(place, count)
        shuffled = np.random.default_rng([seed, epoch]).permutation(count)
        for index in shuffled[within : within + first + rows - place].tolist():
            yield index, epoch
            place += 1


class BatchLoader:
    """A process's share of every step's draws, made ahead by threads."""

    def __init__(
        self, parts: Sequence[tuple[ClipSampler, int]], seed: int, rank: int, size: int, pool: ThreadPoolExecutor
    ) -> None:
        """`parts`: from which draws, and how many of each a step has over all processes."""
        self._parts, self._seed, self._rank, self._size, self._pool = parts, seed, rank, size, pool
        self._ahead: dict[int, list[list[Future[Sample]]]] = {}

    def __call__(self, step: int) -> list[list[Sample]]:
        """The draws of this step that are this process's, part by part; the next step's are begun."""
        ahead = self._ahead.pop(step, None) or self._begin(step)
        self._ahead = {step + 1: self._begin(step + 1)}
        return [[future.result() for future in part] for part in ahead]

    def map(self, draws: ClipSampler, places: Sequence[tuple[int, int]]) -> list[Sample]:
        """These draws (clip, number), made by the threads."""
        return list(self._pool.map(lambda place: draws.draw(*place), places))

    def _begin(self, step: int) -> list[list[Future[Sample]]]:
        found = []
        for number, (draws, rows) in enumerate(self._parts):
            places = list(shuffled_order(self._seed + number, len(draws), step * rows, rows)) if len(draws) else []
            found.append([self._pool.submit(draws.draw, *place) for place in places[self._rank :: self._size]])
        return found


@contextmanager
def batch_loader(
    parts: Sequence[tuple[ClipSampler, int]], *, seed: int, rank: int, size: int, threads: int
) -> Iterator[BatchLoader]:
    """A feed whose threads end with it."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield BatchLoader(parts, seed, rank, size, pool)
    finally:
        pool.shutdown(cancel_futures=True)
