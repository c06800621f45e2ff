"""The latest state of each machine and stream, from the messages of its daemon. Pure: the caller passes the time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from perceiverd.history.clock_offset import ClockOffset
from perceiverd.history.rows import to_ms
from perceiverd.web.answers import LiveLabelAnswer, MachineAnswer, OpenEventAnswer, StreamAnswer
from perceiverd.web.problems import detail_of, problem_of
from perceiverd.wire import Event, Gap, Hello, Item, Restarted, Scores, Stale, Status

UNKNOWN = "unknown"
LATELY_S = 60.0
MOST_STREAMS = 1000
"""Streams of one machine that are shown. More come only from a program that is not ours."""
MOST_OPEN = 200
"""Open events of one stream that are kept."""


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment on two clocks."""

    utc: datetime
    monotonic_s: float


@dataclass(slots=True)
class LiveStream:
    """The latest messages of one stream."""

    name: str
    status: Status | None = None
    scores: Scores | None = None
    events: dict[str, Event] = field(default_factory=dict)
    """Open events by id."""
    state: str = UNKNOWN
    since: datetime | None = None
    dropped: deque[tuple[float, int]] = field(default_factory=deque)
    """When statuses came, and how many windows had been dropped until then, in the last minute."""

    def status_came(self, status: Status, now: Instant) -> None:
        if status.state != self.state:
            self.since = None if self.status is None else now.utc
            self.state = status.state
        self.status = status
        self.dropped.append((now.monotonic_s, status.dropped))
        while self.dropped[0][0] < now.monotonic_s - LATELY_S:
            self.dropped.popleft()

    def event_came(self, event: Event) -> None:
        if event.kind == "end":
            self.events.pop(event.id, None)
        elif event.id in self.events or len(self.events) < MOST_OPEN:
            self.events[event.id] = event

    @property
    def dropped_lately(self) -> int:
        return max(0, self.dropped[-1][1] - self.dropped[0][1]) if self.dropped else 0

    def answer(self, machine: str, silent: bool) -> StreamAnswer:
        """What a browser gets."""
        status, scores = self.status, self.scores
        opened = sorted(self.events.values(), key=lambda event: event.start)
        return StreamAnswer(
            machine=machine,
            stream=self.name,
            state=self.state,
            problem=problem_of(status, scores, silent, self.dropped_lately),
            detail=detail_of(status),
            since=self.since,
            level_dbfs=status.level_dbfs if status else None,
            skew_ms=scores.skew_ms if scores else status.skew_ms if status else None,
            latency_ms=scores.latency_ms if scores else None,
            dropped=status.dropped if status else 0,
            filled_ms=scores.filled_ms if scores else {},
            missing=scores.missing if scores else {},
            modalities=scores.modalities if scores else (),
            window_end=scores.end if scores else None,
            labels=tuple(LiveLabelAnswer(tag.mid, tag.name, tag.score) for tag in scores.labels) if scores else (),
            open_events=tuple(
                OpenEventAnswer(event.mid, event.name, event.start, event.explanation.score) for event in opened
            ),
            stale=silent,
        )


@dataclass(slots=True)
class LiveChanges:
    """What a message has changed."""

    streams: set[str] = field(default_factory=set)
    event: Event | None = None
    membership: bool = False
    """Streams were added or removed."""
    machine: bool = False


@dataclass(slots=True)
class LiveMachine:
    """One daemon and its streams."""

    name: str
    endpoint: str
    hello: Hello | None = None
    silent: bool = True
    seen: datetime | None = None
    missed: int = 0
    clock: ClockOffset = field(default_factory=ClockOffset)
    streams: dict[str, LiveStream] = field(default_factory=dict)

    def receive(self, item: Item, now: Instant) -> LiveChanges:
        """Keep what this item says."""
        changes = LiveChanges()
        if isinstance(item, Stale):
            self._heard(not item.over, changes)
            return changes
        if isinstance(item, Gap):
            self.missed += item.missed
            changes.machine = True
            return changes
        if isinstance(item, Restarted):
            self._restarted(changes)
            return changes
        self.seen = now.utc
        self._heard(False, changes)
        match item:
            case Hello():
                self._hello(item, changes)
            case Status():
                self._status(item, now, changes)
            case Scores():
                if stream := self._stream(item.stream, changes):
                    stream.scores = item
            case Event():
                if stream := self._stream(item.stream, changes):
                    stream.event_came(item)
                    changes.event = item
        return changes

    def answer(self) -> MachineAnswer:
        """What a browser gets."""
        hello, offset_ms = self.hello, self.clock.offset_ms
        return MachineAnswer(
            name=self.name,
            endpoint=self.endpoint,
            seen=self.seen,
            silent=self.silent,
            clock_offset_s=None if offset_ms is None else offset_ms / 1000,
            clock_off=self.clock.is_off,
            missed=self.missed,
            model=hello.model.name if hello else None,
            version=hello.version if hello else None,
            up_since=hello.up_since if hello else None,
            hop_s=hello.hop_s if hello else None,
        )

    def _heard(self, silent: bool, changes: LiveChanges) -> None:
        if silent != self.silent:
            self.silent = silent
            changes.machine = True
            changes.streams |= self.streams.keys()

    def _restarted(self, changes: LiveChanges) -> None:
        for stream in self.streams.values():
            stream.events.clear()
            stream.dropped.clear()
            stream.scores = None
        changes.streams |= self.streams.keys()
        changes.machine = True

    def _hello(self, hello: Hello, changes: LiveChanges) -> None:
        self.hello, changes.machine = hello, True
        wanted = (*hello.streams, *hello.disabled)[:MOST_STREAMS]
        for name in [name for name in self.streams if name not in wanted]:
            del self.streams[name]
            changes.membership = True
        for name in wanted:
            self._stream(name, changes)

    def _status(self, status: Status, now: Instant, changes: LiveChanges) -> None:
        if stream := self._stream(status.stream, changes):
            stream.status_came(status, now)
        if not status.repeated and self.clock.heartbeat(
            to_ms(status.time), to_ms(now.utc), round(now.monotonic_s * 1000)
        ):
            changes.machine = True

    def _stream(self, name: str, changes: LiveChanges) -> LiveStream | None:
        """The stream with this name; None for one that the daemon does not have."""
        if self.hello is not None and name not in (*self.hello.streams, *self.hello.disabled):
            return None  # the last message of a stream that was removed
        if name not in self.streams:
            if len(self.streams) >= MOST_STREAMS:
                return None
            self.streams[name] = LiveStream(name)
            changes.membership = True
        changes.streams.add(name)
        return self.streams[name]


def instant_of(utc_s: float, monotonic_s: float) -> Instant:
    """The moment with these readings of the two clocks."""
    return Instant(datetime.fromtimestamp(utc_s, UTC), monotonic_s)
