"""Finds a sound again under another codec, level or trimming, by the signs of its spectrum's changes.

Each frame of a sound is a word of 32 bits: whether a band's share of the energy over the next one grew or
shrank since the frame before (Haitsma and Kalker, 2002, "A highly robust audio fingerprinting system").
It knows samples, and nothing of files or splits.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
FRAME, HOP = 4_096, 512
"""Samples of a frame, 256 ms, and from one to the next, 32 ms."""
FINE = 4
"""Kept sounds have this many frames for one of a sound looked for, so that one of them lies within 64 samples."""
BANDS = 33
LOW_HZ, HIGH_HZ = 150.0, 6_000.0
BELOW_DB = 60.0
"""A frame this much below the sound's loudest says nothing."""
COMMON = 1_000
"""A word that is known more often than this, such as that of a steady tone, would only cost time."""
CANDIDATES = 50
"""Places with the most words alike that are looked at closely."""
FRAMES = 8
"""Frames that must overlap there, a quarter of a second."""
WRONG = 0.3
"""Share of their bits that may differ; of unlike sounds half do."""

Pcm = NDArray[np.int16]
Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Print:
    """A sound's words, and which of them say anything."""

    words: Words
    telling: NDArray[np.bool_]


def fingerprint(pcm: Pcm, hop: int = HOP) -> Print:
    """The print of a sound at 16 kHz, a word each `hop` samples."""
    padded = np.pad(pcm.astype(np.float32), FRAME // 2)
    count = max((len(padded) - FRAME) // hop, 0)
    words, energy = np.zeros(count, np.uint32), np.zeros(count)
    before = max(HOP // hop, 1)  # frames between the two that are compared, the same time for every hop
    window, edges = np.hanning(FRAME).astype(np.float32), _edges()
    bands = np.zeros((count, BANDS), np.float32)
    for start in range(0, count, 1_024):
        at = np.arange(start, min(start + 1_024, count)) * hop
        power = np.abs(np.fft.rfft(padded[at[:, None] + np.arange(FRAME)] * window)) ** 2  # (n, 2049)
        bands[start : start + len(at)] = np.log(np.add.reduceat(power, edges[:-1], axis=1)[:, :BANDS] + 1e-3)
        energy[start : start + len(at)] = power.sum(axis=1)
    slope = bands[:, :-1] - bands[:, 1:]  # (count, 32)
    signs = slope[before:] > slope[:-before]
    words[before:] = signs.astype(np.uint32) @ (np.uint32(1) << np.arange(32, dtype=np.uint32))
    telling = energy > energy.max(initial=0) * 10 ** (-BELOW_DB / 10)
    telling[:before] = False
    return Print(words, telling)


def _edges() -> NDArray[np.int64]:
    """First bin of each band, and of what follows the last; no band is empty."""
    hertz = np.geomspace(LOW_HZ, HIGH_HZ, BANDS + 1)
    bins = np.round(hertz * FRAME / RATE_HZ).astype(np.int64)
    return np.asarray(np.maximum(bins, bins[0] + np.arange(BANDS + 1)))


@dataclass
class Known:
    """Sounds that must not be met again."""

    names: list[str] = field(default_factory=list)
    _prints: list[Print] = field(default_factory=list)
    _table: tuple[Words, NDArray[np.int32], NDArray[np.int32]] | None = None

    def add(self, name: str, sound: Print) -> None:
        """Keep a sound by its fine print, of hop HOP // FINE."""
        self.names.append(name)
        self._prints.append(sound)
        self._table = None

    def find(self, sound: Print) -> str | None:
        """The name of a known sound that this one is, or shares a quarter of a second or more with."""
        words, owners, places = self._sorted()
        mine = np.flatnonzero(sound.telling)
        first, last = (np.searchsorted(words, sound.words[mine], side) for side in ("left", "right"))
        rare = np.flatnonzero((last > first) & (last - first <= COMMON))
        if len(rare) == 0:
            return None
        hits = np.concatenate([np.arange(first[one], last[one]) for one in rare])
        frames = np.repeat(mine[rare], last[rare] - first[rare])
        shifts = (places[hits] - FINE * frames) // FINE
        pairs, votes = np.unique(np.stack([owners[hits], shifts]), axis=1, return_counts=True)
        for at in np.argsort(-votes, kind="stable")[:CANDIDATES]:
            owner, shift = int(pairs[0, at]), int(pairs[1, at]) * FINE
            if any(self._same(sound, owner, near) for near in range(shift, shift + FINE)):
                return self.names[owner]
        return None

    def _same(self, sound: Print, owner: int, shift: int) -> bool:
        other = self._prints[owner]
        frames = np.arange(len(sound.words))
        there = FINE * frames + shift
        inside = (there >= 0) & (there < len(other.words))
        frames, there = frames[inside], there[inside]
        both = sound.telling[frames] & other.telling[there]
        if both.sum() < FRAMES:
            return False
        differing = sound.words[frames[both]] ^ other.words[there[both]]
        return float(np.unpackbits(differing.view(np.uint8)).mean()) < WRONG

    def _sorted(self) -> tuple[Words, NDArray[np.int32], NDArray[np.int32]]:
        """All telling words in order, with the sound and the frame of each."""
        if self._table is None:
            places = [np.flatnonzero(one.telling).astype(np.int32) for one in self._prints]
            owners = [np.full(len(where), at, np.int32) for at, where in enumerate(places)]
            words = [one.words[where] for one, where in zip(self._prints, places, strict=True)]
            empty = [np.zeros(0, np.int32)]
            all_words = np.concatenate([*words, np.zeros(0, np.uint32)])
            order = np.argsort(all_words, kind="stable")
            self._table = (
                all_words[order],
                np.concatenate(owners + empty)[order],
                np.concatenate(places + empty)[order],
            )
        return self._table
