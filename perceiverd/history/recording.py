"""Turns what is received from one daemon into operations for the store. Pure: it knows no socket, database or clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from perceiverd.history.clock_offset import ClockOffset
from perceiverd.history.minutes import MINUTE_MS, MinuteAggregator
from perceiverd.history.operations import (
    AddMinutes,
    AddMissed,
    BeginRecording,
    ChangeState,
    CloseSpan,
    EndRecording,
    EndUnseenEvents,
    NameLabels,
    OpenSpan,
    Operation,
    SeeMachine,
    SeeRun,
    StoreEvent,
    StoreTrace,
)
from perceiverd.history.rows import to_ms
from perceiverd.history.traces import TraceRecorder, Window, window_of
from perceiverd.wire import Event, Gap, Hello, Item, Message, Restarted, Scores, Stale, Status

SEEN_EVERY_MS = 10_000
"""How often the time of the last message is stored, if there is nothing else to store: it wears flash memory."""
SETTLE_MS = 5_000
"""A daemon repeats its open events to a new subscriber at once. Those that it did not repeat by then are over."""
EVENTS = "events/"


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on two clocks."""

    utc_ms: int
    monotonic_ms: int


@dataclass(slots=True)
class DaemonRecorder:
    """What is known of one daemon."""

    machine: str
    endpoint: str
    floor: float
    """Scores below this are not stored by minute."""
    settle_ms: int = SETTLE_MS
    silent: bool = True
    """Whether nothing is received from it."""
    boot_id: str = ""
    clock: ClockOffset = field(default_factory=ClockOffset)
    missed: int = 0
    """Messages that were published and not received."""
    events: int = 0
    """Events that began."""
    _states: dict[str, tuple[str, str]] = field(default_factory=dict)
    _open: set[tuple[str, str]] = field(default_factory=set)
    """Stream and key of the events that are open."""
    _traces: dict[str, TraceRecorder] = field(default_factory=dict)
    _minutes: MinuteAggregator = field(default_factory=MinuteAggregator)
    _named: dict[str, str] = field(default_factory=dict)
    _new_names: dict[str, str] = field(default_factory=dict)
    _received: dict[str, int] = field(default_factory=dict)
    """When the last message of each topic was received."""
    _seen_ms: int = 0
    _minute: int = 0
    _settles_at_ms: int | None = None
    """When the events that were not repeated are over, on the monotonic clock; None if that is done."""
    _started_ms: int = 0

    def begin(self, now: Now) -> Iterator[Operation]:
        """The history has started."""
        self._started_ms = now.utc_ms
        yield BeginRecording(self.machine, self.endpoint, now.utc_ms)

    def receive(self, item: Item, now: Now) -> Iterator[Operation]:
        """The operations that an item from the subscription leads to."""
        match item:
            case Stale():
                yield from self._stale(item, now)
            case Gap():
                yield self._gap(item, now)
            case Restarted():
                yield from self._restarted()
            case _:
                self.silent = False
                yield from self._message(item, now)

    def repeat(self, now: Now) -> None:
        """The daemon is asked to repeat its open events; those that it does not repeat are over."""
        self._open.clear()
        self._settles_at_ms = now.monotonic_ms + self.settle_ms

    def turn(self, now: Now) -> Iterator[Operation]:
        """What is due; call it about every second."""
        if self._settles_at_ms is not None and now.monotonic_ms >= self._settles_at_ms and self.boot_id:
            self._settles_at_ms = None
            settled_ms = now.utc_ms - self.settle_ms
            yield EndUnseenEvents(self.machine, self.boot_id, frozenset(self._open), settled_ms)
        for stream, recorder in self._traces.items():
            yield from (self._trace(stream, *ready) for ready in recorder.overdue(now.utc_ms))
        if now.utc_ms // MINUTE_MS != self._minute:
            self._minute = now.utc_ms // MINUTE_MS
            yield from self._flush()
        if not self.silent and not 0 <= now.utc_ms - self._seen_ms < SEEN_EVERY_MS:
            yield self._see(now)

    def end(self, now: Now) -> Iterator[Operation]:
        """The history ends."""
        for stream, recorder in self._traces.items():
            yield from (self._trace(stream, *ready) for ready in recorder.close())
        yield from self._flush()
        if not self.silent:
            yield self._see(now)
        yield EndRecording(self.machine, now.utc_ms)

    def _see(self, now: Now) -> SeeMachine:
        self._seen_ms = now.utc_ms
        return SeeMachine(self.machine, now.utc_ms, self.clock.offset_ms)

    def _flush(self) -> Iterator[Operation]:
        if self._new_names:
            yield NameLabels(self._new_names)
            self._new_names = {}
        if minutes := self._minutes.take():
            yield AddMinutes(self.machine, minutes)

    def _stale(self, item: Stale, now: Now) -> Iterator[Operation]:
        self.silent = not item.over
        if item.over:
            yield CloseSpan(self.machine, "daemon silent", now.utc_ms)
            return
        since_ms = now.utc_ms - round(item.seconds * 1000)
        yield OpenSpan(self.machine, "daemon silent", since_ms, self.endpoint)
        # Its streams' states are unknown from here on; the next status opens a new span.
        for stream in self._states:
            yield ChangeState(self.machine, stream, "", "", since_ms)
        self._states.clear()

    def _gap(self, item: Gap, now: Now) -> AddMissed:
        self.missed += item.missed
        kind, _, stream = item.topic.rstrip("/").partition("/")
        since_ms = self._received.get(item.topic, self._started_ms)
        return AddMissed(self.machine, stream or None, "messages missed", since_ms, now.utc_ms, item.missed, kind)

    def _restarted(self) -> Iterator[Operation]:
        for stream, recorder in self._traces.items():
            yield from (self._trace(stream, *ready) for ready in recorder.close())
        self._open.clear()
        self._states.clear()
        self.boot_id = ""

    def _message(self, message: Message, now: Now) -> Iterator[Operation]:
        match message:
            case Hello():
                yield self._run(message.boot_id, message.version, message, now)
            case Status():
                yield from self._status(message, now)
            case Scores():
                yield from self._scores(message, now)
            case Event():
                yield from self._event(message, now)
            case _:
                pass  # an explanation: the history does not ask for them

    def _run(self, boot_id: str, version: str, message: Hello | Status | Event, now: Now) -> SeeRun:
        if self.boot_id != boot_id:
            self.boot_id = boot_id
            self._settles_at_ms = now.monotonic_ms + self.settle_ms
        up_since_ms = now.utc_ms if isinstance(message, Event) else to_ms(message.up_since)
        model = message.model
        return SeeRun(self.machine, boot_id, version, model.name, model.sha256, up_since_ms, now.utc_ms)

    def _known_run(self, message: Status | Event, now: Now) -> Iterator[Operation]:
        if message.boot_id != self.boot_id:
            yield self._run(message.boot_id, "", message, now)

    def _status(self, message: Status, now: Now) -> Iterator[Operation]:
        yield from self._known_run(message, now)
        self._received[f"status/{message.stream}/"] = now.utc_ms
        if not message.repeated and self.clock.heartbeat(to_ms(message.time), now.utc_ms, now.monotonic_ms):
            yield from self._clock_changed(now)
        state = message.state, problems_of(message)
        if self._states.get(message.stream) != state:
            self._states[message.stream] = state
            yield ChangeState(self.machine, message.stream, *state, now.utc_ms)

    def _clock_changed(self, now: Now) -> Iterator[Operation]:
        offset_s = (self.clock.offset_ms or 0) / 1000
        if self.clock.is_off:
            yield OpenSpan(self.machine, "clock off", now.utc_ms, f"{offset_s:+.1f} s")
        else:
            yield CloseSpan(self.machine, "clock off", now.utc_ms)

    def _scores(self, message: Scores, now: Now) -> Iterator[Operation]:
        self._received[f"scores/{message.stream}/"] = now.utc_ms
        for tag in message.labels:
            if self._named.get(tag.mid) != tag.name:
                self._named[tag.mid] = self._new_names[tag.mid] = tag.name
        end_ms = to_ms(message.end)
        self._minutes.add(message, end_ms)
        window = window_of(message, end_ms, self.floor)
        yield from (self._trace(message.stream, *ready) for ready in self._of(message.stream).scores(window))

    def _event(self, message: Event, now: Now) -> Iterator[Operation]:
        yield from self._known_run(message, now)
        self._received[f"{EVENTS}{message.stream}/"] = now.utc_ms
        self.events += message.kind == "begin" and not message.repeated
        key = message.stream, message.id
        if message.kind == "end":
            self._open.discard(key)
        else:
            self._open.add(key)
        yield StoreEvent(self.machine, message)
        self._of(message.stream).event(message, to_ms(message.start), to_ms(message.end))

    def _of(self, stream: str) -> TraceRecorder:
        return self._traces.setdefault(stream, TraceRecorder())

    def _trace(self, stream: str, key: str, windows: list[Window]) -> StoreTrace:
        return StoreTrace(self.machine, stream, self.boot_id, key, tuple(windows))


def problems_of(message: Status) -> str:
    """What is wrong with the stream's sources, in words; empty if nothing is."""
    found = []
    for source in message.sources:
        if source.state not in ("up", message.state):
            found.append(f"{source.source}: {source.state}")
        found += [f"{source.source}: {stall}" for stall in source.stalls]
    return ", ".join(found)
