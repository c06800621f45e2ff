"""What the API answers. The JSON has these fields; the OpenAPI document is generated from these structs.

Times are RFC 3339 in UTC, scores are 0..1. Knows no request.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from perceiverd.corrections import Verdict
from perceiverd.history.rows import EventTimeLine, SpanRow

Utc = Annotated[datetime, msgspec.Meta(tz=True)]
Media = Literal["picture", "clip", "sound", "spectrogram"]


class FaultAnswer(msgspec.Struct, frozen=True):
    """Every answer with a status of 400 or above."""

    error: str
    """One sentence: what is wrong, and what to do."""


class SessionAnswer(msgspec.Struct, frozen=True):
    """Whether this browser is signed in."""

    signed_in: bool
    """Also true if the page has no password."""
    password: bool
    """Whether the page has a password."""
    csrf: str
    """Text for the header X-CSRF-Token of POST and DELETE. It is new after signing in and after a restart."""


class MachineAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon."""

    name: str
    """As configured."""
    endpoint: str
    """Where it publishes."""
    seen: Utc | None
    """When its last message was received."""
    silent: bool
    """Nothing is received from it."""
    clock_offset_s: float | None
    """How far its clock is ahead of ours; null if unknown."""
    clock_off: bool
    """Its clock is so far off that times cannot be compared."""
    missed: int
    """Messages that this server missed since its start."""
    model: str | None = None
    """The model's name; null if nothing was received yet."""
    version: str | None = None
    """Of its perceiverd."""
    up_since: Utc | None = None
    """When the daemon started."""
    hop_s: float | None = None
    """Seconds between the starts of two windows."""


class AboutAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What this server is and has."""

    version: str
    """Of perceiverd."""
    now: Utc
    """This server's clock."""
    history: bool
    """There is a history, so that events, days and statistics can be asked for."""
    media: bool
    """There are folders with pictures and clips."""
    corrections: bool
    """Corrections can be sent."""
    teach: bool
    """Examples of a sound can be taken from a live stream."""
    machines: tuple[MachineAnswer, ...]
    """By name."""


class LiveLabelAnswer(msgspec.Struct, frozen=True):
    """A label with its score in the last window."""

    mid: str
    """The label's key."""
    name: str
    """The label's name."""
    score: float
    """Probability that it applies to the window."""


class OpenEventAnswer(msgspec.Struct, frozen=True):
    """An event that has not ended."""

    mid: str
    """The label's key."""
    name: str
    """The label's name."""
    start: Utc
    """When its first window began."""
    score: float
    """Its smoothed score."""


class StreamAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A stream at this moment."""

    machine: str
    """The name of its daemon."""
    stream: str
    """The name of the stream."""
    state: str
    """`starting`, `up`, `stalled`, `backing off`, `ended` or `disabled`; `unknown` before its first status."""
    problem: str | None
    """What is wrong, in words; null if nothing is."""
    detail: str
    """Its sources and their states, in words."""
    since: Utc | None
    """Since when it has this state, as far as this server knows."""
    level_dbfs: float | None
    """Audio level in dB of full scale; null without audio."""
    skew_ms: float | None
    """How much later frames were captured than the audio beside them."""
    latency_ms: float | None
    """From the end of the last window to the publication of its scores."""
    dropped: int
    """Windows that were not tagged since the daemon's start."""
    filled_ms: dict[str, float]
    """By modality: milliseconds of the last window that were missing and were filled."""
    missing: dict[str, str]
    """By modality: why the last window lacks it."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` the last window had."""
    window_end: Utc | None
    """When the last window ended."""
    labels: tuple[LiveLabelAnswer, ...]
    """Of the last window, the highest score first."""
    open_events: tuple[OpenEventAnswer, ...]
    """The one that began first is first."""
    stale: bool
    """Its machine is silent: everything here is old."""


class StreamsAnswer(msgspec.Struct, frozen=True):
    """All streams, by machine and name."""

    streams: tuple[StreamAnswer, ...]
    """All of them."""


class HeatRowAnswer(msgspec.Struct, frozen=True):
    """One label of a heat map."""

    mid: str
    """The label's key."""
    name: str
    """The label's name."""
    largest: tuple[float | None, ...]
    """By minute: the highest score; null: nothing was listening."""
    mean: tuple[float | None, ...]
    """By minute: the mean score; null as above."""


class HeatAnswer(msgspec.Struct, frozen=True):
    """The scores of one stream by minute."""

    minutes: tuple[Utc, ...]
    """The start of each minute."""
    windows: tuple[int, ...]
    """How many windows each minute had."""
    rows: tuple[HeatRowAnswer, ...]
    """The label with the highest scores first."""


class EventAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a stream."""

    id: int | None
    """Its number in the history; null in the live stream as long as it is not known."""
    machine: str
    """The name of its daemon."""
    stream: str
    """The name of the stream."""
    key: str
    """Its id in the daemon's messages."""
    mid: str
    """The label's key."""
    name: str
    """The label's name."""
    start: Utc
    """When its first window began."""
    end: Utc
    """When the last window ended that confirmed it."""
    state: Literal["open", "ended", "end not received"]
    """`end not received`: its end was missed."""
    peak: float
    """The highest score."""
    mean: float
    """The mean score."""
    picture: bool
    """There is a picture of the beginning."""
    clip: bool
    """There is a clip with video."""
    sound: bool
    """There is its sound."""
    spectrogram: bool
    """There is a picture of its sound."""
    withheld: str | None
    """Why pictures and sound are not kept: `speech` or `unjudged`; null if nothing is withheld."""
    verdict: Verdict | None
    """What the last correction says of it."""


class EventsAnswer(msgspec.Struct, frozen=True):
    """A page of events, the newest first."""

    events: tuple[EventAnswer, ...]
    """At most `limit`."""
    next: str | None
    """`cursor` of the next page; null after the last event."""


class EventDetailsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Why an event began and ended."""

    start_s: float
    """Its start in seconds of stream time."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` its windows had."""
    on: float
    """The threshold at which it began."""
    off: float
    """The threshold below which it faded."""
    since: Utc
    """End of the first window whose smoothed score was at or above `on`."""
    began: str
    """Why it began; empty if that was not received."""
    begin_score: float | None
    """The smoothed score at its beginning."""
    score: float
    """The smoothed score at its last message."""
    windows: int
    """How many windows confirmed it."""
    ended: str
    """Why it ended; empty if it is open or its end was not received."""
    continues: str | None
    """The key of the event that it continues."""


class TraceAnswer(msgspec.Struct, frozen=True):
    """The scores of one window near the event."""

    end: Utc
    """The end of the window."""
    scores: dict[str, float]
    """By mid."""


class EventPageAnswer(EventAnswer, frozen=True, kw_only=True):
    """One event with all that is known of it."""

    details: EventDetailsAnswer
    """Its reasons."""
    trace: tuple[TraceAnswer, ...]
    """Around its beginning and its end."""
    labels: dict[str, str]
    """The names of the labels in `trace`, by mid."""
    previous: int | None
    """The event before it on the same stream."""
    next: int | None
    """The event after it on the same stream."""


class DayAnswer(msgspec.Struct, frozen=True):
    """A day of all streams."""

    start: Utc
    """Midnight of the zone."""
    end: Utc
    """The next midnight."""
    time_line: EventTimeLine
    """The day's events."""
    spans: tuple[SpanRow, ...]
    """States, gaps and restarts that overlap the day."""
    windows_start: Utc
    """The first hour of `windows`."""
    windows: dict[str, tuple[int, ...]]
    """By `machine/stream`: windows in each hour; 0 is `not listening`."""


class FoundLabelAnswer(msgspec.Struct, frozen=True):
    """A label."""

    mid: str
    """The label's key."""
    name: str
    """The label's name."""


class FoundLabelsAnswer(msgspec.Struct, frozen=True):
    """Labels that match; those in the history first."""

    labels: tuple[FoundLabelAnswer, ...]
    """At most `limit`."""


class CorrectionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a user said about an event or a time."""

    id: str
    """16 hexadecimal digits."""
    at: Utc
    """When it was said."""
    verdict: Verdict
    """`missed`: there was no event. `example`: a sound to be learnt."""
    machine: str
    """The name of its daemon."""
    stream: str
    """The name of the stream."""
    mid: str
    """The label's key."""
    name: str
    """The label's name."""
    start: Utc
    """Of the event, or of the time that was marked."""
    end: Utc
    """The end of that."""
    event: str | None
    """The key of the event; null if it is about a time."""
    sound: bool
    """Its sound was kept, so that training can use it."""
    why: str | None
    """Why no sound was kept."""


class CorrectionsAnswer(msgspec.Struct, frozen=True):
    """All corrections, the newest first."""

    corrections: tuple[CorrectionAnswer, ...]
    """All of them."""


class StoredCorrectionAnswer(msgspec.Struct, frozen=True):
    """A correction was stored."""

    id: str
    """Of the correction."""
    sound: bool
    """Its sound was kept."""
    why: str | None
    """Why no sound was kept."""
