"""Which frames of a file its windows need. All others keep only their time, so nobody has to size and send them.

The windower takes the frame nearest to each tick. The last window ends where the media end, so a frame is certainly
not needed only if as much as a window comes after it. Knows no containers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from perceiverd.core.errors import MediaError
from perceiverd.core.media import Frame, Media, WindowGrid, end_of
from perceiverd.sources.decode.lazy import LazyFrame

HELD_BYTES = 128 << 20
"""Decoded frames that wait until it is known whether they are needed: ten in 4K. If they take more, the oldest ones are
sized at once: a sized frame takes a hundredth."""
HELD_ITEMS = 256
"""Frames, and chunks behind them, that wait. Then the oldest frame counts as needed."""


class NeededFrames:
    """Gives the media of one file in the same order. Frames that no window needs come without pixels."""

    def __init__(self, grid: WindowGrid, modalities: Collection[str]) -> None:
        """`modalities`: which of `audio` and `video` come."""
        self._grid, self._newest_ns = grid, dict.fromkeys(modalities, -(1 << 62))
        self._first_ns: int | None = None
        self._is_fixed = False
        """Whether the first window is cut, so that the windows' times do not change any more."""
        self._before_ns: int | None = None
        """The time of the frame before the first one that waits."""
        self._items: deque[Media] = deque()
        """All that waits, in its order: a windower may count as late what comes behind later media."""
        self._waiting: deque[Frame] = deque()
        """The frames of these."""
        self._needed: deque[bool | None] = deque()
        """Of each of these; None if it is not known yet."""
        self._held_bytes = 0

    def add(self, item: Media) -> Iterator[Media]:
        """The items that are decided when this one comes."""
        self._look_at(item)
        self._items.append(item)
        if isinstance(item, Frame):
            self._waiting.append(item)
            self._needed.append(None)
            self._held_bytes += _bytes(item)
        if self._is_fixed:
            self._decide()
        yield from self._decided()

    def flush(self) -> Iterator[Media]:
        """The items that still wait: the last window may need each frame."""
        yield from self._items
        self._items.clear()
        self._waiting.clear()
        self._needed.clear()

    def _look_at(self, item: Media) -> None:
        self._newest_ns["video" if isinstance(item, Frame) else "audio"] = end_of(item)
        if not self._is_fixed:
            # As the windower has it: until the first window, the time line may still begin earlier.
            self._first_ns = item.start_ns if self._first_ns is None else min(self._first_ns, item.start_ns)
            self._is_fixed = min(self._newest_ns.values()) >= self._first_ns + 2 * self._grid.window_ns

    def _decide(self) -> None:
        """Say of each frame with a successor whether a tick is nearest to it."""
        times_ns = [frame.start_ns for frame in self._waiting]
        for number, at_ns in enumerate(times_ns[:-1]):
            if self._needed[number] is not None:
                continue
            before_ns = times_ns[number - 1] if number else self._before_ns
            from_ns = -(1 << 62) if before_ns is None else (before_ns + at_ns) // 2
            needed = self._has_tick(from_ns, (at_ns + times_ns[number + 1]) // 2)
            self._needed[number] = needed
            if needed:
                self._size(self._waiting[number])

    def _has_tick(self, after_ns: int, until_ns: int) -> bool:
        """Whether a tick of a window is later than `after_ns` and not later than `until_ns`."""
        assert self._first_ns is not None
        hop_ns = self._grid.hop_ns
        for tick_ns in self._grid.ticks_ns:
            origin_ns = self._first_ns + tick_ns
            if until_ns >= origin_ns and origin_ns + (until_ns - origin_ns) // hop_ns * hop_ns > after_ns:
                return True
        return False

    def _decided(self) -> Iterator[Media]:
        over_ns = max(self._newest_ns.values()) - self._grid.window_ns
        while self._items:
            if not isinstance(item := self._items[0], Frame):
                yield self._items.popleft()
                continue
            is_needed = self._needed[0]
            if is_needed is None and len(self._items) > HELD_ITEMS:
                is_needed = True
            # The frame after it may be nearer to a tick of the last window only if that begins before it.
            if is_needed is None or not (is_needed or self._waiting[1].start_ns <= over_ns):
                break
            for waiting in (self._items, self._waiting, self._needed):
                waiting.popleft()
            self._before_ns = item.start_ns
            self._held_bytes -= _bytes(item)
            yield item if is_needed else Frame.without_pixels(item.start_ns)
        for frame in self._waiting:
            if self._held_bytes <= HELD_BYTES:
                break
            self._size(frame)

    def _size(self, frame: Frame) -> None:
        self._held_bytes -= _bytes(frame)
        _ = frame.pixels


def _bytes(frame: Frame) -> int:
    return frame.held_bytes if isinstance(frame, LazyFrame) else 0


def needed(items: Iterable[Media], grid: WindowGrid, modalities: Collection[str]) -> Iterator[Media]:
    """The same items; frames that no window of the grid needs come without pixels.

    Raises the MediaError that ended the items, after the media before it.
    """
    frames = NeededFrames(grid, modalities)
    fault: MediaError | None = None
    try:
        for item in items:
            yield from frames.add(item)
    except MediaError as error:
        fault = error
    yield from frames.flush()
    if fault:
        raise fault
