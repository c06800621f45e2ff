"""A clip replayed in real time: its time line is laid on CLOCK_MONOTONIC, and each item is sent when it is due."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, end_of
from perceiverd.sources.decode import container
from perceiverd.sources.specs import File

AHEAD_NS = NS_PER_S
"""Containers interleave audio and video loosely: we read this much ahead and sort it."""
AHEAD_ITEMS = 512
"""We never hold more items than this."""
SIGN_OF_LIFE_NS = NS_PER_S // 2
"""If nothing is due for longer than this, we send a sign of life."""

Sleep = Callable[[float], None]


def media(spec: File, wanted: MediaFormat, clock: Clock = now_ns, sleep: Sleep = time.sleep) -> Iterator[Media | None]:
    """Yield the clip's media when they are due, live-stamped; None while nothing is due. Raises MediaError."""
    begin_ns: int | None = None
    while True:
        extent = _Extent(wanted)
        items = extent.measured(container.read(Path(spec.path), wanted, use=spec, log_track=begin_ns is None))
        first = next(items)  # opens the file; container.read raises if there are no media in it
        if begin_ns is None:
            begin_ns = clock()
        yield from paced(_all_later(first, items, begin_ns), clock, sleep)
        if not spec.loop:
            return
        begin_ns += extent.length_ns


def later(item: Media, by_ns: int) -> Media:
    """The same item, later by this much."""
    return replace(item, start_ns=item.start_ns + by_ns)


def paced(items: Iterable[Media], clock: Clock = now_ns, sleep: Sleep = time.sleep) -> Iterator[Media | None]:
    """Yield live-stamped items in the order in which they are due, none before its time; None during long waits."""
    heap: list[tuple[int, int, Media]] = []
    newest_ns = -(1 << 63)
    fault: MediaError | None = None
    for number, item in enumerate(_until_fault(items)):
        if isinstance(item, MediaError):
            fault = item
            break
        due = end_of(item)
        newest_ns = max(newest_ns, due)
        heapq.heappush(heap, (due, number, item))
        # We send what is due at once: the next item may take long to come from a network.
        while heap and (newest_ns - heap[0][0] > AHEAD_NS or len(heap) > AHEAD_ITEMS or heap[0][0] <= clock()):
            yield from _in_time(heapq.heappop(heap), clock, sleep)
    while heap:
        yield from _in_time(heapq.heappop(heap), clock, sleep)
    if fault is not None:
        raise fault


def _until_fault(items: Iterable[Media]) -> Iterator[Media | MediaError]:
    """The items, and the error that ends them as the last item: what was read before it must still be sent in time."""
    try:
        yield from items
    except MediaError as error:
        yield error


def _in_time(entry: tuple[int, int, Media], clock: Clock, sleep: Sleep) -> Iterator[Media | None]:
    due, _, item = entry
    while (wait_ns := due - clock()) > 0:
        sleep(min(wait_ns, SIGN_OF_LIFE_NS) / NS_PER_S)
        if wait_ns > SIGN_OF_LIFE_NS:
            yield None
    yield item


def _all_later(first: Media, rest: Iterator[Media], by_ns: int) -> Iterator[Media]:
    yield later(first, by_ns)
    for item in rest:
        yield later(item, by_ns)


class _Extent:
    """Measures the length of a clip while its items pass."""

    def __init__(self, wanted: MediaFormat) -> None:
        self._audio_end_ns = 0
        self._frame: Frame | None = None
        self._period_ns = round(NS_PER_S / wanted.video.fps) if wanted.video else 0

    def measured(self, items: Iterable[Media]) -> Iterator[Media]:
        """The same items."""
        for item in items:
            if isinstance(item, Chunk):
                self._audio_end_ns = max(self._audio_end_ns, item.end_ns)
            else:
                if self._frame is not None and item.start_ns > self._frame.start_ns:
                    self._period_ns = item.start_ns - self._frame.start_ns
                self._frame = item
            yield item

    @property
    def length_ns(self) -> int:
        """To the end of audio or of the last frame, whichever is later; that frame lasts as long as the one before."""
        video_end_ns = self._frame.start_ns + self._period_ns if self._frame else 0
        return max(self._audio_end_ns, video_end_ns)
