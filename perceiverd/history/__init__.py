"""The event history: a subscriber that stores events, states and scores in SQLite, and the queries of that store.

It depends on no model, no device and no part of the daemon. Other programs read the store with `HistoryReader`.
"""

from perceiverd.history.filters import EventFilter, find_labels
from perceiverd.history.reading import HistoryReader
from perceiverd.history.rows import (
    Cursor,
    EventPage,
    EventTimeLine,
    HeatMap,
    LabelTally,
    MachineRow,
    RunRow,
    SpanKind,
    SpanRow,
    Statistics,
    StoredEvent,
    StreamRow,
    TraceWindow,
)

__all__ = [
    "Cursor",
    "EventFilter",
    "EventPage",
    "EventTimeLine",
    "HeatMap",
    "HistoryReader",
    "LabelTally",
    "MachineRow",
    "RunRow",
    "SpanKind",
    "SpanRow",
    "Statistics",
    "StoredEvent",
    "StreamRow",
    "TraceWindow",
    "find_labels",
]
