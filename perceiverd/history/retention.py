"""Removes what is older than the operator wants, and the oldest when the file is too large. In small steps.

Each step is one short transaction, so that messages are received in between. Space that is freed inside the file is
given back to the disk in steps too.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from perceiverd.core.logs import log_event
from perceiverd.history.minutes import MINUTE_MS

logger = logging.getLogger("perceiverd.history")

DAY_MS = 86_400_000
STEP_ROWS = 500
"""Rows removed in one transaction, some milliseconds."""
STEP_MINUTES = 60
STEP_PAGES = 500
"""Pages given back to the disk in one transaction."""
FULL = 0.95
"""After the file was too large, it is cut to this part of its limit, so that this does not happen for each event."""


class Retention:
    """What is kept of one history, and for how long."""

    def __init__(self, connection: sqlite3.Connection, events_days: float, scores_days: float, most_bytes: int) -> None:
        self._connection = connection
        self._events_ms, self._scores_ms = round(events_days * DAY_MS), round(scores_days * DAY_MS)
        self._most_bytes = most_bytes
        self.removed = 0
        """Events removed so far."""

    def steps(self, now_ms: int) -> Iterator[None]:
        """Remove old rows step by step: the caller asks for each step. Raises sqlite3.Error."""
        yield from self._remove(now_ms - self._events_ms, now_ms - self._scores_ms)
        yield from self._shrink()
        if self._used_bytes() <= self._most_bytes:
            return
        before = self.removed
        for until_ms in self._oldest_days(now_ms):
            if self._used_bytes() <= self._most_bytes * FULL:
                break
            yield from self._remove(until_ms, until_ms)
        yield from self._shrink()
        log_event(
            logger,
            logging.WARNING,
            "history-cut",
            events=self.removed - before,
            size_mb=round(self._used_bytes() / 1e6),
            limit_mb=round(self._most_bytes / 1e6),
        )

    def _oldest_days(self, now_ms: int) -> Iterator[int]:
        """Times a day apart, from the oldest row on; today is never removed as a whole."""
        oldest_ms = min(
            self._first("SELECT min(start_ms) FROM event", now_ms),
            *(self._first("SELECT min(minute) FROM minute WHERE stream = ?", now_ms, each) for each in self._streams()),
            now_ms,
        )
        while oldest_ms < now_ms - DAY_MS:
            oldest_ms += DAY_MS
            yield oldest_ms

    def _first(self, query: str, otherwise_ms: int, *values: int) -> int:
        """The smallest time of a table, in milliseconds."""
        row = self._connection.execute(query, values).fetchone()
        if row[0] is None:
            return otherwise_ms
        return int(row[0]) * (MINUTE_MS if values else 1)

    def _streams(self) -> list[int]:
        return [row[0] for row in self._connection.execute("SELECT id FROM stream")]

    def _remove(self, events_ms: int, scores_ms: int) -> Iterator[None]:
        """Remove events, spans and traces that began before `events_ms`, and scores and traces before `scores_ms`."""
        yield from self._remove_scores(scores_ms)
        for table, before_ms in (("trace", scores_ms), ("event", events_ms)):
            column = "event" if table == "trace" else "id"
            while count := self._execute(
                f"DELETE FROM {table} WHERE {column} IN (SELECT {table}.{column} FROM event INDEXED BY event_by_time "
                + ("JOIN trace ON trace.event = event.id " if table == "trace" else "")
                + "WHERE start_ms < ? AND +state != 0 ORDER BY start_ms LIMIT ?)",
                (before_ms, STEP_ROWS),
            ):
                self.removed += count if table == "event" else 0
                yield
        self._execute("DELETE FROM span WHERE end_ms < ?", (events_ms,))
        self._execute(
            "DELETE FROM run WHERE last_ms < ? AND NOT EXISTS (SELECT 1 FROM event WHERE event.run = run.id)",
            (events_ms,),
        )
        yield

    def _remove_scores(self, before_ms: int) -> Iterator[None]:
        before = before_ms // MINUTE_MS
        for stream in self._streams():
            while True:
                first = self._connection.execute(
                    "SELECT min(minute) FROM minute WHERE stream = ?", (stream,)
                ).fetchone()[0]
                if first is None or first >= before:
                    break
                until = min(before, first + STEP_MINUTES)
                # The scores first: if a crash comes between, their minute still leads the next run to them.
                for table in ("score", "minute"):
                    self._execute(f"DELETE FROM {table} WHERE stream = ? AND minute < ?", (stream, until))
                yield

    def _shrink(self) -> Iterator[None]:
        """Give free pages back to the disk, except a few that the next rows need."""
        while self._pragma("freelist_count") > STEP_PAGES:
            self._connection.execute(f"PRAGMA incremental_vacuum({STEP_PAGES})").fetchall()
            yield

    def _used_bytes(self) -> int:
        """The size of the file without its free pages."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        value: int = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _execute(self, statement: str, values: tuple[int, ...]) -> int:
        return self._connection.execute(statement, values).rowcount


def size_of(path: Path) -> int:
    """Bytes of the database and of the log beside it."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(each.stat().st_size for each in files if each.exists())
