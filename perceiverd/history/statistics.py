"""Sums over many rows: counts by hour, weekday and label, and heat maps. One pass over an index each."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo

from perceiverd.core.errors import HistoryError
from perceiverd.history.filters import EventFilter
from perceiverd.history.minutes import MINUTE_MS
from perceiverd.history.queries import STREAMS, ranges
from perceiverd.history.rows import HeatMap, LabelTally, Statistics, StreamRow, from_ms, to_ms

QUARTER_MS = 15 * MINUTE_MS
"""Every time zone is ahead of UTC by a multiple of this."""
HOUR_MINUTES = 60
MOST_MINUTES = 7 * 24 * 60


def statistics(connection: sqlite3.Connection, wanted: EventFilter, zone: tzinfo) -> Statistics:
    """The counts; see `HistoryReader.statistics`."""
    quarters: Counter[int] = Counter()
    streams: Counter[int] = Counter()
    labels: dict[int, list[int]] = {}
    for part in ranges(connection, wanted):
        # Grouped by SQLite, which is several times faster than a loop here; the order of the index makes groups short.
        rows = connection.execute(
            f"SELECT start_ms / {QUARTER_MS}, stream, label, count(*), sum(end_ms - start_ms), max(peak_pm), "
            f"max(start_ms) FROM event INDEXED BY {part.index} WHERE {part.where} GROUP BY 1, 2, 3",
            part.values,
        )
        for quarter, stream, label, count, lasted_ms, peak_pm, last_ms in rows:
            quarters[quarter] += count
            streams[stream] += count
            tally = labels.setdefault(label, [0, 0, 0, 0])
            tally[0] += count
            tally[1] += lasted_ms
            tally[2] = max(tally[2], peak_pm)
            tally[3] = max(tally[3], last_ms)
    return _named(connection, quarters, streams, labels, zone)


def _named(
    connection: sqlite3.Connection,
    quarters: Counter[int],
    streams: Counter[int],
    labels: dict[int, list[int]],
    zone: tzinfo,
) -> Statistics:
    names = {number: (mid, name) for number, mid, name in connection.execute("SELECT id, mid, name FROM label")}
    full_names = {number: f"{machine}/{name}" for number, machine, name in connection.execute(STREAMS)}
    hours, weekdays, days = [0] * 24, [0] * 7, Counter[date]()
    for quarter, count in quarters.items():
        local = from_ms(quarter * QUARTER_MS).astimezone(zone)
        hours[local.hour] += count
        weekdays[local.weekday()] += count
        days[local.date()] += count
    return Statistics(
        events=quarters.total(),
        by_label=tuple(
            LabelTally(*names[label], count, lasted_ms / 1000, peak_pm / 1000, from_ms(last_ms))
            for label, (count, lasted_ms, peak_pm, last_ms) in sorted(labels.items(), key=lambda item: -item[1][0])
        ),
        by_stream={full_names[stream]: count for stream, count in streams.most_common()},
        by_hour=tuple(hours),
        by_weekday=tuple(weekdays),
        by_day=dict(sorted(days.items())),
    )


def heat_map(
    connection: sqlite3.Connection, stream: int, first: int, last: int, most: int, mids: Collection[str]
) -> HeatMap:
    """The minutes `first` to `last - 1` of a stream; see `HistoryReader.heat_map`."""
    if not 0 < last - first <= MOST_MINUTES:
        raise HistoryError(f"a heat map has 1 to {MOST_MINUTES} minutes, not {last - first}; choose another time")
    windows = [0] * (last - first)
    for minute, count in connection.execute(
        "SELECT minute, windows FROM minute WHERE stream = ? AND minute >= ? AND minute < ?", (stream, first, last)
    ):
        windows[minute - first] = count
    names = {
        number: (mid, name)
        for number, mid, name in connection.execute("SELECT id, mid, name FROM label")
        if not mids or mid in mids
    }
    best: dict[int, list[float]] = {}
    mean: dict[int, list[float]] = {}
    for minute, label, best_pm, sum_pm in connection.execute(
        "SELECT minute, label, best_pm, sum_pm FROM score WHERE stream = ? AND minute >= ? AND minute < ?",
        (stream, first, last),
    ):
        if label in names:
            place = minute - first
            best.setdefault(label, [0.0] * len(windows))[place] = best_pm / 1000
            mean.setdefault(label, [0.0] * len(windows))[place] = round(sum_pm / 1000 / max(1, windows[place]), 3)
    chosen = sorted(best, key=lambda label: (-max(best[label]), -sum(best[label])))[: None if mids else most]
    return HeatMap(
        start=from_ms(first * MINUTE_MS),
        minutes=len(windows),
        windows=tuple(windows),
        mids=tuple(names[label][0] for label in chosen),
        names=tuple(names[label][1] for label in chosen),
        best=tuple(tuple(best[label]) for label in chosen),
        mean=tuple(tuple(mean[label]) for label in chosen),
    )


def windows_by_hour(
    connection: sqlite3.Connection, start: datetime, end: datetime, streams: Mapping[int, StreamRow]
) -> dict[str, tuple[int, ...]]:
    """See `HistoryReader.windows`."""
    begin = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    hours = max(0, -(-(end - begin) // timedelta(hours=1)))
    first = to_ms(begin) // MINUTE_MS
    found = {}
    for number, stream in streams.items():
        counts = [0] * hours
        for hour, count in connection.execute(
            "SELECT (minute - ?) / ?, sum(windows) FROM minute "
            "WHERE stream = ? AND minute >= ? AND minute < ? GROUP BY 1",
            (first, HOUR_MINUTES, number, first, first + hours * HOUR_MINUTES),
        ):
            counts[hour] = count
        found[stream.full_name] = tuple(counts)
    return found
