"""The wire: what is said, under which topic. Values in, bytes out; it knows no socket and no clock.

Every message travels as two parts, `[topic, JSON]`. The JSON's keys are the fields below, `type` says which struct.
Topics end in a slash, because ZeroMQ subscribes to prefixes: `scores/cam1/` must not match `scores/cam10/`.
Readers ignore keys they don't know; `schema` grows when a key changes its meaning or goes away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from perceiverd.core.errors import WireError
from perceiverd.core.labels import Label

if TYPE_CHECKING:  # a client, which only reads, needs no numpy
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1

Utc = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time of day, as RFC 3339 in UTC."""


class Model(msgspec.Struct, frozen=True):
    """Whose scores these are."""

    name: str
    sha256: str
    """Of the weights."""


class Tag(msgspec.Struct, frozen=True):
    """One label with its score."""

    mid: str
    """AudioSet's machine id, or `k700/...` for Kinetics': the key of a label."""
    index: int
    """Its place among the model's outputs."""
    name: str
    score: float
    """Probability that the label holds in the window, 0..1."""


def best(scores: NDArray[np.floating], labels: Sequence[Label], top: int) -> tuple[Tag, ...]:
    """The `top` best labels, or all where there are fewer; equal scores in the order of the labels.

    A score is rounded to 6 decimals: float32 holds no more.
    """
    order = (-scores).argsort(kind="stable")[:top]
    return tuple(Tag(labels[i].mid, labels[i].index, labels[i].name, round(float(scores[i]), 6)) for i in order)


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Who speaks: said at the start and to every new subscriber."""

    version: str
    """Of perceiverd."""
    streams: tuple[str, ...]
    model: Model
    hop_s: float
    """Seconds from the start of one window to the start of the next."""
    status_interval_s: float
    """Seconds between two statuses of a stream; three of them without one is silence."""
    up_since: Utc
    boot_id: str = ""
    seq: int = 0
    repeated: bool = False
    """True where it is said again, under its first `seq`, for somebody who came late."""
    schema: int = SCHEMA
    disabled: tuple[str, ...] = ()
    """Streams that are configured and switched off; nothing is said of them but their status."""


class Scores(msgspec.Struct, frozen=True, tag="scores"):
    """What the model makes of one window of one stream."""

    stream: str
    start: Utc
    """Capture time of the window's beginning."""
    end: Utc
    start_s: float
    """The same in seconds of stream time, which begins with the first media since boot and never jumps."""
    end_s: float
    latency_ms: float
    """From the capture of the window's end to the publishing of this message."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` the model was given; what was missing was masked, not replaced by zeros."""
    model: Model
    labels: tuple[Tag, ...]
    """Best first."""
    dropped: int
    """Windows of this stream overtaken by newer ones, and so not tagged, since the last message."""
    skew_ms: float | None = None
    """How much later (negative: earlier) its pictures were taken than the sound they stand beside, on average over the
    model's ticks, by the clocks of their sources; null where it has only one of them."""
    skew_most_ms: float | None = None
    """The same at the tick where it is furthest from 0."""
    boot_id: str = ""
    """New with every start of the daemon; `seq` begins anew with it."""
    seq: int = 0
    """Counts the messages of this topic without a gap."""
    schema: int = SCHEMA


class SourceStatus(msgspec.Struct, frozen=True):
    """How one source of a stream is."""

    source: str
    """What it opens: a path, a URL, a device; without passwords."""
    state: str
    """`starting`, `up`, `stalled`, `backing off`, `ended` or `disabled`."""
    data_age_s: float | None
    """Seconds since its last frame or chunk arrived; None before the first."""
    restarts: dict[str, int]
    """How often it was started again, by reason, since boot."""
    dropped: int
    """Frames and chunks that found no room on their way, since boot."""
    stalls: tuple[str, ...] = ()
    """What of it comes and yet is nothing, and so counts as missing: `frozen picture`, `dead silence`."""
    drift_ppm: float | None = None
    """By how many millionths its device's clock runs fast (negative: slow); null where that isn't known."""
    jitter_ms: float | None = None
    """How late its readings come on average; null where it isn't measured."""
    steps: int = 0
    """Sudden steps of its device's clock since boot, a gap each, and `overflows`."""
    snapshots: int = 0
    """Snapshots that were put on disk, since boot."""
    snapshots_failed: int = 0
    """Snapshots that were asked for in vain, since boot: the log says why."""
    overflows: int = 0
    """How often sound was lost since boot because this machine was too slow to take it; counted in `steps` too."""


class Delivery(msgspec.Struct, frozen=True):
    """How what is published fares. The publisher fills it in."""

    subscribers: int = 0
    """Those that are there and report what they miss, as `perceiverd.client` does."""
    missed: int = 0
    """Messages that subscribers have reported as missed, since boot."""
    losing: dict[str, int] = {}
    """What those who are there have missed, by name, the most first; ten at most."""
    overflows: int = 0
    """How often since boot a subscriber's queue was found full. What it then lost it can tell from `seq` alone."""
    sent: dict[str, int] = {}
    """How many messages were sent under `scores/STREAM/`, `events/STREAM/` and so on before this one, which is to say
    the `seq` of the next one of each."""


class Status(msgspec.Struct, frozen=True, tag="status"):
    """How a stream is: a heartbeat, told at every interval whatever happens."""

    stream: str
    time: Utc
    state: str
    """The worst of its sources' states; `ended` when all of them have, `disabled` where it is switched off."""
    sources: tuple[SourceStatus, ...]
    data_age_s: float | None
    """Seconds since the stream's last frame or chunk arrived; None before the first."""
    windows: int
    """Windows tagged since boot."""
    dropped: int
    """Windows overtaken by newer ones since boot."""
    late: int
    """Frames and chunks refused because their time had passed, since boot."""
    gaps: int
    """Times the stream's line was torn since boot."""
    subscriptions: int
    """Subscriptions in force at the publisher, over all topics; one subscriber may hold several."""
    up_since: Utc
    """When the daemon started."""
    model: Model
    hop_s: float | None = None
    """Seconds from one tagged window to the next lately: the hop, stretched where windows had to be dropped; null
    before the first."""
    skew_ms: float | None = None
    """Of its last window, as in `Scores`."""
    skew_most_ms: float | None = None
    level_dbfs: float | None = None
    """Root mean square of its last window's sound in dB of full scale, -120 at the least; null where it had none."""
    delivery: Delivery = Delivery()
    boot_id: str = ""
    seq: int = 0
    repeated: bool = False
    """As in `Hello`."""
    schema: int = SCHEMA


class Explanation(msgspec.Struct, frozen=True):
    """Why an event begins, goes on or ends."""

    score: float
    """The label's score, smoothed over time, with the window that brought the message."""
    on: float
    """The threshold from which on it may begin."""
    off: float
    """The lower one below which it fades."""
    windows: int
    """How many windows confirm it so far."""
    since: Utc
    """When its smoothed score was first found at or above `on`: the end of its first window."""
    reason: str
    """`confirmed`, `split` (it goes on from an event that had lasted as long as one may), `goes on`, `faded`,
    `subsumed` (an event of a label below it in the ontology took its place), `stream lost`, `stream ended`, `gap` (no
    window for too long, or the machine was suspended), `maximum duration`, `stopped` or `reload`."""


class Event(msgspec.Struct, frozen=True, tag="event"):
    """A label that begins, goes on or ends; all messages of one event have its `id`."""

    stream: str
    kind: Literal["begin", "update", "end"]
    id: str
    """The same from begin to end, and no other event of this stream has it."""
    mid: str
    index: int
    name: str
    start: Utc
    """Capture time of the beginning of its first window."""
    end: Utc
    """Capture time of the end of the last window that confirms it; it grows until the `end`."""
    start_s: float
    """The same in seconds of stream time."""
    end_s: float
    duration_s: float
    """From `start` to `end`."""
    peak: float
    """The highest score of the label, or of a label below it in the ontology, in a window of the event."""
    mean: float
    """The mean of these scores over the windows that confirm it."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` its windows had."""
    continues: str | None
    """The id of the event that had lasted as long as one may, and that goes on in this one."""
    explanation: Explanation
    latency_ms: float
    """From the capture of the end of the window that brought this to the publishing of this message."""
    model: Model
    snapshot: str | None = None
    """The file of a picture of its beginning, on the daemon's machine; null where none was asked for. It is there soon
    after the `begin`, unless the disk was full, which the status counts; and it goes when it is old."""
    boot_id: str = ""
    seq: int = 0
    repeated: bool = False
    """True where it is said again, under its first `seq`, for somebody who came late: the event is open."""
    schema: int = SCHEMA


class Candidate(msgspec.Struct, frozen=True):
    """A label that has an event, or might have had one, and why it has none."""

    mid: str
    index: int
    name: str
    score: float
    """In this window: the label's own, or that of its surest label below."""
    surest: str | None
    """The mid of the label below whose score that is; None where it is its own."""
    smoothed: float
    on: float
    off: float
    state: str
    """`open`, `fading` (open, its score below `off`), `holding` (at or above `on`, not yet for long enough),
    `subsumed`, `cool-down`, `denied`, `not allowed`, `below on` or `quiet` (below `off`)."""
    reason: str
    """The same as half a sentence, with its numbers."""
    windows: int
    """How many windows confirm the event, or what may become one."""
    event: str | None
    """The id of its open event."""


class Explain(msgspec.Struct, frozen=True, tag="explain"):
    """What every label lacks for an event, window by window; told only while somebody has subscribed to it."""

    stream: str
    start: Utc
    """The window, as in `Scores`."""
    end: Utc
    start_s: float
    end_s: float
    candidates: tuple[Candidate, ...]
    """The labels at or above their `off`, and the best in any case; the highest smoothed score first."""
    smoothed: tuple[float, ...]
    """The smoothed scores of all labels, in the order of the model."""
    on: tuple[float, ...]
    """The thresholds of all labels, in the same order."""
    suppressed: dict[str, int]
    """How often since boot a label had no event, or none of its own, by reason: `below on`, `too short`, `merged`,
    `subsumed`, `cool-down`, `denied`, `not allowed`. A label that is held down for hours counts once."""
    model: Model
    boot_id: str = ""
    seq: int = 0
    schema: int = SCHEMA


Message = Hello | Scores | Status | Event | Explain


class _Version(msgspec.Struct):
    """Read before the rest, which another schema may shape differently."""

    schema: int


_encoder = msgspec.json.Encoder()
_version_decoder = msgspec.json.Decoder(_Version)
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)

HELLO = "hello/"


def scores_topic(stream: str) -> str:
    """What to subscribe to for a stream's scores."""
    return f"scores/{stream}/"


def status_topic(stream: str) -> str:
    """What to subscribe to for a stream's heartbeat."""
    return f"status/{stream}/"


def events_topic(stream: str) -> str:
    """What to subscribe to for a stream's events."""
    return f"events/{stream}/"


def explain_topic(stream: str) -> str:
    """What to subscribe to for the reasons why a stream's labels have events or none."""
    return f"explain/{stream}/"


def topic(message: Message) -> str:
    """The topic under which a message travels."""
    match message:
        case Hello():
            return HELLO
        case Scores():
            return scores_topic(message.stream)
        case Status():
            return status_topic(message.stream)
        case Event():
            return events_topic(message.stream)
        case Explain():
            return explain_topic(message.stream)


def cache_key(message: Message) -> tuple[str, str] | None:
    """Under which key a message is a last value, kept for those who come late; None for what is true only once.

    The message of an event that goes on replaces the one before it. One that `clears` its key is not kept.
    """
    match message:
        case Hello() | Status():
            return topic(message), ""
        case Event():
            return topic(message), message.id
        case Scores() | Explain():
            return None


def clears(message: Message) -> bool:
    """Whether what was kept under this message's key is over with it: an event that has ended."""
    return isinstance(message, Event) and message.kind == "end"


def encode(message: Message) -> list[bytes]:
    """The parts of the message on the wire."""
    return [topic(message).encode(), _encoder.encode(message)]


def decode(parts: list[bytes]) -> Message:
    """The message that came. Raises WireError where it is none of ours, or of a schema this code can't read."""
    if len(parts) != 2:
        raise WireError(f"a message of {len(parts)} parts; perceiverd's have two, topic and JSON")
    heading, body = parts
    try:
        version = _version_decoder.decode(body)
        if version.schema != SCHEMA:
            raise WireError(f"a message of schema {version.schema}; this version reads {SCHEMA}: update the older side")
        message = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"a message under {heading[:80]!r} is not perceiverd's: {error}") from error
    if heading != topic(message).encode():
        raise WireError(f"a message of {topic(message)} came under {heading[:80]!r}")
    return message
