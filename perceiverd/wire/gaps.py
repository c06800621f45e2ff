"""What a subscriber has heard of each topic, and so what it has missed. Pure: it knows no socket and no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from perceiverd.wire import messages
from perceiverd.wire.messages import Message, Scores, Status


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that were sent, and did not arrive: this program was too slow for them, or the link was cut."""

    topic: str
    missed: int
    """How many, just before what comes next."""
    boot_id: str
    """Of the daemon that sent them."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """Another daemon speaks now: every `seq` begins anew, and events that were open under the one before are over."""

    boot_id: str
    before: str
    """The `boot_id` until now."""


Item = Message | Gap | Restarted


@dataclass(slots=True)
class _Topic:
    """One topic of one daemon."""

    next_seq: int
    """Everything before it was heard, or told as missed."""
    early: set[int] = field(default_factory=set)
    """From there on, what was heard already because it was repeated."""


class GapDetector:
    """Takes messages as they come; gives them back, with what was missed told before them."""

    def __init__(self, listens: Callable[[str], bool] = lambda topic: True) -> None:
        """`listens`: whether a topic is among those subscribed to."""
        self._listens = listens
        self.boot_id: str | None = None
        """Of the daemon heard last."""
        self.missed = 0
        """Messages, from all daemons."""
        self.missed_now = 0
        """Messages, from the daemon heard last."""
        self._pages: dict[str, _Topic] = {}
        self._repeats: dict[str, set[int]] = {}
        """What was heard of topics that have not spoken for themselves yet."""
        self._audited: set[str] = set()
        """Streams whose status has said how far their topics are: one that it did not name had not begun."""

    def take(self, message: Message) -> Iterator[Item]:
        """What there is to tell: nothing where the message is a repetition of what was heard."""
        if message.boot_id != self.boot_id:
            if self.boot_id is not None:
                yield Restarted(message.boot_id, self.boot_id)
            self.boot_id, self.missed_now = message.boot_id, 0
            self._pages.clear()
            self._repeats.clear()
            self._audited.clear()
        topic = messages.topic(message)
        if not isinstance(message, Scores | messages.Explain) and message.repeated:
            if self._repeat(topic, message.seq):
                yield message
            return
        page = self._page(topic, message.seq)
        if message.seq < page.next_seq:
            return
        repeated = message.seq in page.early
        yield from self._up_to(topic, message.seq)
        page.next_seq = message.seq + 1
        if isinstance(message, Status):
            yield from self._audit(message)
        if not repeated:
            yield message

    def _repeat(self, topic: str, seq: int) -> bool:
        """Note what was said again; False where it is known."""
        page = self._pages.get(topic)
        known = self._repeats.setdefault(topic, set()) if page is None else page.early
        if seq in known or (page is not None and seq < page.next_seq):
            return False
        known.add(seq)
        return True

    def _audit(self, status: Status) -> Iterator[Gap]:
        """A status says how far its stream's topics are: so the loss of a topic's last message shows too."""
        for kind, sent in status.delivery.sent.items():
            topic = f"{kind}/{status.stream}/"
            if topic != messages.topic(status) and self._listens(topic):
                page = self._page(topic, sent)
                yield from self._up_to(topic, sent)
                page.next_seq = max(page.next_seq, sent)
        self._audited.add(status.stream)

    def _page(self, topic: str, seq: int) -> _Topic:
        """The topic's page. A new one begins here, for what was before was not for us, unless it is known to be new."""
        if topic not in self._pages:
            if topic.partition("/")[2].rstrip("/") in self._audited:
                seq = 0
            early = {each for each in self._repeats.pop(topic, set()) if each >= seq}
            self._pages[topic] = _Topic(seq, early)
        return self._pages[topic]

    def _up_to(self, topic: str, seq: int) -> Iterator[Gap]:
        """What is missing before this number."""
        page = self._pages[topic]
        known = {each for each in page.early if each < seq}
        page.early -= {*known, seq}
        if (lost := seq - page.next_seq - len(known)) > 0:
            self.missed += lost
            self.missed_now += lost
            yield Gap(topic, lost, self.boot_id or "")
