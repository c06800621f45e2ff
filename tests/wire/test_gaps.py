"""What a subscriber knows of its losses: messages lost, repeated and begun anew, on paper."""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.wire.gaps import Gap, GapDetector, Item, Restarted
from perceiverd.wire.messages import Delivery, Hello, Message, Model, Scores, Status

NOW = datetime(2026, 7, 1, tzinfo=UTC)
MODEL = Model("tiny", "0" * 64)


def scores(seq: int, stream: str = "a", boot_id: str = "one") -> Scores:
    return Scores(stream, NOW, NOW, 0, 1, 1, ("audio",), MODEL, (), 0, boot_id=boot_id, seq=seq)


def hello(seq: int, repeated: bool = False, boot_id: str = "one") -> Hello:
    return Hello("1", ("a",), MODEL, 1, 1, NOW, boot_id=boot_id, seq=seq, repeated=repeated)


def status(seq: int, repeated: bool = False, **sent: int) -> Status:
    delivery = Delivery(sent=sent)
    return Status(
        "a",
        NOW,
        "up",
        (),
        None,
        0,
        0,
        0,
        0,
        0,
        NOW,
        MODEL,
        delivery=delivery,
        boot_id="one",
        seq=seq,
        repeated=repeated,
    )


def told(ledger: GapDetector, messages: Iterable[Message]) -> list[Item]:
    return [item for message in messages for item in ledger.take(message)]


def test_a_hole_is_told_before_what_follows_it() -> None:
    """The gap has its topic, and how many are missing."""
    ledger = GapDetector()
    assert told(ledger, [scores(4), scores(5), scores(8)]) == [
        scores(4),
        scores(5),
        Gap("scores/a/", 2, "one"),
        scores(8),
    ]
    assert ledger.missed == 2


def test_topics_are_counted_apart() -> None:
    """A hole in one is none in the other."""
    ledger = GapDetector()
    assert told(ledger, [scores(1), scores(7, "b"), scores(2), scores(8, "b")])
    assert ledger.missed == 0


def test_a_daemon_that_began_anew_is_told_once() -> None:
    """Its numbers are its own; what the one before may have said is no gap."""
    ledger = GapDetector()
    items = told(ledger, [scores(4), scores(0, boot_id="two"), scores(9, "b", "two"), scores(1, boot_id="two")])
    assert [item for item in items if not isinstance(item, Scores)] == [Restarted("two", "one")]
    assert (ledger.missed, ledger.boot_id) == (0, "two")


def test_what_is_repeated_is_taken_once_and_makes_no_gap() -> None:
    """A late subscriber's last values have holes between them that nobody lost."""
    ledger = GapDetector()
    last = [hello(3, repeated=True), hello(7, repeated=True)]
    assert told(ledger, [*last, *last]) == last
    assert told(ledger, [hello(9), hello(7, repeated=True), hello(3, repeated=True)]) == [hello(9)]
    assert ledger.missed == 0


def test_what_was_repeated_meanwhile_is_not_missing() -> None:
    """Of those lost, the ones that were said again are taken off."""
    ledger = GapDetector()
    items = told(ledger, [hello(1), hello(3, repeated=True), hello(5)])
    assert items == [hello(1), hello(3, repeated=True), Gap("hello/", 2, "one"), hello(5)]


def test_a_status_tells_of_a_last_message_that_never_came() -> None:
    """No later message of the topic need come for its loss to show, and it is not told twice."""
    ledger = GapDetector()
    items = told(ledger, [status(0, scores=3, status=0), scores(3), status(1, scores=6, status=1)])
    assert items[2:] == [Gap("scores/a/", 2, "one"), status(1, scores=6, status=1)]
    assert told(ledger, [scores(6)]) == [scores(6)]
    assert ledger.missed == 2


def test_what_was_sent_before_one_came_is_not_missed() -> None:
    """The first status, and one that is repeated, promise nothing."""
    ledger = GapDetector()
    told(ledger, [status(4, repeated=True, scores=2), status(5, scores=9), scores(9), status(6, scores=10)])
    assert ledger.missed == 0


def test_a_topic_that_begins_is_heard_from_its_beginning() -> None:
    """Where a status has said that there was nothing yet, the first message is number 0, or something is missing."""
    ledger = GapDetector()
    items = told(ledger, [status(3), scores(2), status(4, scores=3, events=1)])
    assert [item for item in items if isinstance(item, Gap)] == [Gap("scores/a/", 2, "one"), Gap("events/a/", 1, "one")]


def test_topics_that_nobody_subscribed_to_are_not_missed() -> None:
    """Their numbers in a status are for others."""
    ledger = GapDetector(lambda topic: topic.startswith("status/"))
    told(ledger, [status(0, scores=3), status(1, scores=9)])
    assert ledger.missed == 0


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 5))
def test_gaps_are_what_was_lost(arrives: list[bool], first: int) -> None:
    """Whatever is lost and whatever repeated, what came and the gaps make up all from the first to the last."""
    ledger, sent = GapDetector(), [hello(first + i) for i in range(len(arrives))]
    heard: list[Item] = []
    for i, (message, comes) in enumerate(zip(sent, arrives, strict=True)):
        if comes:
            heard += ledger.take(message)
        if i % 3 == 2:  # somebody else came late: the last value is repeated to all
            heard += ledger.take(msgspec.structs.replace(message, repeated=True))
    seqs = [item.seq for item in heard if isinstance(item, Hello)]
    assert len(seqs) == len(set(seqs))
    live = [message.seq for message, comes in zip(sent, arrives, strict=True) if comes]
    lost = sum(item.missed for item in heard if isinstance(item, Gap))
    if live:
        between = [seq for seq in seqs if live[0] <= seq <= live[-1]]
        assert len(between) + lost == live[-1] - live[0] + 1
