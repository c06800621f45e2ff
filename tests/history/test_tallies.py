"""The stored sums, against the events themselves: whatever is added, changed and removed."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.history.filters import EventFilter
from perceiverd.history.retention import Retention
from perceiverd.history.rows import from_ms
from perceiverd.history.schema import APPLICATION_ID, MIGRATIONS, VERSION, migrate
from perceiverd.history.tallies import DAY_MS, QUARTER_MS, Tallies, tallies_of

MIDS = ("/m/0bt9lr", "/m/04rlf", "/m/03m9d0z")
FIRST_MS = 20_000 * DAY_MS
LONGEST_MS = 5 * DAY_MS
Row = tuple[int, int, int, int, int, int]
"""Number, stream, label, start, end, peak."""

times = st.one_of(
    st.integers(0, LONGEST_MS),
    st.builds(lambda quarter, off: max(0, quarter * QUARTER_MS + off), st.integers(0, 480), st.integers(-1, 1)),
)
events = st.tuples(st.integers(1, 3), st.integers(1, 3), times, st.integers(0, 9000), st.integers(0, 7))
actions = st.one_of(
    st.tuples(st.just("add"), events),
    st.tuples(st.just("change"), st.tuples(st.integers(0, 30), st.integers(0, 9000), st.integers(0, 7))),
    st.tuples(st.just("remove"), st.integers(0, 30)),
    st.tuples(st.just("age"), times),
)


@contextmanager
def history(version: int = VERSION) -> Iterator[sqlite3.Connection]:
    """A history in memory, of this version of the schema, with three streams and three labels."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for script in MIGRATIONS[:version]:
        connection.executescript(script)
    connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};")
    connection.execute("INSERT INTO machine VALUES (1, 'house', '', 0, 0)")
    connection.execute("INSERT INTO run VALUES (1, 1, 'boot', '1', 'm', '0', 0, 0, 0)")
    connection.executemany("INSERT INTO stream VALUES (?, 1, ?)", ((i, f"s{i}") for i in (1, 2, 3)))
    connection.executemany("INSERT INTO label VALUES (?, ?, ?)", ((i + 1, mid, mid) for i, mid in enumerate(MIDS)))
    yield connection
    connection.close()


def act(connection: sqlite3.Connection, number: int, action: tuple[str, Any]) -> None:
    """Do to the events what the writer and the retention do."""
    kind, what = action
    match kind:
        case "add":
            stream, label, start, lasts, peak = what
            start += FIRST_MS
            values = (number, stream, f"k{number}", label, start, start + lasts, peak)
            connection.execute("INSERT INTO event VALUES (?, ?, 1, ?, ?, ?, ?, 1, ?, 1, x'')", values)
        case "change":
            at, lasts, peak = what
            statement = "UPDATE event SET end_ms = start_ms + ?, peak_pm = ?, state = 1 WHERE id = ?"
            connection.execute(statement, (lasts, peak, at))
        case "remove":
            connection.execute("DELETE FROM event WHERE id = ?", (what,))
        case "age":
            for _ in Retention(connection, 0, 0, 1 << 40).steps(FIRST_MS + what):
                pass


def rows_of(connection: sqlite3.Connection) -> list[Row]:
    return connection.execute("SELECT id, stream, label, start_ms, end_ms, peak_pm FROM event").fetchall()


def counted(rows: list[Row], wanted: Callable[[Row], bool]) -> Tallies:
    """The tallies in plain words."""
    tallies = Tallies()
    for row in filter(wanted, rows):
        _, stream, label, start, end, peak = row
        tallies.quarters[start // QUARTER_MS] += 1
        tallies.streams[stream] += 1
        tallies.add_label(label, 1, end - start, peak, start)
    return tallies


def stored(connection: sqlite3.Connection) -> list[list[tuple[int, ...]]]:
    return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("label_day", "stream_day", "quarter")]


def expected(rows: list[Row]) -> list[list[tuple[int, ...]]]:
    """What the three tables must have."""
    labels, streams, quarters = dict[tuple[int, int], tuple[int, ...]](), Counter[tuple[int, int]](), Counter[int]()
    for _, stream, label, start, end, peak in rows:
        before = labels.get((label, start // DAY_MS), (0, 0, 0, 0))
        sums = (before[0] + 1, before[1] + end - start, max(before[2], peak), max(before[3], start))
        labels[label, start // DAY_MS] = sums
        streams[stream, start // DAY_MS] += 1
        quarters[start // QUARTER_MS] += 1
    return [
        sorted((*key, *sums) for key, sums in labels.items()),
        sorted((*key, count) for key, count in streams.items()),
        sorted(quarters.items()),
    ]


@given(st.lists(actions, max_size=30))
def test_stored_sums_are_those_of_the_events(done: list[tuple[str, Any]]) -> None:
    """After each addition, change, removal and run of the retention."""
    with history() as connection:
        for number, action in enumerate(done):
            act(connection, number, action)
            assert stored(connection) == expected(rows_of(connection))


@given(st.lists(events, max_size=20))
def test_a_migration_sums_what_is_there(made: list[tuple[int, ...]]) -> None:
    """A history of the version before has the same sums as one that had them from the start."""
    with history(2) as connection:
        for number, each in enumerate(made):
            act(connection, number, ("add", each))
        assert migrate(connection) == 2
        assert stored(connection) == expected(rows_of(connection))


@given(
    st.lists(events, max_size=30),
    st.one_of(st.none(), times),
    st.one_of(st.none(), times),
    st.one_of(st.none(), st.sets(st.sampled_from(MIDS))),
    st.sampled_from([0, 3]),
    st.sampled_from([(), ("s1", "s3")]),
)
def test_tallies_count_the_events_that_a_filter_wants(
    made: list[tuple[int, ...]],
    after: int | None,
    before: int | None,
    mids: set[str] | None,
    least_pm: int,
    streams: tuple[str, ...],
) -> None:
    """Whole days come from the stored sums and the ends from the events; together they are as if all were counted."""

    def wants(row: Row) -> bool:
        _, stream, label, start, _, peak = row
        return (
            (after is None or start >= FIRST_MS + after)
            and (before is None or start < FIRST_MS + before)
            and (mids is None or MIDS[label - 1] in mids)
            and peak >= least_pm
            and (not streams or f"s{stream}" in streams)
        )

    def moment(offset: int | None) -> datetime | None:
        return None if offset is None else from_ms(FIRST_MS + offset)

    wanted = EventFilter(streams, mids, moment(after), moment(before), least_pm / 1000)
    with history() as connection:
        for number, each in enumerate(made):
            act(connection, number, ("add", each))
        found, due = tallies_of(connection, wanted), counted(rows_of(connection), wants)
    assert (found.quarters, found.streams, found.labels) == (due.quarters, due.streams, due.labels)


def test_the_last_day_that_a_time_can_name_has_no_events() -> None:
    """The day after it has no date."""
    latest = datetime.max.replace(tzinfo=UTC)
    with history() as connection:
        act(connection, 1, ("add", (1, 1, 5, 5, 5)))
        for noon in (latest, latest.replace(hour=12, minute=0)):
            assert not tallies_of(connection, EventFilter(after=noon)).labels
            assert tallies_of(connection, EventFilter(before=noon)).labels == {1: (1, 5, 5, FIRST_MS + 5)}


def test_statistics_of_days_read_no_event() -> None:
    """All events, and those of whole days, are counted without the table of events or one of its indexes."""
    with history() as connection:
        act(connection, 1, ("add", (1, 1, 5, 5, 5)))
        read: list[str] = []
        connection.set_trace_callback(read.append)
        midnight = from_ms(FIRST_MS + 2 * DAY_MS)
        for wanted in (EventFilter(), EventFilter(after=from_ms(FIRST_MS)), EventFilter(before=midnight)):
            read.clear()
            assert tallies_of(connection, wanted).labels == {1: (1, 5, 5, FIRST_MS + 5)}
            edges = [each for each in read if "FROM event " in each]
            assert all(
                f"start_ms < {FIRST_MS}" in each or f"start_ms >= {FIRST_MS + 2 * DAY_MS}" in each for each in edges
            )


@pytest.mark.parametrize("index", ["event_by_stream", "event_by_label", "event_by_time"])
def test_counts_need_nothing_but_an_index(index: str) -> None:
    """The indexes that filters use have every column that counts and sums need."""
    with history() as connection:
        columns = "start_ms / 900000, stream, label, end_ms - start_ms, peak_pm"
        plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT {columns} FROM event INDEXED BY {index}").fetchall()
    assert f"USING COVERING INDEX {index}" in plan[0][3]
