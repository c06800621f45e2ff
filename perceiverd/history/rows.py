"""What a query of the history returns. Knows no SQL.

Times are in UTC, scores are 0..1. A stream is identified by its machine (the name of its daemon) and its name.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Literal

import msgspec

SpanKind = Literal[
    "starting",
    "up",
    "stalled",
    "backing off",
    "ended",
    "disabled",
    "history off",
    "daemon silent",
    "daemon restarted",
    "messages missed",
    "clock off",
    "not stored",
]
"""What a stretch of time was like.

For one stream: the state of its status. `history off`: the history did not run. `daemon silent`: nothing came from the
daemon. `daemon restarted`: a new run of the daemon began. `messages missed`: published, and not received. `clock off`:
the machine's clock differs from ours. `not stored`: events were received and could not be written.
"""
LISTENING: frozenset[str] = frozenset({"up", "clock off"})
"""The kinds during which events are found and stored. `messages missed` may hide events."""
EventState = Literal["open", "ended", "end not received"]
STATES: tuple[EventState, ...] = ("open", "ended", "end not received")


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored of an event and never searched."""

    start_s: float
    """Its start in seconds of stream time."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` its windows had."""
    on: float
    """The threshold at which it began."""
    off: float
    """The threshold below which it faded."""
    since: datetime
    """End of the first window whose smoothed score was at or above `on`."""
    began: str
    """Why it began; empty if its beginning was not received."""
    begin_score: float | None = None
    """The smoothed score at its beginning; None if that was not received."""
    score: float = 0.0
    """The smoothed score at its last message."""
    windows: int = 0
    """How many windows confirmed it."""
    ended: str = ""
    """Why it ended; empty if it is open or its end was not received."""
    continues: str | None = None
    """The key of the event that it continues; None for none."""
    snapshot: str | None = None
    """The file with its picture on the daemon's machine; None for none."""
    clip: str | None = None
    """The file with its clip on the daemon's machine; None for none."""
    withheld: str | None = None
    """Why its media is not kept although it is wanted: `speech` or `unjudged`; None if nothing is withheld."""


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event."""

    id: int
    """Its number in this history."""
    machine: str
    stream: str
    key: str
    """Its id in the daemon's messages. After a reboot the daemon may use it again."""
    boot_id: str
    """The run of the daemon that published it."""
    mid: str
    name: str
    """The label."""
    start: datetime
    end: datetime
    """Of its last confirmed window. It grows while the event is open."""
    state: EventState
    peak: float
    mean: float
    details: Details

    @property
    def duration_s(self) -> float:
        """Seconds from `start` to `end`."""
        return (self.end - self.start).total_seconds()


class Cursor(msgspec.Struct, frozen=True):
    """A place in a list of events, newest first: the page that follows begins after this event."""

    start_ms: int
    id: int

    def __str__(self) -> str:
        return f"{self.start_ms}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """From its text. Raises ValueError."""
        start_ms, found, number = text.rpartition("-")
        if not found:
            raise ValueError(f"expected TIME-NUMBER, not {text!r}")
        return cls(int(start_ms), int(number))


class EventPage(msgspec.Struct, frozen=True):
    """Some events, the newest first."""

    events: tuple[StoredEvent, ...]
    next: Cursor | None
    """Where the next page begins; None after the last event."""


class EventTimeLine(msgspec.Struct, frozen=True):
    """All events that overlap a stretch of time, by their start: one entry of each list for each event."""

    ids: tuple[int, ...]
    """Numbers of the events."""
    streams: tuple[int, ...]
    """Index into `names`."""
    labels: tuple[int, ...]
    """Index into `label_names`."""
    start_ms: tuple[int, ...]
    """Milliseconds since 1970 in UTC."""
    end_ms: tuple[int, ...]
    """The same for the ends."""
    peaks: tuple[float, ...]
    """The highest scores."""
    names: tuple[str, ...]
    """`machine/stream`."""
    label_names: tuple[str, ...]
    """Names of the labels."""
    complete: bool
    """False if there were more events than the limit; then the last ones are missing."""


class HeatMap(msgspec.Struct, frozen=True):
    """The scores of some labels of one stream, by minute."""

    start: datetime
    """The first minute."""
    minutes: int
    windows: tuple[int, ...]
    """(minutes,): how many windows were received in each minute. 0: nothing was listening, or nothing was received."""
    mids: tuple[str, ...]
    names: tuple[str, ...]
    """(labels,): those with the highest scores, the highest first."""
    best: tuple[tuple[float, ...], ...]
    """(labels, minutes): the highest score in a window of the minute; 0 if the label was not among the best."""
    mean: tuple[tuple[float, ...], ...]
    """(labels, minutes): the mean over the windows of the minute. A window whose message did not list the label counts
    as 0."""


class SpanRow(msgspec.Struct, frozen=True):
    """A stretch of time in which a stream, or all streams of a machine, had a state."""

    machine: str
    """The name of the daemon."""
    stream: str | None
    """None for all streams of the machine."""
    kind: str
    """A `SpanKind`."""
    start: datetime
    """When it began."""
    end: datetime | None
    """None while it lasts."""
    missed: int = 0
    """Messages that were not received, or events that were not stored."""
    what: str = ""
    """More about it, in words."""


class TraceWindow(msgspec.Struct, frozen=True):
    """The best scores of one window near an event."""

    end: datetime
    """The end of the window."""
    scores: dict[str, float]
    """By mid. Labels that the message did not list, or below the floor of the store, are missing."""


class MachineRow(msgspec.Struct, frozen=True):
    """A daemon."""

    name: str
    endpoint: str
    seen: datetime | None
    """When its last message was received."""
    offset_s: float | None
    """How far its clock is ahead of the clock of the history's machine; None if unknown."""


class RunRow(msgspec.Struct, frozen=True):
    """One run of a daemon, from its start to its end."""

    machine: str
    boot_id: str
    version: str
    model: str
    sha256: str
    up_since: datetime
    first: datetime
    """When its first and last messages were received."""
    last: datetime


class StreamRow(msgspec.Struct, frozen=True):
    """A stream."""

    machine: str
    name: str
    last: datetime | None
    """Start of its last event."""

    @property
    def full_name(self) -> str:
        """`machine/stream`."""
        return f"{self.machine}/{self.name}"


class LabelTally(msgspec.Struct, frozen=True):
    """How often one label had an event."""

    mid: str
    """The label's key."""
    name: str
    """The label's name."""
    events: int
    """How many."""
    seconds: float
    """All their durations together."""
    peak: float
    """The highest score of all."""
    last: datetime
    """The start of the last one."""


class Statistics(msgspec.Struct, frozen=True):
    """How many events began, by several measures. Hours and days are those of a time zone."""

    events: int
    """All together."""
    by_label: tuple[LabelTally, ...]
    """The most frequent first."""
    by_stream: dict[str, int]
    """By `machine/stream`, the most frequent first."""
    by_hour: tuple[int, ...]
    """24 counts."""
    by_weekday: tuple[int, ...]
    """7 counts, from Monday."""
    by_day: dict[date, int]
    """In order; days without events are missing."""


def from_ms(time_ms: int) -> datetime:
    """A stored time in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def to_ms(time: datetime) -> int:
    """The stored form of a time, which has a time zone."""
    return round(time.timestamp() * 1000)


def to_pm(score: float) -> int:
    """The stored form of a score."""
    return round(score * 1000)
