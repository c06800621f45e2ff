"""What a daemon's messages tell, kept for the eye: how every stream is now, and what happened, one line each.

Values in, values out: it knows neither socket nor terminal, and is told the time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from perceiverd.wire.messages import Event, Hello, Message, Scores, Status

RECENT = 100
"""Happenings that are kept."""
DROPS_TOLD_EVERY_S = 60.0
DOWN = ("stalled", "backing off")
"""States of a stream that has lost its media."""


@dataclass(frozen=True, slots=True)
class ActivityEntry:
    """One thing that happened, worth a line."""

    time: datetime
    text: str
    grave: bool = False
    """Whether something was lost."""


@dataclass(slots=True)
class StreamView:
    """The latest of one stream."""

    status: Status | None = None
    scores: Scores | None = None
    events: dict[str, Event] = field(default_factory=dict)
    """Open events by id, in the order in which they began."""
    state_told: str = ""
    stalls: tuple[str, ...] = ()
    dropped_told: int = 0
    dropped_told_s: float = -DROPS_TOLD_EVERY_S


class Activity:
    """The latest of everything, and what is new in each message."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.hello: Hello | None = None
        self.silent_since: datetime | None = None
        """When the last message came, where none has for too long."""
        self.streams: dict[str, StreamView] = {}
        self.recent: deque[ActivityEntry] = deque(maxlen=RECENT)
        self.missed = 0
        """Messages that got lost on their way."""

    def take(self, message: Message, now: datetime) -> ActivityEntry | None:
        """Take note of a message; what happened, where it says that something has."""
        match message:
            case Hello():
                told = self._greeted(message, now)
            case Status():
                told = self._stated(message)
            case Event():
                told = self._changed(message)
            case Scores():
                self._seen(message.stream).scores = message
                told = None
            case _:
                told = None
        return self.add(told) if told else None

    def add(self, happening: ActivityEntry) -> ActivityEntry:
        """Keep a happening that no message told of."""
        self.recent.append(happening)
        return happening

    def silent(self, since: datetime, now: datetime, text: str) -> ActivityEntry:
        """Nothing has been heard since then."""
        self.silent_since = since
        return self.add(ActivityEntry(now, text, grave=True))

    def heard_again(self, now: datetime) -> ActivityEntry:
        """The silence is over."""
        seconds = (now - self.silent_since).total_seconds() if self.silent_since else 0.0
        self.silent_since = None
        return self.add(ActivityEntry(now, f"heard again after {lasting(seconds)}"))

    def lost(self, topic: str, missed: int, now: datetime) -> ActivityEntry:
        """Messages of a topic were sent and did not arrive."""
        self.missed += missed
        many = "1 message" if missed == 1 else f"{missed} messages"
        return self.add(ActivityEntry(now, f"missed {many} of {topic}", grave=True))

    def restarted(self, now: datetime) -> ActivityEntry:
        """Another daemon speaks: what was known of the streams is of the past."""
        self.hello = None
        self.streams.clear()
        return self.add(ActivityEntry(now, "the daemon was restarted", grave=True))

    def _seen(self, stream: str) -> StreamView:
        return self.streams.setdefault(stream, StreamView())

    def _greeted(self, hello: Hello, now: datetime) -> ActivityEntry | None:
        before, self.hello = self.hello, hello
        for name in [name for name in self.streams if name not in (*hello.streams, *hello.disabled)]:
            del self.streams[name]
        for name in hello.streams:
            self._seen(name)
        names = ", ".join(hello.streams)
        if before is None or before.boot_id != hello.boot_id:
            return ActivityEntry(now, f"perceiverd {hello.version}, model {hello.model.name}, streams: {names}")
        return ActivityEntry(now, f"reloaded, streams: {names}") if before.streams != hello.streams else None

    def _stated(self, status: Status) -> ActivityEntry | None:
        if self.hello and status.stream not in (*self.hello.streams, *self.hello.disabled):
            return None  # the last word of a stream that is no more
        seen = self._seen(status.stream)
        if seen.status is None:
            seen.dropped_told = status.dropped  # what was lost before we came is no news
        seen.status = status
        if stands := self._stands(seen, status):
            return stands
        down = status.state in DOWN
        # One that is started again and again, and fails each time, is told of once.
        still_down = seen.state_told in DOWN and status.state in (*DOWN, "starting")
        if status.state != seen.state_told and not still_down:
            seen.state_told = status.state
            return ActivityEntry(status.time, f"{status.stream}: {status.state}{why(status)}", grave=down)
        dropped, at_s = status.dropped - seen.dropped_told, status.time.timestamp()
        if dropped > 0 and at_s - seen.dropped_told_s >= DROPS_TOLD_EVERY_S:
            seen.dropped_told, seen.dropped_told_s = status.dropped, at_s
            many = "1 window" if dropped == 1 else f"{dropped} windows"
            return ActivityEntry(status.time, f"{status.stream}: dropped {many}, too busy to tag them", grave=True)
        return None

    def _stands(self, seen: StreamView, status: Status) -> ActivityEntry | None:
        """What comes and yet is nothing, or is something again."""
        stalls = tuple(stall for source in status.sources for stall in source.stalls)
        before, seen.stalls = seen.stalls, stalls
        if new := [stall for stall in stalls if stall not in before]:
            return ActivityEntry(status.time, f"{status.stream}: {' and '.join(new)}; counts as missing", grave=True)
        if gone := [stall for stall in before if stall not in stalls]:
            return ActivityEntry(status.time, f"{status.stream}: {' and '.join(gone)} over")
        return None

    def _changed(self, event: Event) -> ActivityEntry | None:
        events = self._seen(event.stream).events
        known = event.id in events
        if event.kind == "end":
            if events.pop(event.id, None) is None and event.repeated:
                return None
            how = "" if event.explanation.reason == "faded" else f" ({event.explanation.reason})"
            told = f"{event.name} ended after {lasting(event.duration_s)}, peak {event.peak:.2f}{how}"
            return ActivityEntry(event.end, f"{event.stream}: {told}")
        events[event.id] = event
        if known:
            return None
        if event.kind == "begin" and not event.repeated:
            why = event.explanation
            told = f"{event.name} began, {why.score:.2f} (from {why.on:.2f} on)"
        else:
            told = f"{event.name} has been on since then, peak {event.peak:.2f}"
        return ActivityEntry(event.start, f"{event.stream}: {told}")


def why(status: Status) -> str:
    """How often the stream's sources were started again so far, in brackets; empty where they never were."""
    losses: dict[str, int] = {}
    for source in status.sources:
        for reason, count in source.restarts.items():
            losses[reason] = losses.get(reason, 0) + count
    return f" ({', '.join(f'{reason} {count}x' for reason, count in losses.items())})" if losses else ""


def lasting(seconds: float) -> str:
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
