"""The messages and their topics. Knows no socket, no clock and no bytes (`codec` does).

The keys of a message's JSON are the fields below, and `type` names the struct.
Topics end in a slash because ZeroMQ subscribes to prefixes: `scores/cam1/` must not match `scores/cam10/`.
Readers ignore unknown keys. `schema` increases when a key changes its meaning or is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from perceiverd.core.labels import Label

if TYPE_CHECKING:  # a client only reads messages and needs no numpy
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1

Utc = Annotated[datetime, msgspec.Meta(tz=True)]
"""A date and time, in RFC 3339 and UTC."""


class Model(msgspec.Struct, frozen=True):
    """The model that made the scores."""

    name: str
    """The name of the model."""
    sha256: str
    """Checksum of the weights, in hexadecimal."""


class Tag(msgspec.Struct, frozen=True):
    """One label with its score."""

    mid: str
    """The label's key: AudioSet's machine id, or `k700/...` for a label of Kinetics-700."""
    index: int
    """Its index among the model's outputs."""
    name: str
    """The label's name."""
    score: float
    """Probability that the label applies to the window, 0..1."""


def best(scores: NDArray[np.floating], labels: Sequence[Label], top: int) -> tuple[Tag, ...]:
    """The `top` best labels, or all if there are fewer. Equal scores keep the order of the labels.

    `scores` has one entry for each label. Scores are rounded to 6 decimals, because float32 has no more.
    """
    order = (-scores).argsort(kind="stable")[:top]
    return tuple(Tag(labels[i].mid, labels[i].index, labels[i].name, round(float(scores[i]), 6)) for i in order)


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """Describes the daemon. Published at start, after a reload that changes it, and to every new subscriber."""

    version: str
    """Version of perceiverd."""
    streams: tuple[str, ...]
    """Streams that are watched."""
    model: Model
    hop_s: float
    """Seconds between the starts of two consecutive windows."""
    status_interval_s: float
    """Seconds between two statuses of a stream. After three intervals without a message the daemon counts as stale."""
    up_since: Utc
    """When the daemon started."""
    boot_id: str = ""
    """Identifies one run of the daemon. After a restart it changes, and every `seq` starts again at 0."""
    seq: int = 0
    """Number of the message within its topic, without gaps, from 0."""
    repeated: bool = False
    """True if this is a repetition, with its original `seq`, for a new subscriber."""
    schema: int = SCHEMA
    """Version of the message format."""
    disabled: tuple[str, ...] = ()
    """Streams that are configured but disabled. Only their status is published."""


class Scores(msgspec.Struct, frozen=True, kw_only=True, tag="scores"):
    """The model's scores for one window of one stream."""

    stream: str
    """The name of the stream."""
    start: Utc
    """Capture time of the start of the window."""
    end: Utc
    """Capture time of the end of the window."""
    start_s: float
    """Start of the window in seconds of stream time. That begins with the first media since boot and never jumps."""
    end_s: float
    """End of the window in seconds of stream time."""
    latency_ms: float
    """Milliseconds from the capture of the window's end to the publication of this message."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` the model received. A missing one was masked, not replaced by zeros."""
    model: Model
    labels: tuple[Tag, ...]
    """Labels with their scores, the highest score first."""
    dropped: int
    """Windows that were not tagged since the last message: newer ones replaced them, or the machine was suspended."""
    skew_ms: float | None = None
    """How much later the video frames were captured than the audio beside them, in ms, by the sources' clocks. Negative
    if earlier. Mean over the model's ticks; null if the window has only one modality."""
    skew_most_ms: float | None = None
    """The skew at the tick where it is furthest from 0."""
    filled_ms: dict[str, float] = {}
    """Milliseconds of `audio` and `video` that were missing in the window and were filled from the media beside them.
    Media without holes is not listed."""
    missing: dict[str, str] = {}
    """Why the window lacks `audio` or `video`: `no track` (nothing of it has ever come), `hole` (too much of it is
    missing, or its source was restarted or its clock jumped), `late` (it did not come in time)."""
    boot_id: str = ""
    """As in `Hello`."""
    seq: int = 0
    """As in `Hello`."""
    schema: int = SCHEMA
    """As in `Hello`."""


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one source of a stream."""

    source: str
    """The path, URL or device that it opens, without passwords."""
    state: str
    """`starting`, `up`, `stalled`, `backing off`, `ended` or `disabled`."""
    data_age_s: float | None
    """Seconds since its last frame or chunk arrived; null before the first."""
    restarts: dict[str, int]
    """How often it was restarted since boot, by reason."""
    dropped: int
    """Frames and chunks dropped because a queue was full, since boot."""
    stalls: tuple[str, ...] = ()
    """Media that arrives but counts as missing: `frozen picture` (frozen video), `dead silence` (dead audio)."""
    drift_ppm: float | None = None
    """How fast its device's clock runs, in parts per million; negative if it runs slow, null if unknown."""
    jitter_ms: float | None = None
    """Mean delay of its clock readings in ms; null if it is not measured."""
    steps: int = 0
    """Sudden steps of its device's clock since boot, with a gap at each. Includes `overflows`."""
    snapshots: int = 0
    """Snapshots written to disk since boot."""
    snapshots_failed: int = 0
    """Snapshots, and files of recent sound, that failed since boot. The log has the reasons."""
    overflows: int = 0
    """How often audio was lost since boot because this machine was too slow to read it. Also counted in `steps`."""
    waiting_for: str = ""
    """What it waits for, if that is no fault, such as a program that writes into a pipe; otherwise empty."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How well messages reach their subscribers. The publisher fills it in."""

    subscribers: int = 0
    """Connected subscribers that report their losses, as `perceiverd.wire.subscribe` does."""
    missed: int = 0
    """Messages that subscribers reported as missed since boot."""
    losing: dict[str, int] = {}
    """Messages missed by connected subscribers, by name, the largest count first; at most ten."""
    overflows: int = 0
    """How often a subscriber's queue was found full since boot. Only `seq` shows the subscriber what it then lost."""
    sent: dict[str, int] = {}
    """How many messages each topic had before this one (`scores/STREAM/` and so on): the `seq` of its next message."""


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """The state of a stream. It is also the heartbeat: published at every interval, whatever happens."""

    stream: str
    """The name of the stream."""
    time: Utc
    """When this message was made."""
    state: str
    """The worst of its sources' states; `ended` if all of them have ended, `disabled` if the stream is disabled."""
    sources: tuple[SourceStatus, ...]
    data_age_s: float | None
    """Seconds since the stream's last frame or chunk arrived; null before the first."""
    windows: int
    """Windows tagged since boot."""
    dropped: int
    """Windows that were not tagged, since boot: newer ones replaced them, or the machine was suspended."""
    late: int
    """Frames and chunks dropped since boot because they arrived after their window."""
    gaps: int
    """Gaps in the stream's media since boot."""
    subscriptions: int
    """Subscriptions at the publisher, to all topics; one subscriber may have several."""
    up_since: Utc
    """When the daemon started."""
    model: Model
    hop_s: float | None = None
    """Recent seconds between two tagged windows: longer if windows were dropped; null before the first window."""
    skew_ms: float | None = None
    """As in `Scores`, for its last window."""
    skew_most_ms: float | None = None
    """As in `Scores`, for its last window."""
    level_dbfs: float | None = None
    """Audio level (RMS) of its last window in dB of full scale, at least -120; null if it had no audio."""
    filled_s: dict[str, float] = {}
    """Seconds of `audio` and `video` that were missing and were filled, since boot."""
    missing: dict[str, dict[str, int]] = {}
    """Windows without `audio` or `video` since boot, by reason, as in `Scores`."""
    recent_sound: str | None = None
    """The folder of recent sound on the daemon's machine, which has a folder for each stream; null if none is kept."""
    recent_s: dict[str, float] = {}
    """Seconds of recent sound since boot: `written`; or not written because of `speech`, because the time had no scores
    (`unjudged`), or because no source ran (`no source`)."""
    delivery: Delivery = Delivery()
    boot_id: str = ""
    """As in `Hello`."""
    seq: int = 0
    """As in `Hello`."""
    repeated: bool = False
    """As in `Hello`."""
    schema: int = SCHEMA
    """As in `Hello`."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why an event begins, continues or ends."""

    score: float
    """The label's score, smoothed over time, at the window that caused this message."""
    on: float
    """Threshold at or above which an event may begin."""
    off: float
    """Lower threshold. Below it the event fades."""
    windows: int
    """How many windows have confirmed the event so far."""
    since: Utc
    """End of the first window in which the smoothed score was at or above `on`."""
    reason: str
    """`confirmed`, `split` (it continues an event that reached the maximum duration), `goes on`, `faded`, `subsumed`
    (an event of a label below it in the ontology replaced it), `stream lost`, `stream ended`, `gap` (no window for too
    long, or the machine was suspended), `maximum duration`, `stopped` or `reload`."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """An event begins, continues or ends: a label was recognised for some time."""

    stream: str
    """The name of the stream."""
    kind: Literal["begin", "update", "end"]
    """`update` repeats an open event from time to time, and `end` is published when the event is over."""
    id: str
    """The same in all messages of one event. No other event of this stream has it."""
    mid: str
    """The label's key."""
    index: int
    """Its index among the model's outputs."""
    name: str
    """The label's name."""
    start: Utc
    """Capture time of the start of its first window."""
    end: Utc
    """Capture time of the end of the last window that confirmed it. It grows until the event ends."""
    start_s: float
    """Its start in seconds of stream time, as in `Scores`."""
    end_s: float
    """Its end in seconds of stream time, as in `Scores`."""
    duration_s: float
    """Seconds from `start` to `end`."""
    peak: float
    """The highest score in its windows, of its label or of a label below it in the ontology."""
    mean: float
    """The mean score over the windows that confirmed it, of the same labels."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` its windows had."""
    continues: str | None
    """The id of the event that this one continues, because that one reached the maximum duration; otherwise null."""
    explanation: Explanation
    latency_ms: float
    """Milliseconds from the capture of the end of the window that caused this message to its publication."""
    model: Model
    snapshot: str | None = None
    """File on the daemon's machine with a picture of the beginning, or of the audio's spectrogram if the stream has no
    video; null if none is kept. It appears soon after `begin`, unless writing fails (the status counts that) or the
    file is withheld (see `withheld`). It is deleted when it is old."""
    clip: str | None = None
    """File beside it with a clip: Matroska with video, or FLAC if the stream has no video; null if none is kept."""
    withheld: str | None = None
    """Why picture and clip are not kept, if `keep_speech` is off: `speech` (speech was likely in the clip's time) or
    `unjudged` (a part of that time has no scores). Null if nothing is withheld, or if this is not known yet."""
    boot_id: str = ""
    """As in `Hello`."""
    seq: int = 0
    """As in `Hello`."""
    repeated: bool = False
    """As in `Hello`; the event is still open."""
    schema: int = SCHEMA
    """As in `Hello`."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A label with an event, or with a score near one, and the reason why it has an event or none."""

    mid: str
    """The label's key."""
    index: int
    """Its index among the model's outputs."""
    name: str
    """The label's name."""
    score: float
    """Its score in this window: its own, or that of the best label below it in the ontology."""
    surest: str | None
    """The mid of the label below it that has this score; null if the score is its own."""
    smoothed: float
    """The score, smoothed over time."""
    on: float
    """As in `Explanation`."""
    off: float
    """As in `Explanation`."""
    state: str
    """`open`, `fading` (open, its score below `off`), `holding` (at or above `on`, but not yet for long enough),
    `subsumed`, `cool-down`, `denied`, `not allowed`, `below on` or `quiet` (below `off`)."""
    reason: str
    """The state in words, with its numbers."""
    windows: int
    """How many windows have confirmed the event, or a possible event."""
    event: str | None
    """The id of its open event; null if it has none."""


class Explain(msgspec.Struct, frozen=True, kw_only=True, tag="explain"):
    """Why each label has an event or none, for one window. Published only while someone subscribes to it."""

    stream: str
    """The name of the stream."""
    start: Utc
    """As in `Scores`."""
    end: Utc
    """As in `Scores`."""
    start_s: float
    """As in `Scores`."""
    end_s: float
    """As in `Scores`."""
    candidates: tuple[Candidate, ...]
    """The labels at or above their `off`, and always the best label; the highest smoothed score first."""
    smoothed: tuple[float, ...]
    """The smoothed scores of all labels, in the order of the model's outputs."""
    on: tuple[float, ...]
    """The thresholds of all labels, in the same order."""
    suppressed: dict[str, int]
    """How often a label got no event of its own since boot, by reason: `below on`, `too short`, `merged`, `subsumed`,
    `cool-down`, `denied`, `not allowed`. A label that is suppressed for hours counts once."""
    model: Model
    filled_ms: dict[str, float] = {}
    """As in `Scores`."""
    missing: dict[str, str] = {}
    """As in `Scores`."""
    reused_frames: int = 0
    """Frames of this window that an earlier window also had, or that show nothing new: their result was reused."""
    boot_id: str = ""
    """As in `Hello`."""
    seq: int = 0
    """As in `Hello`."""
    schema: int = SCHEMA
    """As in `Hello`."""


Message = Hello | Scores | Status | Event | Explain


HELLO = "hello/"


def scores_topic(stream: str) -> str:
    """The topic of a stream's scores."""
    return f"scores/{stream}/"


def status_topic(stream: str) -> str:
    """The topic of a stream's status, its heartbeat."""
    return f"status/{stream}/"


def events_topic(stream: str) -> str:
    """The topic of a stream's events."""
    return f"events/{stream}/"


def explain_topic(stream: str) -> str:
    """The topic of the reasons why a stream's labels have events or none."""
    return f"explain/{stream}/"


def topic(message: Message) -> str:
    """The topic of a message."""
    if isinstance(message, Hello):
        return HELLO
    topics = {Scores: scores_topic, Status: status_topic, Event: events_topic, Explain: explain_topic}
    return topics[type(message)](message.stream)
