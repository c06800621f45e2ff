"""Counts of the events that a filter wants: from the stored sums of whole days, and from the events otherwise."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date

from perceiverd.history.filters import EventFilter
from perceiverd.history.queries import Range, label_ids, ranges
from perceiverd.history.rows import from_ms, to_ms, to_pm

QUARTER_MS = 900_000
"""Every time zone is ahead of UTC by a multiple of a quarter of an hour. The schema has the same number."""
DAY_MS = 86_400_000
DAY_QUARTERS = DAY_MS // QUARTER_MS  # 96
LAST_DAY = (date.max - date(1970, 1, 1)).days
"""The last day that a time can name, later than that of every event."""
ROWS = 10_000
"""Rows in memory at a time."""

LabelSums = tuple[int, int, int, int]
"""Events, milliseconds of all, highest score in thousandths, start of the last one."""


@dataclass(slots=True)
class Tallies:
    """Counts by number of stream and label, and by quarter of an hour since 1970."""

    quarters: Counter[int] = field(default_factory=Counter)
    streams: Counter[int] = field(default_factory=Counter)
    labels: dict[int, LabelSums] = field(default_factory=dict)

    def add_label(self, label: int, events: int, lasted_ms: int, peak_pm: int, last_ms: int) -> None:
        """Add the events of a label in one more part of the history."""
        before = self.labels.get(label, (0, 0, 0, 0))
        self.labels[label] = (
            *(before[0] + events, before[1] + lasted_ms),
            *(max(before[2], peak_pm), max(before[3], last_ms)),
        )


def tallies_of(connection: sqlite3.Connection, wanted: EventFilter) -> Tallies:
    """The tallies of what the filter wants. Inside a transaction, so that all queries see the same events."""
    tallies = Tallies()
    if wanted == EventFilter(after=wanted.after, before=wanted.before, mids=wanted.mids):
        _add_time(connection, wanted, tallies)
    elif wanted == EventFilter(least_peak=wanted.least_peak):
        _add_good(connection, to_pm(wanted.least_peak), tallies)
    else:
        _add_some(connection, wanted, tallies)
    return tallies


def _add_time(connection: sqlite3.Connection, wanted: EventFilter, tallies: Tallies) -> None:
    """All events of a stretch of time, or of some labels in it: whole days by their sums, the ends event by event."""
    first = 0 if wanted.after is None else -(-to_ms(wanted.after) // DAY_MS)
    last = LAST_DAY if wanted.before is None else min(LAST_DAY, to_ms(wanted.before) // DAY_MS)
    if first >= last:
        _add_some(connection, wanted, tallies)
        return
    start, end = from_ms(first * DAY_MS), None if wanted.before is None else from_ms(last * DAY_MS)
    if wanted.after is not None:
        _add_some(connection, replace(wanted, before=start), tallies)
    if wanted.before is not None:
        _add_some(connection, replace(wanted, after=end), tallies)
    labels = None if wanted.mids is None else label_ids(connection, list(wanted.mids))
    _add_label_days(connection, first, last, labels, tallies)
    if labels is None:
        _add_days(connection, first, last, tallies)
    else:
        for part in ranges(connection, replace(wanted, after=start, before=end)):
            _count(connection, part, tallies)


def _add_label_days(
    connection: sqlite3.Connection, first: int, last: int, labels: list[int] | None, tallies: Tallies
) -> None:
    """The sums of these labels, or of all, over the days `first` to `last - 1` since 1970."""
    sums = "sum(events), sum(lasted_ms), max(peak_pm), max(last_ms)"
    of_days = f"SELECT label, {sums} FROM label_day WHERE day >= ? AND day < ?"
    if labels is None:
        for row in connection.execute(f"{of_days} GROUP BY label", (first, last)):
            tallies.add_label(*row)
        return
    for label in labels:
        for row in connection.execute(f"{of_days} AND label = ? GROUP BY label", (first, last, label)):
            tallies.add_label(*row)


def _add_days(connection: sqlite3.Connection, first: int, last: int, tallies: Tallies) -> None:
    """The counts by stream and quarter of the days `first` to `last - 1` since 1970."""
    query = "SELECT stream, sum(events) FROM stream_day WHERE day >= ? AND day < ? GROUP BY stream"
    tallies.streams.update(dict(connection.execute(query, (first, last))))
    query = "SELECT quarter, events FROM quarter WHERE quarter >= ? AND quarter < ?"
    tallies.quarters.update(dict(connection.execute(query, (first * DAY_QUARTERS, last * DAY_QUARTERS))))


def _add_good(connection: sqlite3.Connection, least_pm: int, tallies: Tallies) -> None:
    """All events with this score: SQLite groups in the order of an index, some times faster than a loop here."""

    def grouped(key: str, rest: str, index: str) -> sqlite3.Cursor:
        query = f"SELECT {key}, count(*){rest} FROM event INDEXED BY {index} WHERE peak_pm >= ? GROUP BY 1"
        return connection.execute(query, (least_pm,))

    tallies.quarters.update(dict(grouped(f"start_ms / {QUARTER_MS}", "", "event_by_quarter")))
    tallies.streams.update(dict(grouped("stream", "", "event_by_stream")))
    for row in grouped("label", ", sum(end_ms - start_ms), max(peak_pm), max(start_ms)", "event_by_label"):
        tallies.add_label(*row)


def _add_some(connection: sqlite3.Connection, wanted: EventFilter, tallies: Tallies) -> None:
    """What a filter wants, event by event, in two passes."""
    for part in ranges(connection, wanted):
        _count(connection, part, tallies)
        sums = "count(*), sum(end_ms - start_ms), max(peak_pm), max(start_ms)"
        query = f"SELECT label, {sums} FROM event INDEXED BY {part.index} WHERE {part.where} GROUP BY label"
        for row in connection.execute(query, part.values):
            tallies.add_label(*row)


def _count(connection: sqlite3.Connection, part: Range, tallies: Tallies) -> None:
    """The events of a range, by quarter and stream. Without an index's order Python counts faster than SQLite."""
    query = f"SELECT start_ms / {QUARTER_MS}, stream FROM event INDEXED BY {part.index} WHERE {part.where}"
    cursor = connection.execute(query, part.values)
    while rows := cursor.fetchmany(ROWS):
        quarters, streams = zip(*rows, strict=True)
        tallies.quarters.update(quarters)
        tallies.streams.update(streams)
