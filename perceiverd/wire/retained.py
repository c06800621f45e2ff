"""Which messages the publisher keeps for new subscribers. Knows no socket."""

from __future__ import annotations

from perceiverd.wire.messages import Event, Explain, Hello, Message, Scores, Status, topic


def cache_key(message: Message) -> tuple[str, str] | None:
    """The key under which the publisher keeps a message for new subscribers; None if it does not keep it.

    A later message with the same key replaces it: an event has one entry. A message that `clears` its key is not kept.
    """
    match message:
        case Hello() | Status():
            return topic(message), ""
        case Event():
            return topic(message), message.id
        case Scores() | Explain():
            return None


def clears(message: Message) -> bool:
    """Whether this message removes what was kept under its key: it ends an event."""
    return isinstance(message, Event) and message.kind == "end"
