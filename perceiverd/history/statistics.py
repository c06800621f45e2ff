"""Sums over many rows: counts by hour, weekday and label, and heat maps. One pass over an index each."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo

from perceiverd.core.errors import HistoryError
from perceiverd.history.filters import EventFilter
from perceiverd.history.minutes import MINUTE_MS
from perceiverd.history.queries import STREAMS, ranges
from perceiverd.history.rows import HeatMap, LabelTally, Statistics, StreamRow, from_ms, to_ms, to_pm

QUARTER_MS = 15 * MINUTE_MS
"""Every time zone is ahead of UTC by a multiple of this."""
HOUR_MINUTES = 60
MOST_MINUTES = 7 * 24 * 60


@dataclass(slots=True)
class Tallies:
    """Counts by number of stream and label, and by quarter of an hour since 1970."""

    quarters: Counter[int] = field(default_factory=Counter)
    streams: Counter[int] = field(default_factory=Counter)
    labels: dict[int, list[int]] = field(default_factory=dict)
    """By label: events, milliseconds of all, highest score in thousandths, start of the last one."""


def statistics(connection: sqlite3.Connection, wanted: EventFilter, zone: tzinfo) -> Statistics:
    """The counts; see `HistoryReader.statistics`."""
    if wanted in (EventFilter(), EventFilter(least_peak=wanted.least_peak)):
        tallies = _of_everything(connection, to_pm(wanted.least_peak))
    else:
        tallies = _of_some(connection, wanted)
    return _named(connection, tallies, zone)


def _of_everything(connection: sqlite3.Connection, least_pm: int) -> Tallies:
    """The tallies of all events: SQLite groups in the order of an index, some times faster than a loop here."""

    def grouped(key: str, rest: str, index: str) -> sqlite3.Cursor:
        query = f"SELECT {key}, count(*){rest} FROM event INDEXED BY {index} WHERE peak_pm >= ? GROUP BY 1"
        return connection.execute(query, (least_pm,))

    sums = ", sum(end_ms - start_ms), max(peak_pm), max(start_ms)"
    return Tallies(
        quarters=Counter(dict(grouped(f"start_ms / {QUARTER_MS}", "", "event_by_quarter"))),
        streams=Counter(dict(grouped("stream", "", "event_by_stream"))),
        labels={label: values for label, *values in grouped("label", sums, "event_by_label")},
    )


def _of_some(connection: sqlite3.Connection, wanted: EventFilter) -> Tallies:
    """The tallies of what a filter wants, in one pass."""
    tallies = Tallies()
    quarters, streams, labels = tallies.quarters, tallies.streams, tallies.labels
    for part in ranges(connection, wanted):
        query = f"SELECT start_ms, end_ms, stream, label, peak_pm FROM event INDEXED BY {part.index} WHERE {part.where}"
        for start_ms, end_ms, stream, label, peak_pm in connection.execute(query, part.values):
            quarters[start_ms // QUARTER_MS] += 1
            streams[stream] += 1
            if (tally := labels.get(label)) is None:
                tally = labels[label] = [0, 0, 0, 0]
            tally[0] += 1
            tally[1] += end_ms - start_ms
            if peak_pm > tally[2]:
                tally[2] = peak_pm
            if start_ms > tally[3]:
                tally[3] = start_ms
    return tallies


def _named(connection: sqlite3.Connection, tallies: Tallies, zone: tzinfo) -> Statistics:
    names = {number: (mid, name) for number, mid, name in connection.execute("SELECT id, mid, name FROM label")}
    full_names = {number: f"{machine}/{name}" for number, machine, name in connection.execute(STREAMS)}
    ordered = sorted(tallies.labels.items(), key=lambda item: -item[1][0])
    hours, weekdays, days = [0] * 24, [0] * 7, Counter[date]()
    for quarter, count in tallies.quarters.items():
        local = from_ms(quarter * QUARTER_MS).astimezone(zone)
        hours[local.hour] += count
        weekdays[local.weekday()] += count
        days[local.date()] += count
    return Statistics(
        events=tallies.quarters.total(),
        by_label=tuple(
            LabelTally(*names[label], count, lasted_ms / 1000, peak_pm / 1000, from_ms(last_ms))
            for label, (count, lasted_ms, peak_pm, last_ms) in ordered
        ),
        by_stream={full_names[stream]: count for stream, count in tallies.streams.most_common()},
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
