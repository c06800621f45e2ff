"""The public API for other programs: `subscribe`, what a subscription yields, and the topics.

Only the names below are promised; everything else may change without notice. The client loads pyzmq and
msgspec, but neither numpy, torch nor FFmpeg. It knows no sources and no model.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from perceiverd.core.errors import ConfigError, PerceiverdError, WireError
from perceiverd.wire.gaps import Gap, Restarted
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

if TYPE_CHECKING:
    from perceiverd.wire.client import Item, Stale, Subscription, subscribe
    from perceiverd.wire.keys import Curve

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

_LATER = {
    "Curve": "keys",
    "Item": "client",
    "Stale": "client",
    "Subscription": "client",
    "subscribe": "client",
}
"""Names whose modules load pyzmq and asyncio. `perceiverd tag` needs the messages only, and starts 30 ms sooner."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
