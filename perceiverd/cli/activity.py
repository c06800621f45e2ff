"""The latest state of each stream, and a line for each change, from a daemon's messages.

It takes values and returns values. It knows neither socket nor terminal, and the caller gives it the time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from perceiverd.wire.messages import Event, Hello, Message, Scores, Status

RECENT = 100
"""Number of entries that are kept."""
REPORT_DROPS_EVERY_S = 60.0
DOWN = ("stalled", "backing off")
"""States of a stream that has lost its media."""


@dataclass(frozen=True, slots=True)
class ActivityEntry:
    """One change, as a line of text."""

    time: datetime
    text: str
    is_loss: bool = False
    """Whether media, messages or the daemon were lost."""


@dataclass(slots=True)
class StreamView:
    """The latest messages of one stream, and what was reported of it."""

    status: Status | None = None
    scores: Scores | None = None
    events: dict[str, Event] = field(default_factory=dict)
    """Open events by id, in the order of their beginning."""
    reported_state: str = ""
    reported_stalls: tuple[str, ...] = ()
    reported_dropped: int = 0
    reported_dropped_s: float = -REPORT_DROPS_EVERY_S


class Activity:
    """The latest of all streams, and the recent entries."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.hello: Hello | None = None
        self.silent_since: datetime | None = None
        """Time of the last message, if none has come for too long."""
        self.streams: dict[str, StreamView] = {}
        self.recent: deque[ActivityEntry] = deque(maxlen=RECENT)
        self.missed = 0
        """Messages that were published and did not arrive."""

    def update(self, message: Message, now: datetime) -> ActivityEntry | None:
        """Keep a message as the latest; returns an entry if it is a change."""
        match message:
            case Hello():
                entry = self._hello(message, now)
            case Status():
                entry = self._status(message)
            case Event():
                entry = self._event(message)
            case Scores():
                self._stream(message.stream).scores = message
                entry = None
            case _:
                entry = None
        return self.add(entry) if entry else None

    def add(self, entry: ActivityEntry) -> ActivityEntry:
        """Keep an entry that comes from no message."""
        self.recent.append(entry)
        return entry

    def silence_began(self, since: datetime, now: datetime, text: str) -> ActivityEntry:
        """Record that no message has come since then."""
        self.silent_since = since
        return self.add(ActivityEntry(now, text, is_loss=True))

    def silence_ended(self, now: datetime) -> ActivityEntry:
        """Record that messages come again."""
        seconds = (now - self.silent_since).total_seconds() if self.silent_since else 0.0
        self.silent_since = None
        return self.add(ActivityEntry(now, f"messages arrive again after {duration(seconds)}"))

    def missed_messages(self, topic: str, count: int, now: datetime) -> ActivityEntry:
        """Record that messages of a topic were published and did not arrive."""
        self.missed += count
        messages = "1 message" if count == 1 else f"{count} messages"
        return self.add(ActivityEntry(now, f"missed {messages} of {topic}", is_loss=True))

    def restarted(self, now: datetime) -> ActivityEntry:
        """Forget the streams, because the daemon has restarted."""
        self.hello = None
        self.streams.clear()
        return self.add(ActivityEntry(now, "the daemon has restarted", is_loss=True))

    def _stream(self, name: str) -> StreamView:
        return self.streams.setdefault(name, StreamView())

    def _hello(self, hello: Hello, now: datetime) -> ActivityEntry | None:
        before, self.hello = self.hello, hello
        for name in [name for name in self.streams if name not in (*hello.streams, *hello.disabled)]:
            del self.streams[name]
        for name in hello.streams:
            self._stream(name)
        names = ", ".join(hello.streams)
        if before is None or before.boot_id != hello.boot_id:
            return ActivityEntry(now, f"perceiverd {hello.version}, model {hello.model.name}, streams: {names}")
        return ActivityEntry(now, f"reloaded, streams: {names}") if before.streams != hello.streams else None

    def _status(self, status: Status) -> ActivityEntry | None:
        if self.hello and status.stream not in (*self.hello.streams, *self.hello.disabled):
            return None  # the last status of a stream that was removed
        view = self._stream(status.stream)
        if view.status is None:
            view.reported_dropped = status.dropped  # what was dropped before this program started is not new
        view.status = status
        return self._stalls(view, status) or self._state(view, status) or self._drops(view, status)

    def _stalls(self, view: StreamView, status: Status) -> ActivityEntry | None:
        """An entry if frozen video or dead audio begins or ends."""
        stalls = tuple(stall for source in status.sources for stall in source.stalls)
        before, view.reported_stalls = view.reported_stalls, stalls
        if new := [stall for stall in stalls if stall not in before]:
            text = f"{status.stream}: {' and '.join(new)}; counts as missing"
            return ActivityEntry(status.time, text, is_loss=True)
        if gone := [stall for stall in before if stall not in stalls]:
            return ActivityEntry(status.time, f"{status.stream}: {' and '.join(gone)} ended")
        return None

    def _state(self, view: StreamView, status: Status) -> ActivityEntry | None:
        """An entry if the state has changed. A source that restarts again and again without success gives one entry."""
        still_down = view.reported_state in DOWN and status.state in (*DOWN, "starting")
        if status.state == view.reported_state or still_down:
            return None
        view.reported_state = status.state
        text = f"{status.stream}: {status.state}{restarts(status)}"
        return ActivityEntry(status.time, text, is_loss=status.state in DOWN)

    def _drops(self, view: StreamView, status: Status) -> ActivityEntry | None:
        """An entry if windows were dropped, once per REPORT_DROPS_EVERY_S."""
        dropped, now_s = status.dropped - view.reported_dropped, status.time.timestamp()
        if dropped <= 0 or now_s - view.reported_dropped_s < REPORT_DROPS_EVERY_S:
            return None
        view.reported_dropped, view.reported_dropped_s = status.dropped, now_s
        windows = "1 window" if dropped == 1 else f"{dropped} windows"
        return ActivityEntry(status.time, f"{status.stream}: dropped {windows}, too busy to tag them", is_loss=True)

    def _event(self, event: Event) -> ActivityEntry | None:
        events = self._stream(event.stream).events
        if event.kind == "end":
            known = events.pop(event.id, None)
            return _ended(event) if known or not event.repeated else None
        known = events.get(event.id)
        events[event.id] = event
        return _began(event) if known is None else None


def _began(event: Event) -> ActivityEntry:
    if event.kind == "begin" and not event.repeated:
        why = event.explanation
        text = f"{event.name} began, {why.score:.2f} (threshold {why.on:.2f})"
    else:  # it began before this program started
        text = f"{event.name} is on since then, peak {event.peak:.2f}"
    return ActivityEntry(event.start, f"{event.stream}: {text}")


def _ended(event: Event) -> ActivityEntry:
    reason = "" if event.explanation.reason == "faded" else f" ({event.explanation.reason})"
    text = f"{event.name} ended after {duration(event.duration_s)}, peak {event.peak:.2f}{reason}"
    return ActivityEntry(event.end, f"{event.stream}: {text}")


def restarts(status: Status) -> str:
    """How many times the stream's sources have restarted, by reason, in brackets; empty if they never have."""
    counts: dict[str, int] = {}
    for source in status.sources:
        for reason, count in source.restarts.items():
            counts[reason] = counts.get(reason, 0) + count
    return f" ({', '.join(f'{reason} {count}x' for reason, count in counts.items())})" if counts else ""


def duration(seconds: float) -> str:
    """A length of time for people: 0.9 s, 14 s, 3 min, 2 h 5 min, 4 d 3 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    if hours < 1:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
