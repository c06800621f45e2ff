"""Endless training windows: clips of the corpus, cropped, changed and mixed, and what is known about each window.

A mixture is a function of (seed, index) and the corpus alone, so each can be made again. Knows nothing of teachers and
writes no files.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.training.data.augment import WINDOW, Wave, crop, equalise, ratio, record
from perceiverd.training.data.corpus import Clip, Corpus
from perceiverd.training.data.room_noise import SILENT_ROOM_DB, empty_room
from perceiverd.training.data.truth import Truth, TruthBuilder

SILENCE_SHARE = 0.06
SINGLE_SHARE = 0.40
"""Shares of all mixtures: an empty room; one clip. Of the rest, a quarter has three clips and the others have two."""
KIND_SHARES = {"environmental": 0.32, "labelled": 0.44, "rendered": 0.02, "background": 0.22}
"""How often a component is a clip of the main corpus; another labelled sound; a rendered tone; speech, music or
unlabelled sound. If the corpus lacks a kind, the others get its share."""
BACKGROUND_SHARES = {"Speech": 0.1, "Music": 0.2, "": 0.7}

AUDIBLE_DB = 18.0
"""A component that is further below the loudest one is not vouched for any more."""
VOUCHED_DB = 25.0
"""A crop that is further below its own clip's loudest window may lack the labelled sound."""
SILENT_DB = 40.0
"""A crop that is further below is silent, and certainly lacks its clip's label."""


@dataclass(frozen=True)
class Mixture:
    """One window and what is known about it."""

    pcm: Wave
    """(20480,) within ±1, 16 kHz."""
    truth: Truth
    """(527,): see `truth.Truth`."""
    main: int
    """AudioSet index of the loudest labelled component's first label; -1 if there is none."""


@dataclass(frozen=True)
class _Component:
    clip: Clip
    wave: Wave
    """(20480,) scaled so that the clip's loudest 0.16 s would be at 0 dB."""
    below_db: float
    """How far the crop is below the clip's loudest window."""


class Mixtures:
    """The endless sequence of mixtures of some splits of a corpus."""

    def __init__(self, corpus: Corpus, *, seed: int, splits: frozenset[str]) -> None:
        self._corpus = corpus
        self._seed = seed
        clips = [clip for clip in corpus.clips if clip.split in splits]
        self.truth = TruthBuilder(everyday(clips))
        self._groups = {
            kind: _BalancedDraw(clips, kind) for kind in KIND_SHARES if any(kind_of(clip) == kind for clip in clips)
        }
        if not self._groups:
            raise ValueError("the corpus has no clip to mix")
        shares = np.array([KIND_SHARES[kind] for kind in self._groups])
        self._shares = shares / shares.sum()

    def __getitem__(self, index: int) -> Mixture:
        rng = np.random.default_rng([self._seed, index])
        if rng.random() < SILENCE_SHARE:
            return self._empty_room(rng)
        count = 1 if rng.random() < SINGLE_SHARE / (1 - SILENCE_SHARE) else int(rng.choice([2, 2, 2, 3]))
        components = [self._component(rng) for _ in range(count)]
        gains_db = np.concatenate([[0.0], rng.uniform(-24, 0, count - 1)])
        levels_db = gains_db - [one.below_db for one in components]
        scaled = (one.wave * ratio(gain) for one, gain in zip(components, gains_db, strict=True))
        pcm = record(np.asarray(sum(scaled, np.zeros(WINDOW)), np.float32), rng)
        return Mixture(pcm, *self._known(components, levels_db))

    def _empty_room(self, rng: np.random.Generator) -> Mixture:
        wave, level_db = empty_room(rng)
        if level_db <= SILENT_ROOM_DB:
            return Mixture(wave, self.truth.silence(), self.truth.index["Silence"])
        return Mixture(wave, self.truth.room_noise(), -1)

    def _component(self, rng: np.random.Generator) -> _Component:
        kind = str(rng.choice(list(self._groups), p=self._shares))
        clip = self._groups[kind].draw(rng)
        speed = float(np.exp(rng.uniform(np.log(0.85), np.log(1.18)))) if rng.random() < 0.5 else 1.0
        wave, below_db = crop(self._corpus, clip, rng, speed)
        if rng.random() < 0.4:
            wave = equalise(wave, rng)
        return _Component(clip, wave, below_db)

    def _known(self, components: list[_Component], levels_db: NDArray[np.float64]) -> tuple[Truth, int]:
        """The truth of these components together, and the main label's index."""
        present, possible, main = set[str](), set[str](), -1
        for at in np.argsort(-levels_db):
            one = components[at]
            names = set(one.clip.labels)
            if levels_db[at] >= levels_db.max() - AUDIBLE_DB and one.below_db <= VOUCHED_DB:
                present |= names
                if main < 0 and one.clip.labels:
                    main = self.truth.index[one.clip.labels[0]]
            elif one.below_db <= SILENT_DB:
                possible |= names
        exclusive = all(one.clip.group in {"environmental", "rendered"} and one.clip.labels for one in components)
        truth = self.truth.of(present, possible, exclusive)
        return truth, main


def everyday(clips: list[Clip]) -> frozenset[str]:
    """The labels of the main corpus; each is the whole content of its clips."""
    return frozenset(clip.labels[0] for clip in clips if clip.group == "environmental" and clip.labels)


def kind_of(clip: Clip) -> str:
    """The clip's key in KIND_SHARES."""
    if clip.group in {"environmental", "rendered"}:
        return clip.group
    return "background" if not clip.labels or clip.labels[0] in BACKGROUND_SHARES else "labelled"


class _BalancedDraw:
    """Draws a class, then a recording of it, then a clip, so that no class and no long recording dominates."""

    def __init__(self, clips: list[Clip], kind: str) -> None:
        recordings: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
        self._samples: dict[str, int] = defaultdict(int)
        for clip in clips:
            if kind_of(clip) == kind:
                name = self._class(clip, kind)
                recordings[name][clip.recording].append(clip)
                self._samples[name] += clip.samples
        self._names = list(recordings)
        self._recordings = {name: list(recordings[name].values()) for name in recordings}
        weights = self._background_weights() if kind == "background" else self._weights()
        self._shares = np.cumsum(weights) / np.sum(weights)

    def _weights(self) -> list[float]:
        """A class with one recording is drawn a third as often as one with eight or more."""
        return [min(len(self._recordings[name]), 8) ** 0.5 for name in self._names]

    def _background_weights(self) -> list[float]:
        """BACKGROUND_SHARES by label; inside a label, packages by the square root of their length."""
        shares = [BACKGROUND_SHARES[name.partition("/")[0]] for name in self._names]
        # Speech and music have equal shares, so they have one total together.
        keys = [share if name.partition("/")[0] else -1 for name, share in zip(self._names, shares, strict=True)]
        totals: dict[float, float] = defaultdict(float)
        for name, key in zip(self._names, keys, strict=True):
            totals[key] += self._samples[name] ** 0.5
        return [
            share * self._samples[name] ** 0.5 / totals[key]
            for name, share, key in zip(self._names, shares, keys, strict=True)
        ]

    @staticmethod
    def _class(clip: Clip, kind: str) -> str:
        """Environmental: the listed class (in the path); background: label and package; else the first label."""
        if kind == "environmental":
            return clip.path.split("/")[1] if clip.path.count("/") == 3 else clip.labels[0]
        if kind == "background":
            return f"{clip.labels[0] if clip.labels else ''}/{clip.source}"
        return clip.labels[0]

    def draw(self, rng: np.random.Generator) -> Clip:
        name = self._names[min(int(np.searchsorted(self._shares, rng.random())), len(self._names) - 1)]
        recordings = self._recordings[name]
        clips = recordings[rng.integers(len(recordings))]
        return clips[rng.integers(len(clips))]
