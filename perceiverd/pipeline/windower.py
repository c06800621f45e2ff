"""Windows: what the model sees, cut from irregular frames and chunks on one time line.

The windower is pure: media in, windows out. It knows no clock, socket or file and decides by media time alone: a
window is cut as soon as every modality is decided (wholly there, or sure to be missing), or when one modality has
got `wait_ns` past the window's end while the other is still silent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media
from perceiverd.model.geometry import Audio, Geometry, Video

M = TypeVar("M", Frame, Chunk)

TAIL = 16
"""A tail of less than this part of a window gets none of its own: codecs round a file's end up by some samples."""


@dataclass(frozen=True, slots=True)
class Skew:
    """How much later pictures were taken than the sound they stand beside; negative where they were taken earlier."""

    mean_ns: int
    """Over the model's ticks."""
    most_ns: int
    """At the tick where it is furthest from 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One look at the world. A modality that is not wholly there is None, never zeros or black.

    The one exception is media that ends before it fills a single window: see `Windower.flush`.
    """

    start_ns: int
    end_ns: int
    audio: NDArray[np.float32] | None = field(repr=False)
    """(samples,), -1..1, at the model's rate."""
    video: NDArray[np.uint8] | None = field(repr=False)
    """(frames, height, width, 3), RGB, 0..255."""
    skew: Skew | None = None
    """By the capture times of both; None where one is missing or was padded."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Which modalities are present."""
        return tuple(name for name in ("audio", "video") if getattr(self, name) is not None)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How irregular media may be."""

    wait_ns: int = NS_PER_S // 2
    """How much longer one modality waits for the other before a window is cut without it."""
    chunk_gap_ns: int = NS_PER_S // 50
    """Chunks further apart than this do not belong together; closer ones are joined as they come, as long as no sample
    of a window gets further than twice this from its time."""
    frame_gap_ns: int = NS_PER_S
    """Frames further apart than this do not belong together; until then a frame stands for what follows it."""


@dataclass(slots=True)
class Counts:
    """What became of the media; whoever publishes reads them."""

    windows: int = 0
    late: int = 0
    """Frames and chunks refused because the time line had passed them."""
    gaps: int = 0
    """Tears in either modality, told by `gap` or seen in the times; the end is none."""


def end_of(item: Media) -> int:
    """How far a frame or chunk brings its modality; a frame is a point in time."""
    return item.end_ns if isinstance(item, Chunk) else item.start_ns


class _Track(Generic[M]):
    """The media of one modality that may still be asked for, in runs that belong together."""

    def __init__(self, gap_ns: int, *, overlaps: bool) -> None:
        self.gap_ns, self._overlaps = gap_ns, overlaps
        self._items: deque[tuple[M, bool]] = deque()  # (item, whether a run begins with it)
        self.end_ns: int | None = None
        """How far this modality has got."""
        self.torn = True
        """Whether what comes next does not belong to what was."""
        self.gaps = 0

    def add(self, item: M) -> bool:
        """Take what comes next; False where its time has passed already."""
        if self.end_ns is not None:
            if item.start_ns < self.end_ns - (self.gap_ns if self._overlaps else -1):
                return False
            if not self.torn and item.start_ns > self.end_ns + self.gap_ns:
                self.tear()
        self._items.append((item, self.torn))
        self.end_ns, self.torn = end_of(item), False
        return True

    def tear(self) -> None:
        if not self.torn:
            self.torn = True
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
        """When the first run that begins after this time begins."""
        return next((run[0].start_ns for run in self.runs() if run[0].start_ns > after_ns), None)

    def last_run(self) -> list[M]:
        """The run that is going on, or was when the media ended; empty where nothing is held."""
        runs = list(self.runs())
        return runs[-1] if runs else []


class _Heard:
    """The chunks of which a window's sound is made, joined by index, and when each of its samples was taken."""

    def __init__(self, rate_hz: int, skip: int) -> None:
        self._rate_hz, self._skip = rate_hz, skip
        self._pieces: list[NDArray[np.float32]] = []
        self._firsts: list[int] = []
        self._starts_ns: list[int] = []

    def add(self, first: int, chunk: Chunk) -> None:
        """The chunk whose first sample is that of this index in the window, negative where it is before it."""
        self._pieces.append(chunk.samples)
        self._firsts.append(first)
        self._starts_ns.append(chunk.start_ns)

    def samples(self, count: int) -> NDArray[np.float32]:
        return np.concatenate(self._pieces)[self._skip : self._skip + count]

    def taken_ns(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """When these samples of the window were taken."""
        firsts = np.array(self._firsts, np.int64)
        piece = np.searchsorted(firsts, indices, side="right") - 1
        starts_ns = np.array(self._starts_ns, np.int64)[piece]
        taken: NDArray[np.int64] = starts_ns + (indices - firsts[piece]) * NS_PER_S // self._rate_hz
        return taken


class _Sound(_Track[Chunk]):
    def __init__(self, audio: Audio, gap_ns: int) -> None:
        # Chunks may overlap by as much as they may be apart: stamps jitter both ways.
        super().__init__(gap_ns, overlaps=True)
        self._audio = audio

    def add(self, item: Chunk) -> bool:
        if item.rate_hz != self._audio.rate_hz:
            raise ValueError(f"a chunk of {item.rate_hz} Hz; the model hears {self._audio.rate_hz} Hz")
        return super().add(item)

    def decided(self, start_ns: int) -> bool:
        """Whether more sound could not change what the window from `start_ns` hears."""
        if self.torn or self.end_ns is None or self.end_ns <= start_ns:
            return self.torn and self.end_ns is not None
        return self._find(self.last_run(), start_ns) is None or self.cut(start_ns) is not None

    def cut(self, start_ns: int) -> _Heard | None:
        """The window's samples; None where sound does not cover all of it without a gap."""
        for run in self.runs():
            if (place := self._find(run, start_ns)) is not None:
                first, skip = place
                taken, heard = -skip, _Heard(self._audio.rate_hz, skip)
                for chunk in run[first:]:
                    # Many small holes, each to be joined, would add up and part sound from sight.
                    due_ns = start_ns + taken * NS_PER_S // self._audio.rate_hz
                    if abs(chunk.start_ns - due_ns) > 2 * self.gap_ns:
                        break
                    heard.add(taken, chunk)
                    taken += len(chunk.samples)
                    if taken >= self._audio.samples:
                        return heard
        return None

    def padded(self, start_ns: int) -> NDArray[np.float32] | None:
        """The last run, each sample at its time in the window from `start_ns`; silence before and after it.

        None where it is over when the window begins.
        """
        if not (run := self.last_run()):
            return None
        offset = round((run[0].start_ns - start_ns) * self._audio.rate_hz / NS_PER_S)
        heard = np.concatenate([chunk.samples for chunk in run])[max(0, -offset) :]
        if not len(heard):
            return None
        samples = np.zeros(self._audio.samples, np.float32)
        first = max(0, offset)
        samples[first : first + len(heard)] = heard[: max(0, len(samples) - first)]
        return samples

    def _find(self, run: list[Chunk], start_ns: int) -> tuple[int, int] | None:
        """(chunk, sample within it) at `start_ns`; None where the run begins later or has ended.

        The chunk that holds `start_ns` decides, all that follows is taken by index: device clocks drift, and every
        chunk's stamp follows the drift, so that nothing has to be resampled.
        """
        half_ns = NS_PER_S // (2 * self._audio.rate_hz)
        if start_ns < run[0].start_ns - half_ns or start_ns >= run[-1].end_ns:
            return None
        first = max((i for i, chunk in enumerate(run) if chunk.start_ns - half_ns <= start_ns), default=0)
        skip = round((start_ns - run[first].start_ns) * self._audio.rate_hz / NS_PER_S)
        # Where the next chunk is stamped a little late there is a hole: go on with what follows it.
        return first, min(max(skip, 0), len(run[first].samples))

    def forget(self, before_ns: int) -> None:
        while self._items and self._items[0][0].end_ns <= before_ns - self.gap_ns:
            self._items.popleft()


def _stacked(frames: list[Frame]) -> NDArray[np.uint8]:
    return np.stack([frame.pixels for frame in frames])  # (frames, H, W, 3)


class _Sight(_Track[Frame]):
    def __init__(self, video: Video, gap_ns: int) -> None:
        super().__init__(gap_ns, overlaps=False)  # no two frames at one time
        self._shape = (video.height, video.width, 3)
        # A window of T frames has T ticks, each in the middle of its share of the window.
        self.ticks_ns = [round((i + 0.5) * NS_PER_S / video.fps) for i in range(video.frames)]

    def add(self, item: Frame) -> bool:
        if item.pixels.shape != self._shape:
            raise ValueError(f"a frame of {item.pixels.shape}; the model sees {self._shape}")
        return super().add(item)

    def decided(self, start_ns: int) -> bool:
        """Whether more frames could not change what the window from `start_ns` sees."""
        if self.end_ns is None:
            return False
        return self.torn or self.end_ns >= start_ns + self.ticks_ns[-1]

    def cut(self, start_ns: int) -> list[Frame] | None:
        """The frames nearest to the window's ticks; None where a tick is outside the run that holds the others."""
        half_tick_ns = self.ticks_ns[0]
        for run in self.runs():
            # The last frame lasts as long as the one before it did.
            lasts_ns = max(half_tick_ns, run[-1].start_ns - run[-2].start_ns if len(run) > 1 else 0)
            begins = run[0].start_ns - half_tick_ns <= start_ns + self.ticks_ns[0]
            if begins and start_ns + self.ticks_ns[-1] <= run[-1].start_ns + lasts_ns:
                return self._pick(run, start_ns)
        return None

    def padded(self, start_ns: int) -> NDArray[np.uint8] | None:
        """The last run, its last frame held to the window's end; None where it is over when the window begins."""
        run = self.last_run()
        return _stacked(self._pick(run, start_ns)) if run and run[-1].start_ns >= start_ns - self.gap_ns else None

    def _pick(self, run: list[Frame], start_ns: int) -> list[Frame]:
        times_ns = np.array([frame.start_ns for frame in run], dtype=np.int64)
        ticks_ns = np.array([start_ns + tick_ns for tick_ns in self.ticks_ns], dtype=np.int64)
        after = np.searchsorted(times_ns, ticks_ns).clip(0, len(run) - 1)
        before = (after - 1).clip(0)
        nearest = np.where(times_ns[after] - ticks_ns < ticks_ns - times_ns[before], after, before)
        return [run[i] for i in nearest]

    def forget(self, before_ns: int) -> None:
        # The frame before a tick may be nearer than the one after it, so one is kept.
        while len(self._items) > 1 and self._items[1][0].start_ns <= before_ns + self.ticks_ns[0]:
            self._items.popleft()


class Windower:
    """Cuts windows of a model's length at any hop, on the grid `first media time + k * hop`.

    Holds no more media than one window, one hop and the patience need, whichever side is silent.
    """

    def __init__(self, geometry: Geometry, hop_ns: int, patience: Tolerance | None = None) -> None:
        if hop_ns <= 0:
            raise ValueError(f"hop_ns is positive, not {hop_ns}")
        self._patience = patience or Tolerance()
        self._geometry, self._window_ns, self._hop_ns = geometry, geometry.window_ns, hop_ns
        self._sound = _Sound(geometry.audio, self._patience.chunk_gap_ns) if geometry.audio else None
        self._sight = _Sight(geometry.video, self._patience.frame_gap_ns) if geometry.video else None
        self._tracks: list[_Sound | _Sight] = [track for track in (self._sound, self._sight) if track is not None]
        self._first_ns: int | None = None
        self._next_ns = 0
        self._last_end_ns: int | None = None
        self._windows = self._late = 0

    @property
    def counts(self) -> Counts:
        """What became of the media so far."""
        return Counts(self._windows, self._late, sum(track.gaps for track in self._tracks))

    @property
    def hop_ns(self) -> int:
        """From one window's start to the next one's."""
        return self._hop_ns

    def tune(self, hop_ns: int, patience: Tolerance) -> None:
        """Go on with another hop and patience: the next window is where it would have been, the hop counts from it."""
        if hop_ns <= 0:
            raise ValueError(f"hop_ns is positive, not {hop_ns}")
        self._hop_ns, self._patience = hop_ns, patience
        if self._sound:
            self._sound.gap_ns = patience.chunk_gap_ns
        if self._sight:
            self._sight.gap_ns = patience.frame_gap_ns

    def push(self, item: Media) -> list[Window]:
        """Take a frame or chunk (each modality in the order of its times); the windows that are due now.

        Media of a modality that the model does not have is ignored. Raises ValueError for sound of another rate or
        pictures of another size than the model's.
        """
        track = self._sound if isinstance(item, Chunk) else self._sight
        if track is None:
            return []
        if self._first_ns is None or (self._last_end_ns is None and item.start_ns < self._first_ns):
            # Until a window is cut the line may still begin earlier: containers interleave loosely.
            self._first_ns = self._next_ns = item.start_ns
        # Where windows are further apart than they are long, what lies between two of them is not late.
        unseen_ns = max(0, self._hop_ns - self._window_ns)
        if end_of(item) < self._next_ns - unseen_ns or not track.add(item):  # type: ignore[arg-type]
            self._late += 1
            return []
        if end_of(item) < self._next_ns:
            self._forget()
        return list(self._due(self._patience.wait_ns))

    def gap(self, modality: str) -> None:
        """What comes next of this modality ("audio", "video") does not belong to what was: its source began anew."""
        track = self._sound if modality == "audio" else self._sight
        if track is not None:
            track.tear()

    def flush(self) -> list[Window]:
        """The media has ended: the windows that are left.

        The last one ends where the media ends, off the grid, so that no tail worth a look goes unseen. Media that
        never filled a window makes one all the same, of what came last: silence around the sound, the last frame held;
        its `end_ns` tells.
        """
        for track in self._tracks:
            track.torn = True  # nothing follows; no gap
        windows = list(self._due(0))
        ends_ns = [track.end_ns for track in self._tracks if track.end_ns is not None]
        if not ends_ns:
            return windows
        end_ns = max(ends_ns)
        if self._last_end_ns is None:
            if only := self._only(end_ns):
                windows.append(self._made(only))
        elif self._next_ns < end_ns and end_ns - self._last_end_ns > self._window_ns // TAIL:
            tail = self._cut(end_ns - self._window_ns)
            if tail.modalities:
                windows.append(self._made(tail))
        return windows

    def _due(self, wait_ns: int) -> Iterator[Window]:
        while True:
            start_ns, end_ns = self._next_ns, self._next_ns + self._window_ns
            newest_ns = self._newest_ns
            waited = newest_ns >= end_ns + wait_ns
            if not waited and not (newest_ns >= end_ns and all(track.decided(start_ns) for track in self._tracks)):
                return
            window = self._cut(start_ns)
            if window.modalities:
                self._next_ns += self._hop_ns
                yield self._made(window)
            else:
                self._next_ns += self._hop_ns * self._skip(start_ns)
            self._forget()

    @property
    def _newest_ns(self) -> int:
        return max((track.end_ns for track in self._tracks if track.end_ns is not None), default=self._next_ns)

    def _forget(self) -> None:
        for track in self._tracks:
            # `flush` may yet ask for the last window's length of media.
            track.forget(min(self._next_ns, self._newest_ns - self._window_ns))

    def _cut(self, start_ns: int) -> Window:
        heard = self._sound.cut(start_ns) if self._sound else None
        seen = self._sight.cut(start_ns) if self._sight else None
        return Window(
            start_ns,
            start_ns + self._window_ns,
            audio=heard.samples(self._geometry.audio.samples) if heard and self._geometry.audio else None,
            video=_stacked(seen) if seen else None,
            skew=self._skew(heard, seen) if heard and seen else None,
        )

    def _skew(self, heard: _Heard, seen: list[Frame]) -> Skew:
        audio = self._geometry.audio
        assert audio and self._sight
        ticks_ns = np.array(self._sight.ticks_ns, np.int64)
        # A tick at the very end of a window has no sample of its own.
        beside = (ticks_ns * audio.rate_hz // NS_PER_S).clip(0, audio.samples - 1)
        off_ns = np.array([frame.start_ns for frame in seen], np.int64) - heard.taken_ns(beside)
        return Skew(round(off_ns.mean()), int(off_ns[np.abs(off_ns).argmax()]))

    def _only(self, end_ns: int) -> Window | None:
        """The one window of media that filled none on the grid."""
        start_ns = end_ns - self._window_ns
        if self._first_ns is not None and start_ns >= self._first_ns and (whole := self._cut(start_ns)).modalities:
            return whole
        begins_ns = [run[0].start_ns for track in self._tracks if (run := track.last_run())]
        # Both modalities from where the earlier of their last runs begins, or, where that is too long ago, the later.
        for begin_ns in (min(begins_ns), max(begins_ns)):
            if begin_ns > start_ns:
                audio = self._sound.padded(begin_ns) if self._sound else None
                video = self._sight.padded(begin_ns) if self._sight else None
                return Window(begin_ns, end_ns, audio, video)
        return None

    def _made(self, window: Window) -> Window:
        self._windows += 1
        self._last_end_ns = window.end_ns
        return window

    def _skip(self, start_ns: int) -> int:
        """How many hops on something may be seen or heard again: an hour's hole is one step, not thousands."""
        begins_ns = [at for track in self._tracks if (at := track.next_run_ns(start_ns)) is not None]
        return max(1, -(-(min(begins_ns) - start_ns) // self._hop_ns)) if begins_ns else 1
