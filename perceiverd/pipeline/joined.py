"""A window's audio, joined from chunks: where each sample comes from, and where samples are missing.

Pure: it knows media times only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.pipeline.conceal import Span, conceal


class JoinedChunks:
    """The chunks of a window's audio at their places, and the capture time of each sample.

    Only the first chunk and those after a hole are placed by time. All others are joined by index: device clocks drift,
    each chunk's time follows the drift, and so nothing has to be resampled.
    """

    def __init__(self, start_ns: int, rate_hz: int, count: int) -> None:
        """The window begins at `start_ns` and has `count` samples."""
        self._start_ns, self._rate_hz, self._count = start_ns, rate_hz, count
        self._pieces: list[NDArray[np.float32]] = []
        self._firsts: list[int] = []
        self._starts_ns: list[int] = []
        self.taken = 0
        """The index after the last sample so far."""
        self.end_ns = start_ns
        """The media time after the last sample, by the time of its chunk."""

    @property
    def is_complete(self) -> bool:
        """Whether a later chunk cannot change the audio."""
        return self.taken >= self._count

    def add_first(self, chunk: Chunk) -> None:
        """Add the chunk in which the window begins, or the first one after its beginning."""
        # If it ends a little before the window, because of jitter, the next chunk continues it at the window's start.
        self._place(max(self._index(chunk.start_ns), -len(chunk.samples)), chunk)

    def add(self, chunk: Chunk, jitter_ns: int, *, after_hole: bool) -> bool:
        """Add the next chunk. False, and nothing is added, if it begins more than `jitter_ns` before the last one ends.

        If it begins more than `jitter_ns` later, the time between is a hole: many small ones would add up.
        """
        late_ns = chunk.start_ns - (self._start_ns + self.taken * NS_PER_S // self._rate_hz)
        if late_ns < -jitter_ns:
            return False
        placed = after_hole or late_ns > jitter_ns
        self._place(max(self.taken, self._index(chunk.start_ns)) if placed else self.taken, chunk)
        return True

    def _index(self, time_ns: int) -> int:
        return round((time_ns - self._start_ns) * self._rate_hz / NS_PER_S)

    def _place(self, first: int, chunk: Chunk) -> None:
        self._pieces.append(chunk.samples)
        self._firsts.append(first)
        self._starts_ns.append(chunk.start_ns)
        self.taken, self.end_ns = first + len(chunk.samples), chunk.end_ns

    @property
    def holes(self) -> list[Span]:
        """The samples of the window that no chunk brings, in order; at its beginning and end too."""
        ends = [0, *(first + len(piece) for first, piece in zip(self._firsts, self._pieces, strict=True))]
        between = zip(ends, [*self._firsts, self._count], strict=True)
        spans = ((max(0, begin), min(self._count, end)) for begin, end in between)
        return [(begin, end) for begin, end in spans if begin < end]

    def holes_ns(self) -> list[Span]:
        """The media times of the holes."""
        return [(self._time_ns(begin), self._time_ns(end)) for begin, end in self.holes]

    def _time_ns(self, index: int) -> int:
        return self._start_ns + index * NS_PER_S // self._rate_hz

    def samples(self) -> NDArray[np.float32]:
        """The audio with its holes filled: (count,)."""
        return conceal(self._placed(), self.holes)

    def padded(self) -> NDArray[np.float32]:
        """The audio with holes between chunks filled, and zeros before the first chunk and after the last: (count,)."""
        return conceal(self._placed(), [(begin, end) for begin, end in self.holes if begin and end < self._count])

    def _placed(self) -> NDArray[np.float32]:
        """The audio with zeros in its holes: (count,)."""
        samples = np.zeros(self._count, np.float32)
        for first, piece in zip(self._firsts, self._pieces, strict=True):
            visible = piece[max(0, -first) : max(0, self._count - first)]
            begin = max(0, first)
            samples[begin : begin + len(visible)] = visible
        return samples

    def captured_ns(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Capture times of the window's samples at these indices; in a hole, the times when they were due."""
        due = [(begin, self._time_ns(begin)) for begin, _ in self.holes]
        placed = sorted([*zip(self._firsts, self._starts_ns, strict=True), *due])
        firsts, starts_ns = np.array(placed, np.int64).T
        piece = np.searchsorted(firsts, indices, side="right") - 1
        captured: NDArray[np.int64] = starts_ns[piece] + (indices - firsts[piece]) * NS_PER_S // self._rate_hz
        return captured
