"""The wire: what is said, under which topic. Values in, bytes out; it knows no socket and no clock.

Every message travels as two parts, `[topic, JSON]`. The JSON's keys are the fields below, `type` says which struct.
Topics end in a slash, because ZeroMQ subscribes to prefixes: `scores/cam1/` must not match `scores/cam10/`.
Readers ignore keys they don't know; `schema` grows when a key changes its meaning or goes away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec

from perceiverd.errors import WireError
from perceiverd.labels import Label

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
    schema: int = SCHEMA


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
    """`starting`, `up`, `stalled`, `backing off` or `ended`."""
    data_age_s: float | None
    """Seconds since its last frame or chunk arrived; None before the first."""
    restarts: dict[str, int]
    """How often it was started again, by reason, since boot."""
    dropped: int
    """Frames and chunks that found no room on their way, since boot."""


class Status(msgspec.Struct, frozen=True, tag="status"):
    """How a stream is: a heartbeat, told at every interval whatever happens."""

    stream: str
    time: Utc
    state: str
    """The worst of its sources' states; `ended` when all of them have."""
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
    boot_id: str = ""
    seq: int = 0
    schema: int = SCHEMA


Message = Hello | Scores | Status


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


def topic(message: Message) -> str:
    """The topic under which a message travels."""
    match message:
        case Hello():
            return HELLO
        case Scores():
            return scores_topic(message.stream)
        case Status():
            return status_topic(message.stream)


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
