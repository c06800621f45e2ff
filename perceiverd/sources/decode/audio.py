"""Resamples mono audio to the model's rate and keeps its time line.

Knows nothing of files and devices: the caller says when each piece was captured. Uses libsoxr at its "HQ" setting.
Against an ideal tone its errors are below -130 dB and its aliases below -140 dB; FFmpeg's own resampler reaches -120
and -62 dB.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk

GAP_NS = 15 * NS_PER_S // 1000
"""Audio that is further than this from its expected time does not continue the audio before it. It is less than a
packet of most codecs (20 ms), so that one lost packet is a hole. The windower uses the same bound."""
SHORTEST_S = 0.04
"""We gather at least this much: a codec's frame may be 2.5 ms, and each chunk costs a message."""
LONGEST_S = 0.5
FOLLOW = 1 / 16
"""The share of a stamp's deviation by which the time line moves: it smooths jitter and follows a drifting clock."""


def follow(stamps: int) -> float:
    """The share for the mean of so many stamps."""
    return 1.0 - (1.0 - FOLLOW) ** stamps


class Resampler:
    """Turns pieces of mono audio of any rate into chunks of at most 0.5 s at one rate, without seams between them."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._input_hz: int | None = None
        """Rate of the current run; None between two runs."""
        self._next_ns = 0.0
        """The expected capture time of the next input sample."""
        self._begin(None, 0)

    def feed(
        self, samples: NDArray[np.float32], rate_hz: int, start_ns: int | None, stamps: int = 1
    ) -> Iterator[Chunk]:
        """Accept samples (S,), of which the first was captured at `start_ns`; None means right after the last one.

        `start_ns` is the mean of so many stamps.

        If time jumps by more than 15 ms or the rate changes, the run ends and another begins, so a gap stays a gap.
        """
        if start_ns is None:
            start_ns = round(self._next_ns)
        deviation_ns = start_ns - self._next_ns
        if rate_hz != self._input_hz or abs(deviation_ns) > GAP_NS:
            yield from self.flush()
            self._begin(rate_hz, start_ns)
        else:
            self._next_ns += deviation_ns * follow(stamps)
        self._next_ns += len(samples) * NS_PER_S / rate_hz
        self._consumed += len(samples)
        self._gather(self._stream.resample_chunk(samples) if self._stream else samples)
        if self._gathered >= SHORTEST_S * self._rate_hz:
            yield from self._emit()

    def flush(self) -> Iterator[Chunk]:
        """End the run: yield what the filter still holds back."""
        if self._stream and self._consumed:
            self._gather(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        yield from self._emit()
        self._begin(None, self._next_ns)

    def _begin(self, input_hz: int | None, start_ns: float) -> None:
        self._input_hz, self._next_ns = input_hz, start_ns
        self._consumed = self._produced = self._gathered = 0
        self._pieces: list[NDArray[np.float32]] = []
        same = input_hz is None or input_hz == self._rate_hz
        self._stream = None if same else soxr.ResampleStream(input_hz, self._rate_hz, 1, dtype="float32", quality="HQ")

    def _gather(self, samples: NDArray[np.float32]) -> None:
        self._pieces.append(samples)
        self._gathered += len(samples)

    def _emit(self) -> Iterator[Chunk]:
        if not self._gathered or self._input_hz is None:
            return
        # Filters overshoot and lossy codecs decode beyond full scale.
        samples = np.clip(np.concatenate(self._pieces), -1.0, 1.0)
        behind_s = self._consumed / self._input_hz - self._produced / self._rate_hz
        start_ns = self._next_ns - behind_s * NS_PER_S
        self._produced += len(samples)
        self._pieces, self._gathered = [], 0
        longest = int(LONGEST_S * self._rate_hz)
        for first in range(0, len(samples), longest):
            # A copy each, so that one short piece does not keep a long decoded packet in memory.
            piece = samples[first : first + longest].copy()
            yield Chunk(round(start_ns + first * NS_PER_S / self._rate_hz), piece, self._rate_hz)
