"""Sums over many rows: counts by hour, weekday and label, and heat maps. One pass over an index each."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache, partial

from perceiverd.core.errors import HistoryError
from perceiverd.history.filters import EventFilter
from perceiverd.history.minutes import MINUTE_MS
from perceiverd.history.queries import STREAMS
from perceiverd.history.rows import HeatMap, LabelTally, Statistics, StreamRow, from_ms, to_ms
from perceiverd.history.tallies import QUARTER_MS, tallies_of

EPOCH = date(1970, 1, 1)
QUARTER_S, HOUR_S, DAY_S = QUARTER_MS // 1000, 3600, 86_400
HOUR_MINUTES = 60
MOST_MINUTES = 7 * 24 * 60


def statistics(connection: sqlite3.Connection, wanted: EventFilter, zone: tzinfo) -> Statistics:
    """The counts; see `HistoryReader.statistics`."""
    connection.execute("BEGIN")
    try:
        tallies = tallies_of(connection, wanted)
        names = {number: (mid, name) for number, mid, name in connection.execute("SELECT id, mid, name FROM label")}
        full_names = {number: f"{machine}/{name}" for number, machine, name in connection.execute(STREAMS)}
    finally:
        connection.execute("COMMIT")
    ordered = sorted(tallies.labels.items(), key=lambda item: -item[1][0])
    hours, weekdays, days = _local(tallies.quarters, zone)
    return Statistics(
        events=tallies.quarters.total(),
        by_label=tuple(
            LabelTally(*names[label], count, lasted_ms / 1000, peak_pm / 1000, from_ms(last_ms))
            for label, (count, lasted_ms, peak_pm, last_ms) in ordered
        ),
        by_stream={full_names[stream]: count for stream, count in tallies.streams.most_common()},
        by_hour=tuple(hours),
        by_weekday=tuple(weekdays),
        by_day=dict(days),
    )


def _local(quarters: Counter[int], zone: tzinfo) -> tuple[list[int], list[int], Counter[date]]:
    """The same counts by hour, weekday and day of a time zone."""
    hours, weekdays, days = [0] * 24, [0] * 7, Counter[int]()
    ahead_s = cache(partial(_ahead_s, zone))
    for quarter, count in quarters.items():
        day, at_s = divmod(quarter * QUARTER_S, DAY_S)
        shift_s = ahead_s(day * DAY_S)
        if shift_s != ahead_s((day + 1) * DAY_S):  # the clocks change on this day
            shift_s = _ahead_s(zone, day * DAY_S + at_s)
        days_later, local_s = divmod(at_s + shift_s, DAY_S)
        hours[local_s // HOUR_S] += count
        days[day + days_later] += count
    for day, count in days.items():
        weekdays[(day + EPOCH.weekday()) % 7] += count
    return hours, weekdays, Counter({EPOCH + timedelta(days=day): days[day] for day in sorted(days)})


def _ahead_s(zone: tzinfo, utc_s: int) -> int:
    """Seconds that the zone's clocks are ahead of UTC at this time."""
    offset = datetime.fromtimestamp(utc_s, zone).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


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
