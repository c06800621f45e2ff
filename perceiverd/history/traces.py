"""The scores of the windows around the beginning and the end of an event. Pure: it knows no database and no socket.

An event's page shows why it began and ended. A minute's maximum is too coarse for that, and all windows of all streams
would be too much, so the history keeps those near an event, of the labels at or above a floor.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from perceiverd.wire import Event, Scores

BEFORE_MS = 10_000
"""Windows from this long before the beginning of an event."""
AFTER_MS = 10_000
"""Windows until this long after its beginning, and until this long after its end."""
HELD_MS = 60_000
"""How far back windows are held: the daemon publishes an event seconds after it began, and its end after a fade."""
MOST_HELD = 1200
"""Windows held for each stream, if they come faster than expected."""
LEAST_LABELS = 5
"""So many labels of a window are kept even if they are below the floor."""
LATE_MS = 30_000
"""A finished event waits this long at most for windows after its end."""

Window = tuple[int, dict[str, int]]
"""The end of a window in ms since 1970, and scores in thousandths by mid."""
StoredWindow = tuple[int, dict[int, int]]
"""The same by the number of the label in the store."""
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[StoredWindow]] = msgspec.msgpack.Decoder(list[StoredWindow])


def packed(windows: Iterable[StoredWindow]) -> bytes:
    """The bytes that are stored: differences of times compress well."""
    rows, last_ms = [], 0
    for end_ms, scores in windows:
        rows.append((end_ms - last_ms, scores))
        last_ms = end_ms
    return zlib.compress(_encoder.encode(rows), 6)


def unpacked(data: bytes) -> list[StoredWindow]:
    """The windows in these bytes."""
    windows, last_ms = [], 0
    for step_ms, scores in _decoder.decode(zlib.decompress(data)):
        last_ms += step_ms
        windows.append((last_ms, scores))
    return windows


@dataclass(slots=True)
class _Open:
    """An event whose trace is not complete."""

    start_ms: int
    begun: list[Window]
    end_ms: int | None = None
    """Its end, once that is known."""
    saved: bool = False
    """Whether the windows around its beginning were handed over."""


@dataclass(slots=True)
class TraceRecorder:
    """The traces of one stream. Gets its scores and events in the order in which they come."""

    _held: deque[Window] = field(default_factory=lambda: deque(maxlen=MOST_HELD))
    _open: dict[str, _Open] = field(default_factory=dict)

    def scores(self, window: Window) -> list[tuple[str, list[Window]]]:
        """Record a window. Returns the traces that can be stored now, by the event's key."""
        end_ms = window[0]
        self._held.append(window)
        while self._held and self._held[0][0] < end_ms - HELD_MS:
            self._held.popleft()
        ready = []
        for key, event in list(self._open.items()):
            if end_ms <= event.start_ms + AFTER_MS:
                event.begun.append(window)
                continue
            if not event.saved:
                event.saved = True
                ready.append((key, event.begun))
            if event.end_ms is not None and end_ms > event.end_ms + AFTER_MS:
                ready.append((key, self._complete(event)))
                del self._open[key]
        return ready

    def event(self, event: Event, start_ms: int, end_ms: int) -> None:
        """Record a message of an event."""
        known = self._open.get(event.id)
        if known is None and event.kind != "end":
            near = [each for each in self._held if start_ms - BEFORE_MS <= each[0] <= start_ms + AFTER_MS]
            known = self._open[event.id] = _Open(start_ms, near)
        if known is not None and event.kind == "end":
            known.end_ms = end_ms

    def overdue(self, now_ms: int) -> list[tuple[str, list[Window]]]:
        """The traces of ended events for which no window came in time."""
        late = [key for key, each in self._open.items() if each.end_ms is not None and now_ms > each.end_ms + LATE_MS]
        return [(key, self._complete(self._open.pop(key))) for key in late]

    def close(self) -> list[tuple[str, list[Window]]]:
        """The stream is over: the traces of all events, as far as they are known."""
        ready = [(key, self._complete(event)) for key, event in self._open.items()]
        self._open.clear()
        self._held.clear()
        return ready

    def _complete(self, event: _Open) -> list[Window]:
        last_ms = event.begun[-1][0] if event.begun else 0
        from_ms = (event.end_ms or event.start_ms) - BEFORE_MS
        until_ms = (event.end_ms or event.start_ms) + AFTER_MS
        return [*event.begun, *(each for each in self._held if each[0] > last_ms and from_ms <= each[0] <= until_ms)]


def window_of(message: Scores, end_ms: int, floor: float) -> Window:
    """What is kept of a message: labels at or above the floor, and the LEAST_LABELS best."""
    return end_ms, {
        tag.mid: round(tag.score * 1000)
        for place, tag in enumerate(message.labels)
        if place < LEAST_LABELS or tag.score >= floor
    }
