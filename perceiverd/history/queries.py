"""The SQL that finds events. Pages are found in indexes alone; only the events of the page are read as a whole.

A filter by labels or streams becomes one ordered range of an index for each of them. The ranges are merged, so that a
page costs about the same in a history of any size.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from perceiverd.history.filters import EventFilter
from perceiverd.history.rows import STATES, Cursor, Details, StoredEvent, from_ms, to_ms, to_pm

LATEST_MS = 1 << 62
"""Later than every event."""
BAND_PM = 50
"""The width of a band in the index by score; the schema has the same number."""
COLUMNS = """
SELECT event.id, machine.name, stream.name, event.key, run.boot_id, label.mid, label.name, event.start_ms, event.end_ms,
    event.state, event.peak_pm, event.mean_pm, event.details
FROM event JOIN stream ON stream.id = event.stream JOIN machine ON machine.id = stream.machine
    JOIN label ON label.id = event.label JOIN run ON run.id = event.run
"""


STREAMS = """
SELECT stream.id, machine.name, stream.name FROM stream JOIN machine ON machine.id = machine
ORDER BY machine.name, stream.name
"""


@dataclass(frozen=True, slots=True)
class Range:
    """An ordered range of an index, and what else an event in it must fulfil."""

    index: str
    where: str
    values: tuple[int, ...]


def stream_ids(connection: sqlite3.Connection, wanted: Sequence[str]) -> list[int]:
    """The numbers of these streams, `machine/stream` or `stream`."""
    rows = connection.execute(STREAMS)
    return [number for number, machine, name in rows if name in wanted or f"{machine}/{name}" in wanted]


def label_ids(connection: sqlite3.Connection, mids: Sequence[str]) -> list[int]:
    """The numbers of these labels, those that had no event or score left out."""
    return [number for number, mid in connection.execute("SELECT id, mid FROM label") if mid in mids]


def ranges(connection: sqlite3.Connection, wanted: EventFilter, before: Cursor | None = None) -> list[Range]:
    """The ranges whose union has every event that the filter wants, before this place."""
    where, values = _conditions(wanted, before)
    streams = stream_ids(connection, list(wanted.streams)) if wanted.streams else None
    labels = label_ids(connection, list(wanted.mids)) if wanted.mids is not None else None
    if streams is not None and (labels is not None or wanted.state == "open"):
        where += f" AND stream IN ({_marks(streams)})"
        values = (*values, *streams)
    if wanted.state == "open":
        if labels is not None:
            where, values = f"{where} AND label IN ({_marks(labels)})", (*values, *labels)
        return [Range("event_open", where, values)]
    if labels is not None:
        return [Range("event_by_label", f"label = ? AND {where}", (label, *values)) for label in labels]
    if streams is not None:
        return [Range("event_by_stream", f"stream = ? AND {where}", (stream, *values)) for stream in streams]
    if wanted.least_peak > 0:
        bands = range(to_pm(wanted.least_peak) // BAND_PM, 1000 // BAND_PM + 1)
        return [Range("event_by_score", f"peak_pm / {BAND_PM} = ? AND {where}", (band, *values)) for band in bands]
    return [Range("event_by_time", where, values)]


def newest(
    connection: sqlite3.Connection, wanted: EventFilter, before: Cursor | None, limit: int
) -> list[tuple[int, int]]:
    """`(start_ms, id)` of the newest events that the filter wants, before this place."""
    parts = (_descending(connection, each, limit) for each in ranges(connection, wanted, before))
    return list(islice(heapq.merge(*parts, reverse=True), limit))


def every(connection: sqlite3.Connection, wanted: EventFilter) -> Iterator[StoredEvent]:
    """All events that the filter wants, the oldest first."""
    parts = [
        connection.execute(
            f"SELECT start_ms, id FROM event INDEXED BY {each.index} WHERE {each.where} ORDER BY start_ms, id",
            each.values,
        )
        for each in ranges(connection, wanted)
    ]
    for _, number in heapq.merge(*parts):
        yield stored(connection.execute(f"{COLUMNS} WHERE event.id = ?", (number,)).fetchone())


def count(connection: sqlite3.Connection, wanted: EventFilter) -> int:
    """How many events the filter wants."""
    total = 0
    for each in ranges(connection, wanted):
        query = f"SELECT count(*) FROM event INDEXED BY {each.index} WHERE {each.where}"
        total += connection.execute(query, each.values).fetchone()[0]
    return total


def by_ids(connection: sqlite3.Connection, ids: Sequence[int]) -> list[StoredEvent]:
    """These events, in this order; those that are gone are left out."""
    rows = connection.execute(f"{COLUMNS} WHERE event.id IN ({_marks(ids)})", ids)
    found = {row[0]: stored(row) for row in rows}
    return [found[each] for each in ids if each in found]


def stored(row: tuple[int, str, str, str, str, str, str, int, int, int, int, int, bytes]) -> StoredEvent:
    """An event from a row of COLUMNS."""
    number, machine, stream, key, boot_id, mid, name, start_ms, end_ms, state, peak_pm, mean_pm, details = row
    return StoredEvent(
        id=number,
        machine=machine,
        stream=stream,
        key=key,
        boot_id=boot_id,
        mid=mid,
        name=name,
        start=from_ms(start_ms),
        end=from_ms(end_ms),
        state=STATES[state],
        peak=peak_pm / 1000,
        mean=mean_pm / 1000,
        details=msgspec.json.decode(details, type=Details),
    )


def _descending(connection: sqlite3.Connection, part: Range, limit: int) -> Iterator[tuple[int, int]]:
    query = f"SELECT start_ms, id FROM event INDEXED BY {part.index} WHERE {part.where} ORDER BY start_ms DESC, id DESC"
    return iter(connection.execute(f"{query} LIMIT ?", (*part.values, limit)))


def _conditions(wanted: EventFilter, before: Cursor | None) -> tuple[str, tuple[int, ...]]:
    """The conditions of the filter and of the place. One upper bound of the time: SQLite searches by one only."""
    until_ms = LATEST_MS if wanted.before is None else to_ms(wanted.before)
    if before is not None:
        until_ms = min(until_ms, before.start_ms + 1)
    where, values = "start_ms >= ? AND start_ms < ?", [0 if wanted.after is None else to_ms(wanted.after), until_ms]
    if before is not None:
        where += " AND (start_ms < ? OR id < ?)"
        values += [before.start_ms, before.id]
    if wanted.least_peak > 0:
        where += " AND peak_pm >= ?"
        values.append(to_pm(wanted.least_peak))
    if wanted.state is not None:  # as a literal, or SQLite would not use the index of the open events
        where += f" AND state = {STATES.index(wanted.state)}"
    return where, tuple(values)


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
