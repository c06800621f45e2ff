"""Sound on its way to the model: mono, at the model's rate, on the time line of what came in.

Knows nothing of files and devices: whoever decodes says when each piece was taken. libsoxr at its "HQ" setting: against
an ideal tone it is 130 dB clean and holds aliases below -140 dB, where FFmpeg's own resampler reaches 120 and 62 dB.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk

HOLE_NS = NS_PER_S // 50
"""Sound further from where it should be than this does not belong to what came before (as in `window.Patience`)."""
SHORTEST_S = 0.04
"""Less than this is gathered first: a codec's frame may be 2.5 ms, and each chunk costs a message."""
LONGEST_S = 0.5
FOLLOW = 1 / 16
"""How much of a stamp's deviation the time line takes on: jitter is smoothed, a drifting clock is followed."""


class Resampler:
    """Turns pieces of mono sound of any rate into chunks of at most 0.5 s at one rate, without a seam between them."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._input_hz: int | None = None
        """Rate of the run that is going on; None between two runs."""
        self._next_ns = 0.0
        """When the next sample to come in should have been taken."""
        self._begin(None, 0)

    def feed(self, samples: NDArray[np.float32], rate_hz: int, start_ns: int | None) -> Iterator[Chunk]:
        """Take samples (S,) whose first was taken at `start_ns`; None where the container doesn't say: right after.

        Where time jumps by more than 20 ms or the rate changes, the run ends and another begins: a hole stays a hole.
        """
        if start_ns is None:
            start_ns = round(self._next_ns)
        deviation_ns = start_ns - self._next_ns
        if rate_hz != self._input_hz or abs(deviation_ns) > HOLE_NS:
            yield from self.flush()
            self._begin(rate_hz, start_ns)
        else:
            self._next_ns += deviation_ns * FOLLOW
        self._next_ns += len(samples) * NS_PER_S / rate_hz
        self._taken += len(samples)
        self._gather(self._stream.resample_chunk(samples) if self._stream else samples)
        if self._gathered >= SHORTEST_S * self._rate_hz:
            yield from self._emit()

    def flush(self) -> Iterator[Chunk]:
        """End the run: what the filter still holds back comes out."""
        if self._stream and self._taken:
            self._gather(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        yield from self._emit()
        self._begin(None, self._next_ns)

    def _begin(self, input_hz: int | None, start_ns: float) -> None:
        self._input_hz, self._next_ns = input_hz, start_ns
        self._taken = self._given = self._gathered = 0
        self._pieces: list[NDArray[np.float32]] = []
        alike = input_hz is None or input_hz == self._rate_hz
        self._stream = None if alike else soxr.ResampleStream(input_hz, self._rate_hz, 1, dtype="float32", quality="HQ")

    def _gather(self, samples: NDArray[np.float32]) -> None:
        self._pieces.append(samples)
        self._gathered += len(samples)

    def _emit(self) -> Iterator[Chunk]:
        if not self._gathered or self._input_hz is None:
            return
        # Filters overshoot and lossy codecs decode beyond full scale.
        samples = np.clip(np.concatenate(self._pieces), -1.0, 1.0)
        behind_s = self._taken / self._input_hz - self._given / self._rate_hz
        start_ns = self._next_ns - behind_s * NS_PER_S
        self._given += len(samples)
        self._pieces, self._gathered = [], 0
        longest = int(LONGEST_S * self._rate_hz)
        for first in range(0, len(samples), longest):
            # A copy each, so that one short piece doesn't keep a long decoded packet alive.
            piece = samples[first : first + longest].copy()
            yield Chunk(round(start_ns + first * NS_PER_S / self._rate_hz), piece, self._rate_hz)
