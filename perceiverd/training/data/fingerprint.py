"""Audio fingerprints: they find the same sound in another codec, at another level or trimmed.

Each frame of a sound becomes a word of 32 bits. A bit states whether a band's energy, relative to the next band, grew
since the frame before (Haitsma and Kalker, 2002, "A highly robust audio fingerprinting system"). Knows samples only,
nothing of files or splits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
FRAME, HOP = 4_096, 512
"""Samples of a frame, 256 ms, and from one frame to the next, 32 ms."""
FINE = 4
"""Indexed sounds have this many frames for each frame of a query, so that one of them lies within 64 samples."""
BANDS = 33
LOW_HZ, HIGH_HZ = 150.0, 6_000.0
BELOW_DB = 60.0
"""A frame that is so much below the sound's loudest frame is not significant."""
COMMON = 1_000
"""Words with more entries in the index are ignored: those of a steady tone, for example, would only cost time."""
CANDIDATES = 50
"""This many places, those with the most equal words, are compared bit by bit."""
FRAMES = 8
"""This many frames must overlap there, a quarter of a second."""
WRONG = 0.3
"""Share of the bits that may differ; of different sounds half of them do."""

Pcm = NDArray[np.int16]
Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Fingerprint:
    """The words of a sound, one for each frame."""

    words: Words
    significant: NDArray[np.bool_]
    """False for frames that are too quiet, and for the first ones, which have no frame before them."""


def fingerprint(pcm: Pcm, hop: int = HOP) -> Fingerprint:
    """The fingerprint of a sound at 16 kHz, with a word each `hop` samples."""
    padded = np.pad(pcm.astype(np.float32), FRAME // 2)
    count = max((len(padded) - FRAME) // hop, 0)
    words, energy = np.zeros(count, np.uint32), np.zeros(count)
    before = max(HOP // hop, 1)  # the frames that are compared are HOP samples apart, whatever the hop
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
    significant = energy > energy.max(initial=0) * 10 ** (-BELOW_DB / 10)
    significant[:before] = False
    return Fingerprint(words, significant)


def _edges() -> NDArray[np.int64]:
    """The first bin of each band, and the bin after the last band; no band is empty."""
    hertz = np.geomspace(LOW_HZ, HIGH_HZ, BANDS + 1)
    bins = np.round(hertz * FRAME / RATE_HZ).astype(np.int64)
    return np.asarray(np.maximum(bins, bins[0] + np.arange(BANDS + 1)))


class FingerprintIndex:
    """Finds sounds that it has."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._fingerprints: list[Fingerprint] = []
        self._table: tuple[Words, NDArray[np.int32], NDArray[np.int32]] | None = None

    def add(self, name: str, sound: Fingerprint) -> None:
        """Add a sound; its fingerprint must have the hop HOP // FINE."""
        self._names.append(name)
        self._fingerprints.append(sound)
        self._table = None

    def find(self, sound: Fingerprint) -> str | None:
        """The name of an indexed sound that shares a quarter of a second or more with this one; None if none does."""
        words, owners, places = self._sorted()
        mine = np.flatnonzero(sound.significant)
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
                return self._names[owner]
        return None

    def _same(self, sound: Fingerprint, owner: int, shift: int) -> bool:
        """Whether this sound, moved by `shift` fine frames, equals that of number `owner`."""
        other = self._fingerprints[owner]
        frames = np.arange(len(sound.words))
        there = FINE * frames + shift
        inside = (there >= 0) & (there < len(other.words))
        frames, there = frames[inside], there[inside]
        both = sound.significant[frames] & other.significant[there]
        if both.sum() < FRAMES:
            return False
        differing = sound.words[frames[both]] ^ other.words[there[both]]
        return float(np.unpackbits(differing.view(np.uint8)).mean()) < WRONG

    def _sorted(self) -> tuple[Words, NDArray[np.int32], NDArray[np.int32]]:
        """All significant words in order, with the number of the sound and the frame of each."""
        if self._table is None:
            places = [np.flatnonzero(one.significant).astype(np.int32) for one in self._fingerprints]
            owners = [np.full(len(where), at, np.int32) for at, where in enumerate(places)]
            words = [one.words[where] for one, where in zip(self._fingerprints, places, strict=True)]
            empty = [np.zeros(0, np.int32)]
            all_words = np.concatenate([*words, np.zeros(0, np.uint32)])
            order = np.argsort(all_words, kind="stable")
            self._table = (
                all_words[order],
                np.concatenate(owners + empty)[order],
                np.concatenate(places + empty)[order],
            )
        return self._table
