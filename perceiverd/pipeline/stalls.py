"""Finds media that arrives but carries nothing: frozen video and dead audio. Pure: it uses media times only.

Both come from a device that has failed behind a part that has not: a sensor that hangs while the encoder continues, a
microphone whose cable is unplugged. No working sensor gives such media, because every sensor has noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, Frame

FLAT = 1e-6
"""Audio that varies by less than this, of 1, is constant: less than the last of 20 bits, more than a resampler's
ripple."""
LEAST_FRAMES = 5
"""A camera that gives one frame a minute may give the same one twice."""
LONGEST_PAUSE_NS = 3600 * NS_PER_S
"""The longest time between two restarts of a source whose video stays frozen."""
FROZEN, DEAD = "frozen picture", "dead silence"
"""How statuses, metrics and logs name the two."""


@dataclass(frozen=True, slots=True)
class StallLimits:
    """How long media must stay the same before it counts as stalled; 0 switches the check off."""

    frozen_ns: int
    silent_ns: int


class FrozenVideoDetector:
    """Finds frozen video of one source."""

    name = FROZEN

    def __init__(self) -> None:
        self._pixels: NDArray[np.uint8] | None = None
        self._since_ns = self._frames = 0

    def stalls(self, frame: Frame, limits: StallLimits) -> bool:
        """Add the next frame; True if all frames have been bit-identical for too long."""
        if self._pixels is None or not np.array_equal(self._pixels, frame.pixels):
            self._pixels, self._since_ns, self._frames = frame.pixels, frame.start_ns, 1
            return False
        self._frames += 1
        lasts_ns = frame.start_ns - self._since_ns
        return 0 < limits.frozen_ns <= lasts_ns and self._frames >= LEAST_FRAMES


class DeadAudioDetector:
    """Finds dead audio of one source."""

    name = DEAD

    def __init__(self) -> None:
        self._least = self._most = 0.0
        self._since_ns: int | None = None

    def stalls(self, chunk: Chunk, limits: StallLimits) -> bool:
        """Add the next chunk; True if all samples have been constant (zeros, for example) for too long."""
        least, most = float(chunk.samples.min()), float(chunk.samples.max())
        if self._since_ns is not None:
            self._least, self._most = min(self._least, least), max(self._most, most)
            if self._most - self._least < FLAT:
                return 0 < limits.silent_ns <= chunk.end_ns - self._since_ns
        self._least, self._most = least, most
        self._since_ns = chunk.start_ns if most - least < FLAT else None
        return False


class RestartSchedule:
    """When to restart a source whose video is frozen: at once, then after ever longer pauses while it does not help."""

    def __init__(self) -> None:
        self._pause_ns = 0
        self._restarted_ns = self._moves_ns = 0
        self._frozen = False

    def due(self, now_ns: int, limits: StallLimits, *, frozen: bool) -> bool:
        """Whether to restart the source now; True counts as done. Call it in every turn."""
        if not frozen:
            if self._frozen:
                self._moves_ns = now_ns
            self._frozen = False
            # The source is well again only after it has moved for as long as the pause.
            if self._pause_ns and now_ns - self._moves_ns >= self._pause_ns:
                self._pause_ns = 0
            return False
        self._frozen = True
        if self._pause_ns and now_ns - self._restarted_ns < self._pause_ns:
            return False
        self._restarted_ns = now_ns
        self._pause_ns = min(LONGEST_PAUSE_NS, 2 * (self._pause_ns or limits.frozen_ns))
        return True
