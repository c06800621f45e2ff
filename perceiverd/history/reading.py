"""The queries that other programs use: pages of events, an event, a day, a heat map, gaps, statistics.

A reader is opened on the file and sees what is stored at the time of each query, while the history goes on writing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self

from perceiverd.core.errors import HistoryError
from perceiverd.core.labels import Label
from perceiverd.history import queries, statistics
from perceiverd.history.filters import EventFilter
from perceiverd.history.minutes import MINUTE_MS
from perceiverd.history.opening import open_reader
from perceiverd.history.rows import (
    Cursor,
    EventPage,
    EventTimeLine,
    HeatMap,
    MachineRow,
    RunRow,
    SpanRow,
    Statistics,
    StoredEvent,
    StreamRow,
    TraceWindow,
    from_ms,
    to_ms,
    to_pm,
)
from perceiverd.history.traces import unpacked

LONGEST_EVENT_MS = 86_400_000
"""An event that overlaps a stretch of time began at most this long before it. By default it is split after an hour."""
ALL = EventFilter()
"""Every event."""


class HistoryReader:
    """Reads one history. Use it on one thread at a time. A query raises HistoryError if the file cannot be read."""

    def __init__(self, path: Path) -> None:
        """Raises HistoryError if there is no history at this path, or if it has another version."""
        self.path = path
        self._connection = open_reader(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._connection.close()

    def events(self, wanted: EventFilter = ALL, limit: int = 100, before: Cursor | None = None) -> EventPage:
        """A page of at most `limit` events, the newest first. `before` is the `next` of the page before it."""
        found = queries.newest(self._connection, wanted, before, limit + 1)
        page = queries.by_ids(self._connection, [number for _, number in found[:limit]])
        return EventPage(tuple(page), Cursor(*found[limit - 1]) if len(found) > limit else None)

    def every(self, wanted: EventFilter = ALL) -> Iterator[StoredEvent]:
        """All events that the filter wants, the oldest first, read one by one."""
        yield from queries.every(self._connection, wanted)

    def count(self, wanted: EventFilter = ALL) -> int:
        """How many events the filter wants."""
        return queries.count(self._connection, wanted)

    def event(self, number: int) -> StoredEvent | None:
        """One event by its number; None if there is none."""
        found = queries.by_ids(self._connection, [number])
        return found[0] if found else None

    def event_of_message(self, machine: str, stream: str, boot_id: str, key: str) -> StoredEvent | None:
        """One event by the identifiers in its messages; None if it is not stored."""
        row = self._connection.execute(
            f"{queries.COLUMNS} WHERE run.boot_id = ? AND event.key = ? AND stream.name = ? AND machine.name = ?",
            (boot_id, key, stream, machine),
        ).fetchone()
        return queries.stored(row) if row else None

    def trace(self, number: int) -> tuple[TraceWindow, ...]:
        """The scores of the windows around the beginning and the end of an event, in order; empty if there are none."""
        row = self._connection.execute("SELECT windows FROM trace WHERE event = ?", (number,)).fetchone()
        if row is None:
            return ()
        mids = dict(self._connection.execute("SELECT id, mid FROM label"))
        return tuple(
            TraceWindow(
                from_ms(end_ms), {mids[label]: score / 1000 for label, score in scores.items() if label in mids}
            )
            for end_ms, scores in unpacked(row[0])
        )

    def time_line(
        self,
        start: datetime,
        end: datetime,
        streams: Collection[str] = (),
        least_peak: float = 0.0,
        limit: int = 20_000,
    ) -> EventTimeLine:
        """All events that overlap [start, end), in the order of their starts."""
        names = {each.full_name: number for number, each in self._numbered_streams()}
        rows = self._connection.execute(
            "SELECT id, stream, label, start_ms, end_ms, peak_pm FROM event INDEXED BY event_by_time "
            "WHERE start_ms >= ? AND start_ms < ? AND end_ms >= ? AND peak_pm >= ? ORDER BY start_ms LIMIT ?",
            (to_ms(start) - LONGEST_EVENT_MS, to_ms(end), to_ms(start), to_pm(least_peak), limit + 1),
        ).fetchall()
        if streams:
            wanted = set(queries.stream_ids(self._connection, list(streams)))
            rows = [row for row in rows if row[1] in wanted]
        return _time_line(rows, names, dict(self._connection.execute("SELECT id, name FROM label")), limit)

    def heat_map(
        self, machine: str, stream: str, start: datetime, end: datetime, labels: int = 20, mids: Collection[str] = ()
    ) -> HeatMap:
        """The scores of one stream by minute in [start, end), rounded to minutes, at most a week.

        With `mids` of these labels, otherwise of the `labels` with the highest scores. Raises HistoryError if the
        stream is unknown, or the time is too long.
        """
        number = self._stream(machine, stream)
        first, last = to_ms(start) // MINUTE_MS, -(-to_ms(end) // MINUTE_MS)
        return statistics.heat_map(self._connection, number, first, last, labels, mids)

    def windows(self, start: datetime, end: datetime) -> dict[str, tuple[int, ...]]:
        """How many windows each stream, `machine/stream`, had in each hour of [start, end): 0 is `not listening`."""
        return statistics.windows_by_hour(self._connection, start, end, dict(self._numbered_streams()))

    def spans(
        self, start: datetime, end: datetime, streams: Collection[str] = (), kinds: Collection[str] = ()
    ) -> tuple[SpanRow, ...]:
        """States, gaps and restarts that overlap [start, end), in the order of their starts.

        With `streams`, those of these streams and of their machines. Rows of whole machines have no stream.
        """
        rows = self._connection.execute(
            "SELECT machine.name, stream.name, kind, start_ms, end_ms, missed, what FROM span "
            "JOIN machine ON machine.id = span.machine LEFT JOIN stream ON stream.id = span.stream "
            "WHERE start_ms < ? AND coalesce(end_ms, ?) >= ? ORDER BY start_ms, span.id",
            (to_ms(end), queries.LATEST_MS, to_ms(start)),
        )
        found = (SpanRow(row[0], row[1], row[2], from_ms(row[3]), _time(row[4]), row[5], row[6]) for row in rows)
        return tuple(each for each in found if (not kinds or each.kind in kinds) and _concerns(each, streams))

    def machines(self) -> tuple[MachineRow, ...]:
        """All daemons, by name."""
        rows = self._connection.execute("SELECT name, endpoint, seen_ms, offset_ms FROM machine ORDER BY name")
        return tuple(
            MachineRow(name, endpoint, _time(seen), None if offset is None else offset / 1000)
            for name, endpoint, seen, offset in rows
        )

    def runs(self, start: datetime, end: datetime) -> tuple[RunRow, ...]:
        """The runs of the daemons that overlap [start, end), in the order of their starts."""
        rows = self._connection.execute(
            "SELECT machine.name, boot_id, version, model, sha256, up_since_ms, first_ms, last_ms FROM run "
            "JOIN machine ON machine.id = machine WHERE first_ms < ? AND last_ms >= ? ORDER BY first_ms",
            (to_ms(end), to_ms(start)),
        )
        return tuple(RunRow(*row[:5], *(from_ms(time_ms) for time_ms in row[5:])) for row in rows)

    def streams(self) -> tuple[StreamRow, ...]:
        """All streams, by machine and name."""
        return tuple(each for _, each in self._numbered_streams())

    def labels(self) -> tuple[Label, ...]:
        """All labels that had a score or an event, by name."""
        rows = self._connection.execute("SELECT mid, name FROM label WHERE mid != name ORDER BY name")
        return tuple(Label(-1, mid, name) for mid, name in rows)

    def statistics(self, wanted: EventFilter, zone: tzinfo) -> Statistics:
        """Counts of the events that the filter wants, by hour, weekday and day of this time zone."""
        return statistics.statistics(self._connection, wanted, zone)

    def first(self) -> datetime | None:
        """The start of the oldest event; None if there is none."""
        row = self._connection.execute("SELECT min(start_ms) FROM event").fetchone()
        return _time(row[0])

    def _numbered_streams(self) -> Iterator[tuple[int, StreamRow]]:
        for number, machine, name in self._connection.execute(queries.STREAMS).fetchall():
            query = "SELECT max(start_ms) FROM event INDEXED BY event_by_stream WHERE stream = ?"
            yield number, StreamRow(machine, name, _time(self._connection.execute(query, (number,)).fetchone()[0]))

    def _stream(self, machine: str, stream: str) -> int:
        found = queries.stream_ids(self._connection, [f"{machine}/{stream}"])
        if not found:
            raise HistoryError(f"{self.path}: has no stream {machine}/{stream}")
        return found[0]


def _time(time_ms: int | None) -> datetime | None:
    return None if time_ms is None else from_ms(time_ms)


def _concerns(span: SpanRow, streams: Collection[str]) -> bool:
    """Whether it says something of one of these streams, `machine/stream` or `stream`; of any if there are none."""
    if not streams:
        return True
    if span.stream is not None:
        return span.stream in streams or f"{span.machine}/{span.stream}" in streams
    return any("/" not in each or each.partition("/")[0] == span.machine for each in streams)


def _time_line(
    rows: Sequence[tuple[int, int, int, int, int, int]], names: dict[str, int], labels: dict[int, str], limit: int
) -> EventTimeLine:
    complete, rows = len(rows) <= limit, rows[:limit]
    full_names = {number: name for name, number in names.items()}
    used = sorted({row[1] for row in rows}, key=full_names.__getitem__)
    used_labels = sorted({row[2] for row in rows}, key=labels.__getitem__)
    stream_places, label_places = ({each: i for i, each in enumerate(some)} for some in (used, used_labels))
    return EventTimeLine(
        ids=tuple(row[0] for row in rows),
        streams=tuple(stream_places[row[1]] for row in rows),
        labels=tuple(label_places[row[2]] for row in rows),
        start_ms=tuple(row[3] for row in rows),
        end_ms=tuple(row[4] for row in rows),
        peaks=tuple(row[5] / 1000 for row in rows),
        names=tuple(full_names[each] for each in used),
        label_names=tuple(labels[each] for each in used_labels),
        complete=complete,
    )
