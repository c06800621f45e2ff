"""Finds lost and repeated messages by their `seq`. Pure: it knows no socket and no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from perceiverd.wire import messages
from perceiverd.wire.messages import Explain, Message, Scores, Status


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that were published and not received: this program was too slow, or the link was cut."""

    topic: str
    missed: int
    """How many messages of the topic are missing just before the next one."""
    boot_id: str
    """The daemon that published them."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The daemon was restarted: every `seq` starts again at 0, and all events of the previous daemon are over."""

    boot_id: str
    before: str
    """The `boot_id` of the previous daemon."""


@dataclass(slots=True)
class _Topic:
    """One topic of one daemon."""

    next_seq: int
    """Every message with a lower `seq` was received, or reported as missed."""
    repeated: set[int] = field(default_factory=set)
    """From there on: the `seq` of messages that were received as repetitions."""


class GapDetector:
    """Passes on new messages, drops duplicates, and puts a `Gap` where messages are missing."""

    def __init__(self, subscribed: Callable[[str], bool] = lambda _: True) -> None:
        """`subscribed` says whether all messages of a topic should be received."""
        self._subscribed = subscribed
        self.boot_id: str | None = None
        """The daemon whose message was received last."""
        self.missed = 0
        """Messages missed from all daemons."""
        self.missed_now = 0
        """Messages missed from the daemon whose message was received last."""
        self._topics: dict[str, _Topic] = {}
        self._repeated: dict[str, set[int]] = {}
        """For topics of which only repetitions were received so far: their `seq`."""
        self._audited: set[str] = set()
        """Streams whose status was received. A topic that it did not list had no message yet."""

    def accept(self, message: Message) -> Iterator[Message | Gap | Restarted]:
        """The items that this message leads to; none if it is a duplicate."""
        if message.boot_id != self.boot_id:
            yield from self._restart(message.boot_id)
        name = messages.topic(message)
        if not isinstance(message, Scores | Explain) and message.repeated:
            if self._is_new_repetition(name, message.seq):
                yield message
            return
        topic = self._topic(name, message.seq)
        if message.seq < topic.next_seq:
            return
        known = message.seq in topic.repeated
        yield from self._missing_before(name, message.seq)
        topic.next_seq = message.seq + 1
        if isinstance(message, Status):
            yield from self._audit(message)
        if not known:
            yield message

    def _restart(self, boot_id: str) -> Iterator[Restarted]:
        if self.boot_id is not None:
            yield Restarted(boot_id, self.boot_id)
        self.boot_id, self.missed_now = boot_id, 0
        self._topics.clear()
        self._repeated.clear()
        self._audited.clear()

    def _is_new_repetition(self, name: str, seq: int) -> bool:
        """Record a repeated message; False if it was received before."""
        topic = self._topics.get(name)
        known = self._repeated.setdefault(name, set()) if topic is None else topic.repeated
        if seq in known or (topic is not None and seq < topic.next_seq):
            return False
        known.add(seq)
        return True

    def _audit(self, status: Status) -> Iterator[Gap]:
        """Compare with the counts in a status, which reveal the loss of a topic's last message too."""
        for kind, sent in status.delivery.sent.items():
            name = f"{kind}/{status.stream}/"
            if name != messages.topic(status) and self._subscribed(name):
                topic = self._topic(name, sent)
                yield from self._missing_before(name, sent)
                topic.next_seq = max(topic.next_seq, sent)
        self._audited.add(status.stream)

    def _topic(self, name: str, seq: int) -> _Topic:
        """The topic's state. A new one begins at this `seq`, or at 0 if a status has shown that the topic is new."""
        if name not in self._topics:
            if name.partition("/")[2].rstrip("/") in self._audited:
                seq = 0
            repeated = {each for each in self._repeated.pop(name, set()) if each >= seq}
            self._topics[name] = _Topic(seq, repeated)
        return self._topics[name]

    def _missing_before(self, name: str, seq: int) -> Iterator[Gap]:
        topic = self._topics[name]
        known = {each for each in topic.repeated if each < seq}
        topic.repeated -= {*known, seq}
        if (lost := seq - topic.next_seq - len(known)) > 0:
            self.missed += lost
            self.missed_now += lost
            yield Gap(name, lost, self.boot_id or "")
