"""The recent frames and chunks of each modality, and how a window's audio and video are cut from them.

Pure: it knows media times only. When a window is due is decided in `windower`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, Frame, end_of
from perceiverd.model.geometry import Audio, Video

M = TypeVar("M", Frame, Chunk)


class _Track(Generic[M]):
    """The media of one modality that a window may still need, in runs. A run has no gap in it."""

    def __init__(self, gap_ns: int, *, overlaps: bool) -> None:
        self.gap_ns, self._overlaps = gap_ns, overlaps
        self._items: deque[tuple[M, bool]] = deque()  # (item, whether a run begins with it)
        self.end_ns: int | None = None
        """The media time that this modality has reached."""
        self.at_gap = True
        """Whether the next item begins a new run."""
        self.gaps = 0

    def add(self, item: M) -> bool:
        """Add the next item; False if it is too old and was ignored."""
        if self.end_ns is not None:
            if item.start_ns < self.end_ns - (self.gap_ns if self._overlaps else -1):
                return False
            if not self.at_gap and item.start_ns > self.end_ns + self.gap_ns:
                self.mark_gap()
        self._items.append((item, self.at_gap))
        self.end_ns, self.at_gap = end_of(item), False
        return True

    def mark_gap(self) -> None:
        """The next item does not belong to the run so far."""
        if not self.at_gap:
            self.at_gap = True
            self.gaps += 1

    def runs(self) -> Iterator[list[M]]:
        run: list[M] = []
        for item, begins in self._items:
            if begins and run:
                yield run
                run = []
            run.append(item)
        if run:
            yield run

    def next_run_ns(self, after_ns: int) -> int | None:
        """The start of the first run that begins after this time."""
        return next((run[0].start_ns for run in self.runs() if run[0].start_ns > after_ns), None)

    def last_run(self) -> list[M]:
        """The newest run; empty if no media is held."""
        runs = list(self.runs())
        return runs[-1] if runs else []


class JoinedChunks:
    """The chunks that make a window's audio, joined by index, and the capture time of each sample."""

    def __init__(self, rate_hz: int, skip: int) -> None:
        """`skip`: samples of the first chunk that lie before the window."""
        self._rate_hz, self._skip = rate_hz, skip
        self._pieces: list[NDArray[np.float32]] = []
        self._firsts: list[int] = []
        self._starts_ns: list[int] = []

    def add(self, first: int, chunk: Chunk) -> None:
        """Add the next chunk; `first` is the index of its first sample in the window, negative before the window."""
        self._pieces.append(chunk.samples)
        self._firsts.append(first)
        self._starts_ns.append(chunk.start_ns)

    def samples(self, count: int) -> NDArray[np.float32]:
        return np.concatenate(self._pieces)[self._skip : self._skip + count]  # (count,)

    def captured_ns(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Capture times of the window's samples at these indices."""
        firsts = np.array(self._firsts, np.int64)
        piece = np.searchsorted(firsts, indices, side="right") - 1
        starts_ns = np.array(self._starts_ns, np.int64)[piece]
        captured: NDArray[np.int64] = starts_ns + (indices - firsts[piece]) * NS_PER_S // self._rate_hz
        return captured


class ChunkTrack(_Track[Chunk]):
    """Chunks at the model's sample rate."""

    def __init__(self, audio: Audio, gap_ns: int) -> None:
        # Timestamps jitter both ways, so chunks may overlap by as much as they may be apart.
        super().__init__(gap_ns, overlaps=True)
        self._audio = audio

    def add(self, item: Chunk) -> bool:
        if item.rate_hz != self._audio.rate_hz:
            raise ValueError(f"a chunk of {item.rate_hz} Hz; the model needs {self._audio.rate_hz} Hz")
        return super().add(item)

    def decided(self, start_ns: int) -> bool:
        """Whether later chunks cannot change the audio of the window from `start_ns`."""
        if self.at_gap or self.end_ns is None or self.end_ns <= start_ns:
            return self.at_gap and self.end_ns is not None
        return self._locate(self.last_run(), start_ns) is None or self.cut(start_ns) is not None

    def cut(self, start_ns: int) -> JoinedChunks | None:
        """The audio of the window from `start_ns`; None if chunks do not cover all of it without a gap."""
        for run in self.runs():
            if (place := self._locate(run, start_ns)) is not None:
                first, skip = place
                taken, joined = -skip, JoinedChunks(self._audio.rate_hz, skip)
                for chunk in run[first:]:
                    # Each small hole may be joined, but many of them would add up and shift audio against video.
                    due_ns = start_ns + taken * NS_PER_S // self._audio.rate_hz
                    if abs(chunk.start_ns - due_ns) > 2 * self.gap_ns:
                        break
                    joined.add(taken, chunk)
                    taken += len(chunk.samples)
                    if taken >= self._audio.samples:
                        return joined
        return None

    def padded(self, start_ns: int) -> NDArray[np.float32] | None:
        """The newest run, each sample at its time in the window from `start_ns`, with zeros before and after.

        None if the run ends before the window begins.
        """
        if not (run := self.last_run()):
            return None
        offset = round((run[0].start_ns - start_ns) * self._audio.rate_hz / NS_PER_S)
        found = np.concatenate([chunk.samples for chunk in run])[max(0, -offset) :]
        if not len(found):
            return None
        samples = np.zeros(self._audio.samples, np.float32)
        first = max(0, offset)
        samples[first : first + len(found)] = found[: max(0, len(samples) - first)]
        return samples

    def _locate(self, run: list[Chunk], start_ns: int) -> tuple[int, int] | None:
        """(chunk, sample in it) at `start_ns`; None if the run begins later or ends earlier.

        Only the chunk at `start_ns` is found by time. All that follow are joined by index: device clocks drift, each
        chunk's timestamp follows the drift, and so nothing has to be resampled.
        """
        half_ns = NS_PER_S // (2 * self._audio.rate_hz)
        if start_ns < run[0].start_ns - half_ns or start_ns >= run[-1].end_ns:
            return None
        first = max((i for i, chunk in enumerate(run) if chunk.start_ns - half_ns <= start_ns), default=0)
        skip = round((start_ns - run[first].start_ns) * self._audio.rate_hz / NS_PER_S)
        # If the next chunk's timestamp is a little late there is a hole at `start_ns`: continue with that chunk.
        return first, min(max(skip, 0), len(run[first].samples))

    def forget(self, before_ns: int) -> None:
        """Drop the chunks that no window from `before_ns` on needs."""
        while self._items and self._items[0][0].end_ns <= before_ns - self.gap_ns:
            self._items.popleft()


def stacked(frames: list[Frame]) -> NDArray[np.uint8]:
    return np.stack([frame.pixels for frame in frames])  # (frames, H, W, 3)


class FrameTrack(_Track[Frame]):
    """Frames of the model's size."""

    def __init__(self, video: Video, gap_ns: int) -> None:
        super().__init__(gap_ns, overlaps=False)  # no two frames at the same time
        self._shape = (video.height, video.width, 3)
        # A window of T frames has T ticks, each in the middle of its share of the window.
        self.ticks_ns = [round((i + 0.5) * NS_PER_S / video.fps) for i in range(video.frames)]

    def add(self, item: Frame) -> bool:
        if item.pixels.shape != self._shape:
            raise ValueError(f"a frame of {item.pixels.shape}; the model needs {self._shape}")
        return super().add(item)

    def decided(self, start_ns: int) -> bool:
        """Whether later frames cannot change the video of the window from `start_ns`."""
        if self.end_ns is None:
            return False
        return self.at_gap or self.end_ns >= start_ns + self.ticks_ns[-1]

    def cut(self, start_ns: int) -> list[Frame] | None:
        """The frame nearest to each tick of the window; None if no run covers all ticks."""
        half_tick_ns = self.ticks_ns[0]
        for run in self.runs():
            # The last frame lasts as long as the one before it did.
            lasts_ns = max(half_tick_ns, run[-1].start_ns - run[-2].start_ns if len(run) > 1 else 0)
            begins = run[0].start_ns - half_tick_ns <= start_ns + self.ticks_ns[0]
            if begins and start_ns + self.ticks_ns[-1] <= run[-1].start_ns + lasts_ns:
                return self._nearest(run, start_ns)
        return None

    def padded(self, start_ns: int) -> NDArray[np.uint8] | None:
        """The newest run, its last frame repeated to the window's end; None if the run ends before the window."""
        run = self.last_run()
        return stacked(self._nearest(run, start_ns)) if run and run[-1].start_ns >= start_ns - self.gap_ns else None

    def _nearest(self, run: list[Frame], start_ns: int) -> list[Frame]:
        times_ns = np.array([frame.start_ns for frame in run], dtype=np.int64)
        ticks_ns = np.array([start_ns + tick_ns for tick_ns in self.ticks_ns], dtype=np.int64)
        after = np.searchsorted(times_ns, ticks_ns).clip(0, len(run) - 1)
        before = (after - 1).clip(0)
        nearest = np.where(times_ns[after] - ticks_ns < ticks_ns - times_ns[before], after, before)
        return [run[i] for i in nearest]

    def forget(self, before_ns: int) -> None:
        """Drop the frames that no window from `before_ns` on needs."""
        # The frame before a tick may be nearer than the one after it, so one is kept.
        while len(self._items) > 1 and self._items[1][0].start_ns <= before_ns + self.ticks_ns[0]:
            self._items.popleft()
