"""The wire: messages to bytes and back, and what is refused."""

from datetime import UTC, datetime

import msgspec
import numpy as np

from perceiverd.core.labels import Label
from perceiverd.wire import messages
from perceiverd.wire.messages import (
    Candidate,
    Event,
    Explain,
    Explanation,
    Hello,
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
    sources=(SourceStatus(source="a.mp4", state="up", data_age_s=0.02, restarts={"stalled": 1}, dropped=0),),
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
    explanation=Explanation(score=0.625, on=0.5, off=0.25, windows=2, since=WHEN, reason="confirmed"),
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
        Candidate(
            mid="/m/0bt9lr",
            index=74,
            name="Dog",
            score=0.9,
            surest="/m/05tny_",
            smoothed=0.6,
            on=0.5,
            off=0.25,
            state="holding",
            reason="for 0 of 1 s",
            windows=1,
            event=None,
        ),
    ),
    smoothed=(0.1, 0.6),
    on=(0.5, 0.5),
    suppressed={"too short": 1},
    model=MODEL,
)


def test_topics_end_in_a_slash() -> None:
    """A subscription to cam1 does not match cam10."""
    assert messages.topic(STATUS) == messages.status_topic("door") == "status/door/"
    assert messages.topic(HELLO) == messages.HELLO == "hello/"
    assert not messages.scores_topic("cam10").startswith(messages.scores_topic("cam1"))


def test_every_message_has_a_number() -> None:
    """Each kind has schema, boot_id and seq, which the publisher fills in."""
    for kind in (Hello, Scores, Status, Event, Explain):
        assert set(kind.__struct_fields__) >= {"schema", "boot_id", "seq"}
    assert msgspec.structs.replace(HELLO, seq=3).seq == 3


def test_best_comes_first() -> None:
    """Tags are sorted by falling score and cut to `top`."""
    tags = best(np.array([0.25, 0.125, 0.75], dtype=np.float32), LABELS, top=2)
    assert tags == (Tag("/m/c", 2, "Cat", 0.75), Tag("/m/a", 0, "Animal", 0.25))


def test_equal_scores_keep_the_order_of_labels() -> None:
    """Tags with equal scores are sorted by index, so that the output is always the same."""
    assert [tag.index for tag in best(np.full(3, 0.5), LABELS, top=3)] == [0, 1, 2]


def test_a_large_top_gives_all_labels() -> None:
    """If `top` exceeds the number of labels, all are returned."""
    assert len(best(np.zeros(3), LABELS, top=527)) == 3


def test_scores_are_rounded() -> None:
    """A score has at most 6 decimals, because float32 has no more."""
    assert best(np.array([1 / 3], dtype=np.float32), LABELS, top=1)[0].score == 0.333333
