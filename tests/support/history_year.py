"""A synthetic year of history, and how long its queries take: `python -m tests.support.history_year FOLDER`.

The rows are written with plain SQL, in the shapes that the writer gives them. Events come in bursts by day, few labels
are frequent and many are rare, and scores exist for the last 90 days, as the default retention keeps them.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from perceiverd.core.labels import ontology
from perceiverd.history import EventFilter, HistoryReader, find_labels
from perceiverd.history.backup import back_up
from perceiverd.history.opening import FILE, open_writer
from perceiverd.history.retention import Retention, size_of
from perceiverd.history.rows import Details, to_ms
from perceiverd.history.schema import VERSION
from perceiverd.history.traces import packed

END = datetime(2026, 11, 1, tzinfo=UTC)
HOUR_WEIGHTS = [1, 1, 1, 1, 1, 2, 4, 8, 9, 7, 6, 6, 7, 6, 6, 7, 8, 9, 10, 8, 6, 4, 3, 2]
"""How busy each hour of a day is."""


@dataclass(frozen=True)
class Year:
    """How much is made."""

    streams: int = 30
    events: int = 2_000_000
    days: int = 365
    score_days: int = 90
    labels_a_minute: int = 3


def fill(connection: sqlite3.Connection, year: Year, seed: int = 7) -> None:
    """Write the year into an empty history."""
    rng = random.Random(seed)
    labels = [(label.mid, label.name) for label in ontology().labels]
    rng.shuffle(labels)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO machine VALUES (1, 'house', 'ipc:///run/perceiverd/labels', ?, 0)", (to_ms(END),))
    connection.execute(
        "INSERT INTO run VALUES (1, 1, ?, '1', 'm', '0', ?, ?, ?)",
        ("ab" * 16, to_ms(END - timedelta(days=year.days)), to_ms(END - timedelta(days=year.days)), to_ms(END)),
    )
    connection.executemany("INSERT INTO stream VALUES (?, 1, ?)", ((i + 1, f"cam{i + 1}") for i in range(year.streams)))
    connection.executemany("INSERT INTO label VALUES (?, ?, ?)", ((i + 1, *each) for i, each in enumerate(labels)))
    connection.executemany(
        "INSERT INTO event VALUES (?, ?, 1, ?, ?, ?, ?, 1, ?, ?, ?)", _events(rng, year, len(labels))
    )
    first_traced = year.events - year.events * year.score_days // year.days
    traces = [_trace(rng) for _ in range(200)]
    connection.executemany(
        "INSERT INTO trace VALUES (?, ?)", ((i, rng.choice(traces)) for i in range(first_traced + 1, year.events + 1))
    )
    last = to_ms(END) // 60_000
    minutes = range(last - year.score_days * 1440, last)
    for stream in range(1, year.streams + 1):
        connection.executemany(
            "INSERT INTO minute VALUES (?, ?, 120, 120, 120, 0)", ((stream, each) for each in minutes)
        )
        connection.executemany(
            "INSERT INTO score VALUES (?, ?, ?, ?, ?)",
            (
                (stream, each, label, rng.randrange(50, 1000), rng.randrange(50, 60_000))
                for each in minutes
                for label in sorted(rng.sample(range(1, 60), year.labels_a_minute))
            ),
        )
    connection.execute("COMMIT")


def _events(rng: random.Random, year: Year, labels: int) -> Iterator[tuple[object, ...]]:
    first = END - timedelta(days=year.days)
    weights = [1 / (i + 1) for i in range(labels)]
    hours = rng.choices(range(24), HOUR_WEIGHTS, k=year.events)
    starts = sorted(
        to_ms(first) + rng.randrange(year.days) * 86_400_000 + hour * 3_600_000 + rng.randrange(3_600_000)
        for hour in hours
    )
    chosen = rng.choices(range(1, labels + 1), weights, k=year.events)
    details = [msgspec.json.encode(_details(rng)) for _ in range(100)]
    for number, (start, label) in enumerate(zip(starts, chosen, strict=True), 1):
        lasted = round(1000 * min(3600, rng.lognormvariate(1.5, 1)))
        peak = rng.randrange(300, 1000)
        yield (
            *(number, rng.randrange(year.streams) + 1, f"{label}-{number}", label),
            *(start, start + lasted, peak, peak // 2, rng.choice(details)),
        )


def _details(rng: random.Random) -> Details:
    return Details(
        start_s=rng.random() * 1e6,
        modalities=("audio", "video"),
        on=0.3,
        off=0.14,
        since=END,
        began="confirmed",
        begin_score=round(rng.random(), 6),
        score=round(rng.random(), 6),
        windows=rng.randrange(2, 40),
        ended="faded",
    )


def _trace(rng: random.Random) -> bytes:
    """60 windows of half a second with six labels."""
    labels = rng.sample(range(1, 528), 12)
    at = to_ms(END)
    return packed((at + 500 * i, {each: rng.randrange(1000) for each in rng.sample(labels, 6)}) for i in range(60))


def queries(reader: HistoryReader) -> dict[str, Callable[[], object]]:
    """What pages and commands ask for."""
    day, zone = END - timedelta(days=3), ZoneInfo("Europe/Berlin")
    animals, rare = find_labels(["Animal"]), find_labels([reader.labels()[0].name])
    deep = reader.events(EventFilter(before=END - timedelta(days=300)), 50).next
    week = EventFilter(after=END - timedelta(days=7))
    return {
        "newest 50": lambda: reader.events(limit=50),
        "page 300 days back": lambda: reader.events(limit=50, before=deep),
        "one stream": lambda: reader.events(EventFilter(streams=("house/cam7",)), 50),
        "Animal and its descendants": lambda: reader.events(EventFilter(mids=animals), 50),
        "a rare label": lambda: reader.events(EventFilter(mids=rare), 50),
        "Animal on one stream, score >= 0.99": lambda: reader.events(
            EventFilter(mids=animals, streams=("cam7",), least_peak=0.99), 50
        ),
        "score >= 0.999": lambda: reader.events(EventFilter(least_peak=0.999), 50),
        "one event with its scores": lambda: (reader.event(1_234_567), reader.trace(1_990_000)),
        "a day as a time line": lambda: reader.time_line(day, day + timedelta(days=1)),
        "heat map of a day": lambda: reader.heat_map("house", "cam7", day, day + timedelta(days=1)),
        "states and gaps of a day": lambda: reader.spans(day, day + timedelta(days=1)),
        "windows by hour, a day": lambda: reader.windows(day, day + timedelta(days=1)),
        "streams": reader.streams,
        "count of all": reader.count,
        "statistics of a week": lambda: reader.statistics(week, zone),
        "statistics of a month": lambda: reader.statistics(EventFilter(after=END - timedelta(days=30)), zone),
        "statistics of the year": lambda: reader.statistics(EventFilter(), zone),
    }


def timed(call: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
    """The shortest of some calls, and the least CPU time, in milliseconds: other programs may keep the cores busy."""
    took, worked = [], []
    for _ in range(rounds):
        before, before_cpu = time.perf_counter(), time.process_time()
        call()
        took.append(time.perf_counter() - before)
        worked.append(time.process_time() - before_cpu)
    return 1000 * min(took), 1000 * min(worked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=2_000_000)
    arguments = parser.parse_args()
    path = arguments.folder / FILE
    if not path.exists():
        before = time.perf_counter()
        connection, _ = open_writer(path)
        fill(connection, Year(events=arguments.events))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        print(f"written in {time.perf_counter() - before:.0f} s")
    before = time.perf_counter()
    connection, version = open_writer(path)
    if version < VERSION:
        print(f"migrated from version {version} to {VERSION} in {time.perf_counter() - before:.1f} s")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    print(f"size {size_of(path) / 1e6:.0f} MB")
    with HistoryReader(path) as reader:
        for name, call in queries(reader).items():
            took, worked = timed(call)
            print(f"{name:40} {took:8.1f} ms, CPU {worked:8.1f} ms", flush=True)
    copy = arguments.folder / "copy.sqlite3"
    copy.unlink(missing_ok=True)
    print(f"backup {timed(lambda: back_up(path, copy), 1)[0] / 1000:.1f} s", flush=True)
    connection, _ = open_writer(copy)
    retention = Retention(connection, 335, 60, 10**12)
    work = retention.steps(to_ms(END))
    steps = [timed(lambda: next(work, None), 1) for _ in range(40_000)]
    worked_s = sum(each[1] for each in steps) / 1000
    count = sum(each[1] > 0.01 for each in steps)
    print(f"retention of 30 days: {retention.removed} events, {count} steps, CPU {worked_s:.1f} s,", end=" ")
    print(f"the longest step {max(steps)[0]:.0f} ms; size {size_of(copy) / 1e6:.0f} MB, load {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
