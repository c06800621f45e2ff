"""Stalls that still deliver: a picture that is frozen, a sound that is dead. Pure: it goes by the times of media.

Either comes from a device that has failed behind a part that has not: a sensor that hangs while the encoder goes on,
a microphone whose cable is out. No world looks or sounds like that: every sensor has noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, Frame

FLAT = 1e-6
"""Sound that varies by less, of 1, is constant: less than the last bit of 20, and more than a resampler's ripple."""
LEAST_FRAMES = 5
"""A camera that gives a picture a minute may give the same one twice."""
PATIENCE_MOST_NS = 3600 * NS_PER_S
FROZEN, DEAD = "frozen picture", "dead silence"


@dataclass(frozen=True, slots=True)
class StallLimits:
    """For how long all must be the same; 0 for what is not watched."""

    frozen_ns: int = 60 * NS_PER_S
    silent_ns: int = 60 * NS_PER_S


class FrozenVideoDetector:
    """Whether the pictures of one source are frozen."""

    name = FROZEN

    def __init__(self) -> None:
        self._pixels: NDArray[np.uint8] | None = None
        self._since_ns = self._frames = 0

    def stands(self, frame: Frame, limits: StallLimits) -> bool:
        """Take the next picture; True where it has been the same, to the last bit, for too long."""
        if self._pixels is None or not np.array_equal(self._pixels, frame.pixels):
            self._pixels, self._since_ns, self._frames = frame.pixels, frame.start_ns, 1
            return False
        self._frames += 1
        lasts_ns = frame.start_ns - self._since_ns
        return 0 < limits.frozen_ns <= lasts_ns and self._frames >= LEAST_FRAMES


class DeadAudioDetector:
    """Whether the sound of one source is dead."""

    name = DEAD

    def __init__(self) -> None:
        self._least = self._most = 0.0
        self._since_ns: int | None = None

    def stands(self, chunk: Chunk, limits: StallLimits) -> bool:
        """Take what comes next; True where it has been constant, as zeros are, for too long."""
        least, most = float(chunk.samples.min()), float(chunk.samples.max())
        if self._since_ns is not None:
            self._least, self._most = min(self._least, least), max(self._most, most)
            if self._most - self._least < FLAT:
                return 0 < limits.silent_ns <= chunk.end_ns - self._since_ns
        self._least, self._most = least, most
        self._since_ns = chunk.start_ns if most - least < FLAT else None
        return False


class Remedy:
    """When a source whose picture is frozen is started again: soon, and then ever more rarely if that does not help."""

    def __init__(self) -> None:
        self._patience_ns = 0
        self._tried_ns = self._moves_ns = 0
        self._frozen = False

    def due(self, now_ns: int, limits: StallLimits, *, frozen: bool) -> bool:
        """Whether to start it again now; counts it as done. To be asked in every turn."""
        if not frozen:
            if self._frozen:
                self._moves_ns = now_ns
            self._frozen = False
            # Only what has moved for as long as would be waited is well again.
            if self._patience_ns and now_ns - self._moves_ns >= self._patience_ns:
                self._patience_ns = 0
            return False
        self._frozen = True
        if self._patience_ns and now_ns - self._tried_ns < self._patience_ns:
            return False
        self._tried_ns = now_ns
        self._patience_ns = min(PATIENCE_MOST_NS, 2 * (self._patience_ns or limits.frozen_ns))
        return True
