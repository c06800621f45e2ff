"""What other programs see: messages, their JSON Schema, the publisher, the client, keys.

Other programs use the names below; everything else may change without notice. Knows no sources and no model.
"""

from perceiverd.wire.client import Curve, Gap, Item, Restarted, Stale, Subscription, subscribe
from perceiverd.wire.messages import (
    Candidate,
    Event,
    Explain,
    Hello,
    Message,
    Scores,
    SourceStatus,
    Status,
    Tag,
    events_topic,
    explain_topic,
    scores_topic,
    status_topic,
)

__all__ = [
    "Candidate",
    "Curve",
    "Event",
    "Explain",
    "Gap",
    "Hello",
    "Item",
    "Message",
    "Restarted",
    "Scores",
    "SourceStatus",
    "Stale",
    "Status",
    "Subscription",
    "Tag",
    "events_topic",
    "explain_topic",
    "scores_topic",
    "status_topic",
    "subscribe",
]
