"""The public API for other programs: `subscribe`, what a subscription yields, and the topics.

Only the names below are promised; everything else may change without notice. Importing this package loads pyzmq and
msgspec, but neither numpy, torch nor FFmpeg. It knows no sources and no model.
"""

from perceiverd.core.errors import ConfigError, PerceiverdError, WireError
from perceiverd.wire.client import Item, Stale, Subscription, subscribe
from perceiverd.wire.gaps import Gap, Restarted
from perceiverd.wire.keys import Curve
from perceiverd.wire.messages import (
    Candidate,
    Delivery,
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
    events_topic,
    explain_topic,
    scores_topic,
    status_topic,
)

__all__ = [
    "Candidate",
    "ConfigError",
    "Curve",
    "Delivery",
    "Event",
    "Explain",
    "Explanation",
    "Gap",
    "Hello",
    "Item",
    "Message",
    "Model",
    "PerceiverdError",
    "Restarted",
    "Scores",
    "SourceStatus",
    "Stale",
    "Status",
    "Subscription",
    "Tag",
    "WireError",
    "events_topic",
    "explain_topic",
    "scores_topic",
    "status_topic",
    "subscribe",
]
