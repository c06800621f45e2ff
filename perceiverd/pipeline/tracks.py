"""The recent frames and chunks of each modality, and how a window's audio and video are cut from them.

Pure: it knows media times only. When a window is due is decided in `windower`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice, pairwise
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, Frame, end_of
from perceiverd.model.geometry import Audio, Video
from perceiverd.pipeline.conceal import Span
from perceiverd.pipeline.joined import JoinedChunks

M = TypeVar("M", Frame, Chunk)

KEEP_SHARE = 0.5
"""A window keeps a modality with longer holes than `conceal_ns` if at least this share of it is present.

Chosen by the effect on the scores: see docs/explanation/time-and-synchrony.md.
"""


class Link(Enum):
    """How an item follows the one before it."""

    CONTINUES = 0
    """Without a hole."""
    HOLE = 1
    """By its time, something is missing before it. The first item of all has this link too."""
    GAP = 2
    """Its source has reported that it does not follow: a restart, or a step of a clock."""


class _Track(Generic[M]):
    """The media of one modality that a window may still need."""

    def __init__(self, gap_ns: int, conceal_ns: int, *, overlaps: bool) -> None:
        """`gap_ns` is `Tolerance.chunk_gap_ns` or `frame_gap_ns`."""
        self.gap_ns, self.conceal_ns, self._overlaps = gap_ns, conceal_ns, overlaps
        self._items: deque[tuple[M, Link]] = deque()
        self.end_ns: int | None = None
        """The media time that this modality has reached; None if nothing of it has ever come."""
        self.at_gap = False
        """Whether the next item does not belong to what came so far, as its source has reported."""
        self.has_ended = False
        """Whether nothing of this modality follows."""
        self.gaps = self.late = 0

    def add(self, item: M) -> bool:
        """Add the next item; False if it is too old and was ignored."""
        if self.end_ns is not None and item.start_ns < self.end_ns - (self.gap_ns if self._overlaps else -1):
            self.late += 1
            return False
        self._items.append((item, self._link(item)))
        self.end_ns, self.at_gap, self.has_ended = end_of(item), False, False
        return True

    def _link(self, item: M) -> Link:
        if self.end_ns is None:
            return Link.HOLE
        if self.at_gap or self.has_ended:
            return Link.GAP
        if item.start_ns <= self.end_ns + self.gap_ns:
            return Link.CONTINUES
        self.gaps += 1
        return Link.HOLE

    def mark_gap(self) -> None:
        """The next item does not follow on what came so far."""
        if self.end_ns is not None and not self.at_gap and not self.has_ended:
            self.at_gap = True
            self.gaps += 1

    @property
    def is_over(self) -> bool:
        """Whether nothing more belongs to what came so far."""
        return self.has_ended or self.at_gap

    def next_run_ns(self, after_ns: int, least_ns: int) -> int | None:
        """The earliest start of a window that needs the next media after a hole or gap and lies after `after_ns`.

        A window may begin up to `least_ns` before a hole ends.
        """
        for number, (item, link) in enumerate(self._items):
            if (link is not Link.CONTINUES or not number) and item.start_ns > after_ns:
                return item.start_ns - (least_ns if link is Link.HOLE and self.conceal_ns else 0)
        return None

    def last_run(self) -> list[M]:
        """The newest media without a gap and without a hole that is not filled; empty if no media is held."""
        run: list[M] = []
        for item, link in self._items:
            if run and not self._follows(run[-1], item, link):
                run = []
            run.append(item)
        return run

    def _follows(self, last: M, item: M, link: Link) -> bool:
        filled = link is Link.HOLE and item.start_ns - end_of(last) <= self.conceal_ns
        return filled or link is Link.CONTINUES

    def _suffices(self, longest_ns: int, share: float) -> bool:
        """Whether a window keeps this modality if its longest hole is so long and this share of it is present."""
        if not longest_ns:
            return True
        if not self.conceal_ns or not share:
            return False
        return longest_ns <= self.conceal_ns or share >= KEEP_SHARE


class ChunkTrack(_Track[Chunk]):
    """Chunks at the model's sample rate."""

    def __init__(self, audio: Audio, gap_ns: int, conceal_ns: int = 0) -> None:
        # Timestamps jitter both ways, so chunks may overlap by as much as they may be apart.
        super().__init__(gap_ns, conceal_ns, overlaps=True)
        self._audio = audio

    def add(self, item: Chunk) -> bool:
        if item.rate_hz != self._audio.rate_hz:
            raise ValueError(f"a chunk of {item.rate_hz} Hz; the model needs {self._audio.rate_hz} Hz")
        return super().add(item)

    def decided(self, start_ns: int) -> bool:
        """Whether later chunks cannot change the audio of the window from `start_ns`."""
        if self.is_over or self.end_ns is None or self.end_ns <= start_ns:
            return self.is_over
        joined = self._joined(start_ns)
        return joined is None or joined.is_complete

    def cut(self, start_ns: int) -> JoinedChunks | None:
        """The audio of the window from `start_ns`; None if too much of it is missing, or if there is a gap in it."""
        joined = self._joined(start_ns)
        if joined is None or not (joined.is_complete or self.has_ended or not self.at_gap):
            return None
        holes = joined.holes
        missing = sum(end - begin for begin, end in holes)
        longest = max((end - begin for begin, end in holes), default=0)
        # Times are rounded to the nanosecond, so a hole may seem a sample longer than it is.
        longest_ns = longest and max(1, (longest - 1) * NS_PER_S // self._audio.rate_hz)
        return joined if self._suffices(longest_ns, 1 - missing / self._audio.samples) else None

    def _joined(self, start_ns: int) -> JoinedChunks | None:
        """The chunks of the window from `start_ns` so far; None if they cannot make its audio, whatever follows."""
        joined = JoinedChunks(start_ns, self._audio.rate_hz, self._audio.samples)
        items = islice(self._items, self._first_of(start_ns), None)
        chunk, link = next(items, (None, Link.GAP))
        if chunk is None or (link is Link.GAP and not self._covers(chunk, start_ns)):
            return None
        joined.add_first(chunk)
        for chunk, link in items:
            if joined.is_complete:
                break
            if link is Link.GAP or not joined.add(chunk, 2 * self.gap_ns, after_hole=link is Link.HOLE):
                return None
        return joined

    def _covers(self, chunk: Chunk, start_ns: int) -> bool:
        """Whether the chunk begins at `start_ns` or before it."""
        return chunk.start_ns - NS_PER_S // (2 * self._audio.rate_hz) <= start_ns

    def _first_of(self, start_ns: int) -> int:
        """The number of the last chunk that begins at `start_ns` or before it; otherwise 0."""
        first = 0
        for number, (chunk, _) in enumerate(self._items):
            if self._covers(chunk, start_ns):
                first = number
            elif chunk.start_ns > start_ns + self.gap_ns:  # a later chunk begins at most so much earlier
                break
        return first

    def padded(self, start_ns: int) -> JoinedChunks | None:
        """The newest run, each sample at its time in the window from `start_ns`; None if it ends before the window."""
        joined = JoinedChunks(start_ns, self._audio.rate_hz, self._audio.samples)
        for chunk in self.last_run():
            joined.add(chunk, 2 * self.gap_ns, after_hole=chunk.start_ns > joined.end_ns + self.gap_ns)
        return joined if joined.taken > 0 else None

    def forget(self, before_ns: int) -> None:
        """Drop the chunks that no window from `before_ns` on needs."""
        while self._items and self._items[0][0].end_ns <= before_ns - self.gap_ns:
            self._items.popleft()


@dataclass(frozen=True, slots=True)
class CutFrames:
    """The video of a window."""

    frames: list[Frame]
    """One for each tick."""
    holes_ns: list[Span]
    """The media times for which frames are missing, beyond the usual time from one frame to the next."""


def pixels_of(frames: list[Frame]) -> tuple[NDArray[np.uint8], ...]:
    return tuple(frame.pixels for frame in frames)


class FrameTrack(_Track[Frame]):
    """Frames of the model's size."""

    def __init__(self, video: Video, gap_ns: int, conceal_ns: int = 0) -> None:
        super().__init__(gap_ns, conceal_ns, overlaps=False)  # no two frames at the same time
        self._shape = (video.height, video.width, 3)
        # A window of T frames has T ticks, each in the middle of its share of the window.
        self.ticks_ns = [round((i + 0.5) * NS_PER_S / video.fps) for i in range(video.frames)]
        self._half_tick_ns = self.ticks_ns[0]

    def add(self, item: Frame) -> bool:
        if item.pixels.size and item.pixels.shape != self._shape:
            raise ValueError(f"a frame of {item.pixels.shape}; the model needs {self._shape}")
        return super().add(item)

    def decided(self, start_ns: int) -> bool:
        """Whether later frames cannot change the video of the window from `start_ns`."""
        return self.is_over or (self.end_ns is not None and self.end_ns >= start_ns + self.ticks_ns[-1])

    def cut(self, start_ns: int) -> CutFrames | None:
        """The frame nearest to each tick of the window; None if too many ticks lack one, or if there is a gap."""
        for runs, bounds in self._sections():
            frames = [frame for run in runs for frame in run]
            has_pixels = any(frame.pixels.size for frame in frames)
            if has_pixels and self._suffices(*self._coverage(runs, bounds, start_ns)):
                return CutFrames(self._nearest(frames, start_ns), self._holes_ns(frames, start_ns))
        return None

    def _sections(self) -> Iterator[tuple[list[list[Frame]], tuple[bool, bool]]]:
        """The media between reported gaps: its runs without holes, and whether it begins and ends with such a gap."""
        runs: list[list[Frame]] = []
        begins = False
        for number, (frame, link) in enumerate(self._items):
            if number and link is Link.GAP:
                yield runs, (begins, True)
                runs = []
            if not runs or link is Link.HOLE:
                begins = link is Link.GAP if not runs else begins
                runs.append([])
            runs[-1].append(frame)
        if runs:
            yield runs, (begins, self.at_gap and not self.has_ended)

    def _coverage(self, runs: list[list[Frame]], bounds: tuple[bool, bool], start_ns: int) -> tuple[int, float]:
        """How far the farthest tick is from these runs, in nanoseconds, and the share of ticks that are in a run.

        If ticks are beyond a reported gap, the share is 0.
        """
        ticks_ns = start_ns + np.array(self.ticks_ns, np.int64)
        begins_ns = np.array([run[0].start_ns for run in runs], np.int64) - self._half_tick_ns
        ends_ns = np.array([self._end_ns(run) for run in runs], np.int64)
        off_ns = np.maximum(begins_ns - ticks_ns[:, None], ticks_ns[:, None] - ends_ns).min(axis=1)  # (ticks,)
        beyond = (bounds[0] and ticks_ns[0] < begins_ns[0]) or (bounds[1] and ticks_ns[-1] > ends_ns[-1])
        return max(0, int(off_ns.max())), 0.0 if beyond else float((off_ns <= 0).mean())

    def _end_ns(self, run: list[Frame]) -> int:
        """The last frame lasts as long as the one before it did."""
        return run[-1].start_ns + max(self._half_tick_ns, run[-1].start_ns - run[-2].start_ns if len(run) > 1 else 0)

    def _holes_ns(self, frames: Sequence[Frame], start_ns: int) -> list[Span]:
        """The times in the window that lack frames, judged by the frames of the window and those beside it."""
        end_ns = start_ns + self.ticks_ns[-1] + self._half_tick_ns
        times_ns = np.array([frame.start_ns for frame in frames], np.int64)
        # What the ticks may need. Later frames have come or not, by chance.
        first = max(0, int(np.searchsorted(times_ns, start_ns + self.ticks_ns[0], side="right")) - 1)
        last = int(np.searchsorted(times_ns, start_ns + self.ticks_ns[-1]))
        near = times_ns[first : last + 1].tolist()
        median_ns = int(np.median(np.diff(near))) if len(near) > 1 else 0
        # A frame for each tick is enough for the model, and sources thin frames to half a tick at most.
        usual_ns, most_ns = max(median_ns, self._half_tick_ns), max(1.5 * median_ns, 2 * self._half_tick_ns)
        holes = [(a + usual_ns, b) for a, b in pairwise(near) if b - a > most_ns]
        if near[0] - start_ns > usual_ns:
            holes.insert(0, (start_ns, near[0]))
        if end_ns - near[-1] > most_ns:
            holes.append((near[-1] + usual_ns, end_ns))
        return [(max(start_ns, a), min(end_ns, b)) for a, b in holes if a < end_ns and b > start_ns]

    def padded(self, start_ns: int) -> list[Frame] | None:
        """The newest run, its last frame repeated to the window's end; None if the run ends before the window."""
        run = self.last_run()
        if not any(frame.pixels.size for frame in run) or run[-1].start_ns < start_ns - self.gap_ns:
            return None
        return self._nearest(run, start_ns)

    def _nearest(self, frames: Sequence[Frame], start_ns: int) -> list[Frame]:
        frames = [frame for frame in frames if frame.pixels.size]
        times_ns = np.array([frame.start_ns for frame in frames], dtype=np.int64)
        ticks_ns = np.array([start_ns + tick_ns for tick_ns in self.ticks_ns], dtype=np.int64)
        after = np.searchsorted(times_ns, ticks_ns).clip(0, len(frames) - 1)
        before = (after - 1).clip(0)
        nearest = np.where(times_ns[after] - ticks_ns < ticks_ns - times_ns[before], after, before)
        return [frames[i] for i in nearest]

    def forget(self, before_ns: int) -> None:
        """Drop the frames that no window from `before_ns` on needs."""
        # The frame before a tick may be nearer than the one after it, so one is kept.
        while len(self._items) > 1 and self._items[1][0].start_ns <= before_ns + self.ticks_ns[0]:
            self._items.popleft()
