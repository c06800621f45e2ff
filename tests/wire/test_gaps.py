"""Gaps: lost messages, repeated messages and restarted daemons, without a socket."""

from collections.abc import Iterable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.wire.gaps import Gap, GapDetector, Restarted
from perceiverd.wire.messages import Delivery, Hello, Message, Scores, Status
from tests.support import messages

Found = Message | Gap | Restarted


def scores(seq: int, stream: str = "a", boot_id: str = "one") -> Scores:
    return messages.scores(stream, boot_id=boot_id, seq=seq)


def hello(seq: int, repeated: bool = False) -> Hello:
    return msgspec.structs.replace(messages.hello(boot_id="one"), seq=seq, repeated=repeated)


def status(seq: int, repeated: bool = False, **sent: int) -> Status:
    made = messages.status("a", boot_id="one")
    return msgspec.structs.replace(made, seq=seq, repeated=repeated, delivery=Delivery(sent=sent))


def accepted(detector: GapDetector, received: Iterable[Message]) -> list[Found]:
    return [item for message in received for item in detector.accept(message)]


def test_a_gap_precedes_the_message_after_it() -> None:
    """The gap has its topic and the number of missing messages."""
    detector = GapDetector()
    assert accepted(detector, [scores(4), scores(5), scores(8)]) == [
        scores(4),
        scores(5),
        Gap("scores/a/", 2, "one"),
        scores(8),
    ]
    assert detector.missed == 2


def test_topics_are_counted_separately() -> None:
    """The numbers of one topic do not make a gap in another."""
    detector = GapDetector()
    assert accepted(detector, [scores(1), scores(7, "b"), scores(2), scores(8, "b")])
    assert detector.missed == 0


def test_a_restart_is_reported_once() -> None:
    """A new daemon has its own numbers, so there is no gap between the two."""
    detector = GapDetector()
    items = accepted(detector, [scores(4), scores(0, boot_id="two"), scores(9, "b", "two"), scores(1, boot_id="two")])
    assert [item for item in items if not isinstance(item, Scores)] == [Restarted("two", "one")]
    assert (detector.missed, detector.boot_id) == (0, "two")


def test_a_repetition_is_accepted_once_and_makes_no_gap() -> None:
    """A new subscriber receives last values, and nobody lost the numbers between them."""
    detector = GapDetector()
    last = [hello(3, repeated=True), hello(7, repeated=True)]
    assert accepted(detector, [*last, *last]) == last
    assert accepted(detector, [hello(9), hello(7, repeated=True), hello(3, repeated=True)]) == [hello(9)]
    assert detector.missed == 0


def test_a_repeated_message_is_not_missing() -> None:
    """A lost message that was repeated later does not count as missed."""
    detector = GapDetector()
    items = accepted(detector, [hello(1), hello(3, repeated=True), hello(5)])
    assert items == [hello(1), hello(3, repeated=True), Gap("hello/", 2, "one"), hello(5)]


def test_a_status_reveals_the_loss_of_a_last_message() -> None:
    """The loss shows without a later message of the topic, and is reported once."""
    detector = GapDetector()
    items = accepted(detector, [status(0, scores=3, status=0), scores(3), status(1, scores=6, status=1)])
    assert items[2:] == [Gap("scores/a/", 2, "one"), status(1, scores=6, status=1)]
    assert accepted(detector, [scores(6)]) == [scores(6)]
    assert detector.missed == 2


def test_messages_before_the_subscription_are_not_missed() -> None:
    """The first status and repeated ones make no gap."""
    detector = GapDetector()
    accepted(detector, [status(4, repeated=True, scores=2), status(5, scores=9), scores(9), status(6, scores=10)])
    assert detector.missed == 0


def test_a_new_topic_begins_at_zero() -> None:
    """If a status has shown that a topic is still empty, its first message is number 0, or messages are missing."""
    detector = GapDetector()
    items = accepted(detector, [status(3), scores(2), status(4, scores=3, events=1)])
    assert [item for item in items if isinstance(item, Gap)] == [Gap("scores/a/", 2, "one"), Gap("events/a/", 1, "one")]


def test_topics_without_a_subscription_are_not_missed() -> None:
    """Their counts in a status make no gap."""
    detector = GapDetector(lambda topic: topic.startswith("status/"))
    accepted(detector, [status(0, scores=3), status(1, scores=9)])
    assert detector.missed == 0


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 5))
def test_gaps_are_exactly_what_was_lost(arrives: list[bool], first: int) -> None:
    """Received messages and gaps add up to all messages from the first to the last, whatever is lost and repeated."""
    detector, sent = GapDetector(), [hello(first + i) for i in range(len(arrives))]
    items: list[Found] = []
    for i, (message, comes) in enumerate(zip(sent, arrives, strict=True)):
        if comes:
            items += detector.accept(message)
        if i % 3 == 2:  # another subscriber is new: the last value is repeated to all
            items += detector.accept(msgspec.structs.replace(message, repeated=True))
    seqs = [item.seq for item in items if isinstance(item, Hello)]
    assert len(seqs) == len(set(seqs))
    live = [message.seq for message, comes in zip(sent, arrives, strict=True) if comes]
    lost = sum(item.missed for item in items if isinstance(item, Gap))
    if live:
        between = [seq for seq in seqs if live[0] <= seq <= live[-1]]
        assert len(between) + lost == live[-1] - live[0] + 1
