"""The wire: messages to bytes and back, and what is refused."""

import json
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from perceiverd.core.errors import WireError
from perceiverd.core.labels import Label
from perceiverd.wire import messages
from perceiverd.wire.messages import (
    Candidate,
    Event,
    Explain,
    Explanation,
    Hello,
    Message,
    Model,
    Scores,
    SourceStatus,
    Status,
    Tag,
    best,
)

LABELS = (Label(0, "/m/a", "Animal"), Label(1, "/m/b", "Bow, wow"), Label(2, "/m/c", "Cat"))
WHEN = datetime(2026, 7, 1, 12, 0, 0, 250_000, tzinfo=UTC)
MODEL = Model("tiny", "ab" * 32)
SCORES = Scores(
    stream="door",
    start=WHEN,
    end=WHEN,
    start_s=1.5,
    end_s=2.78,
    latency_ms=140.5,
    modalities=("audio", "video"),
    model=MODEL,
    labels=(Tag("/m/0bt9lr", 74, "Dog", 0.875), Tag("/m/05tny_", 75, "Bark", 0.5)),
    dropped=2,
    boot_id="b",
    seq=7,
)
STATUS = Status(
    stream="door",
    time=WHEN,
    state="up",
    sources=(SourceStatus("a.mp4", "up", 0.02, {"stalled": 1}, 0),),
    data_age_s=None,
    windows=3,
    dropped=1,
    late=0,
    gaps=2,
    subscriptions=1,
    up_since=WHEN,
    model=MODEL,
)
HELLO = Hello(version="1", streams=("door",), model=MODEL, hop_s=0.5, status_interval_s=1.0, up_since=WHEN)


EVENT = Event(
    stream="door",
    kind="begin",
    id="74-1500",
    mid="/m/0bt9lr",
    index=74,
    name="Dog",
    start=WHEN,
    end=WHEN,
    start_s=1.5,
    end_s=3.28,
    duration_s=1.78,
    peak=0.875,
    mean=0.75,
    modalities=("audio",),
    continues=None,
    explanation=Explanation(0.625, 0.5, 0.25, 2, WHEN, "confirmed"),
    latency_ms=140.5,
    model=MODEL,
    seq=3,
)
EXPLAIN = Explain(
    stream="door",
    start=WHEN,
    end=WHEN,
    start_s=1.5,
    end_s=2.78,
    candidates=(
        Candidate("/m/0bt9lr", 74, "Dog", 0.9, "/m/05tny_", 0.6, 0.5, 0.25, "holding", "for 0 of 1 s", 1, None),
    ),
    smoothed=(0.1, 0.6),
    on=(0.5, 0.5),
    suppressed={"too short": 1},
    model=MODEL,
)


@pytest.mark.parametrize("message", [SCORES, STATUS, HELLO, EVENT, EXPLAIN])
def test_what_is_encoded_is_decoded(message: Message) -> None:
    """Bytes and back is the same value."""
    assert messages.decode(messages.encode(message)) == message


def test_scores_on_the_wire() -> None:
    """A program without this package finds plain JSON, times in UTC, labels best first."""
    topic, body = messages.encode(SCORES)
    assert topic == b"scores/door/"
    assert json.loads(body) == {
        "type": "scores",
        "schema": 1,
        "boot_id": "b",
        "seq": 7,
        "stream": "door",
        "start": "2026-07-01T12:00:00.250000Z",
        "end": "2026-07-01T12:00:00.250000Z",
        "start_s": 1.5,
        "end_s": 2.78,
        "latency_ms": 140.5,
        "modalities": ["audio", "video"],
        "model": {"name": "tiny", "sha256": "ab" * 32},
        "labels": [
            {"mid": "/m/0bt9lr", "index": 74, "name": "Dog", "score": 0.875},
            {"mid": "/m/05tny_", "index": 75, "name": "Bark", "score": 0.5},
        ],
        "dropped": 2,
        "skew_ms": None,
        "skew_most_ms": None,
    }


def test_an_event_on_the_wire() -> None:
    """A program without this package finds who, when, how sure and why in plain JSON."""
    topic, body = messages.encode(EVENT)
    assert topic == b"events/door/"
    assert json.loads(body) == {
        "type": "event",
        "schema": 1,
        "boot_id": "",
        "seq": 3,
        "repeated": False,
        "stream": "door",
        "kind": "begin",
        "id": "74-1500",
        "mid": "/m/0bt9lr",
        "index": 74,
        "name": "Dog",
        "start": "2026-07-01T12:00:00.250000Z",
        "end": "2026-07-01T12:00:00.250000Z",
        "start_s": 1.5,
        "end_s": 3.28,
        "duration_s": 1.78,
        "peak": 0.875,
        "mean": 0.75,
        "modalities": ["audio"],
        "continues": None,
        "explanation": {
            "score": 0.625,
            "on": 0.5,
            "off": 0.25,
            "windows": 2,
            "since": "2026-07-01T12:00:00.250000Z",
            "reason": "confirmed",
        },
        "latency_ms": 140.5,
        "model": {"name": "tiny", "sha256": "ab" * 32},
        "snapshot": None,
    }


def test_last_values_are_what_is_still_true() -> None:
    """Greeting, statuses and open events are kept, an event by its id until it ends; scores and reasons never are."""
    assert messages.cache_key(HELLO) == ("hello/", "")
    assert messages.cache_key(STATUS) == ("status/door/", "")
    assert messages.cache_key(EVENT) == ("events/door/", "74-1500")
    assert messages.cache_key(SCORES) is messages.cache_key(EXPLAIN) is None
    end = msgspec.structs.replace(EVENT, kind="end", seq=9)
    assert messages.cache_key(end) == messages.cache_key(EVENT)
    assert [messages.clears(each) for each in (EVENT, end, HELLO, STATUS, SCORES)] == [False, True, False, False, False]


def test_topics_end_in_a_slash() -> None:
    """A subscription to cam1 does not match cam10."""
    assert messages.topic(STATUS) == messages.status_topic("door") == "status/door/"
    assert messages.topic(HELLO) == messages.HELLO == "hello/"
    assert not messages.scores_topic("cam10").startswith(messages.scores_topic("cam1"))


def test_a_key_of_a_later_version_is_ignored() -> None:
    """Additions don't break readers."""
    topic, body = messages.encode(SCORES)
    later = json.dumps(json.loads(body) | {"colour": 3}).encode()
    assert messages.decode([topic, later]) == SCORES


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([], "0 parts"),
        ([b"scores/door/"], "1 parts"),
        ([b"scores/door/", b"{}", b""], "3 parts"),
        ([b"scores/door/", b"\xff\x00"], "not perceiverd's"),
        ([b"scores/door/", b"[1, 2]"], "not perceiverd's"),
        ([b"scores/door/", b'{"type": "scores", "schema": 1}'], "missing required field"),
        ([b"scores/door/", b'{"type": "weather", "schema": 1}'], "weather"),
        ([b"scores/door/", b'{"type": "scores", "schema": 2, "labels": 3}'], "schema 2; this version reads 1"),
        ([b"scores/gate/", messages.encode(SCORES)[1]], "came under b'scores/gate/'"),
    ],
)
def test_what_is_not_ours_is_a_wire_error(parts: list[bytes], why: str) -> None:
    """Anything else over the socket is one line, not a traceback."""
    with pytest.raises(WireError, match=why):
        messages.decode(parts)


def test_every_message_is_numbered_alike() -> None:
    """Each kind carries schema, boot_id and seq, which the publisher fills in."""
    for kind in (Hello, Scores, Status, Event, Explain):
        assert set(kind.__struct_fields__) >= {"schema", "boot_id", "seq"}
    assert msgspec.structs.replace(HELLO, seq=3).seq == 3


def test_best_comes_first() -> None:
    """Labels are sorted by falling score and cut to as many as are asked for."""
    tags = best(np.array([0.25, 0.125, 0.75], dtype=np.float32), LABELS, top=2)
    assert tags == (Tag("/m/c", 2, "Cat", 0.75), Tag("/m/a", 0, "Animal", 0.25))


def test_equal_scores_keep_the_order_of_labels() -> None:
    """Labels with one score stand by index, so that output is the same every time."""
    assert [tag.index for tag in best(np.full(3, 0.5), LABELS, top=3)] == [0, 1, 2]


def test_more_than_all_is_all() -> None:
    """Asking for more labels than there are gives them all."""
    assert len(best(np.zeros(3), LABELS, top=527)) == 3


def test_scores_are_rounded() -> None:
    """A score has 6 decimals at most, which is what float32 holds."""
    assert best(np.array([1 / 3], dtype=np.float32), LABELS, top=1)[0].score == 0.333333
