"""The tables of the history, their versions, and how an older file is brought to the newest version.

SQLite's `user_version` holds the version, and `application_id` says that the file is ours. Times are milliseconds since
1970 in UTC (`_ms`), or minutes (`minute`); scores are thousandths (`_pm`, 0..1000): integers are small in SQLite.
"""

from __future__ import annotations

import sqlite3

from perceiverd.core.errors import HistoryError

APPLICATION_ID = 0x50435648
"""`PCVH`."""

VERSION_1 = """
CREATE TABLE machine (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    endpoint TEXT NOT NULL,
    seen_ms INTEGER,        -- when its last message was received, by the clock of this machine
    offset_ms INTEGER       -- how far its clock is ahead of ours; NULL if unknown
);
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    machine INTEGER NOT NULL REFERENCES machine,
    name TEXT NOT NULL,
    UNIQUE (machine, name)
);
CREATE TABLE label (
    id INTEGER PRIMARY KEY,
    mid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL
);
-- One run of a daemon, from its start to its end.
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    machine INTEGER NOT NULL REFERENCES machine,
    boot_id TEXT NOT NULL,
    version TEXT NOT NULL,
    model TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    up_since_ms INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,  -- when its first and last messages were received
    last_ms INTEGER NOT NULL,
    UNIQUE (machine, boot_id)
);
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL REFERENCES stream,
    run INTEGER NOT NULL REFERENCES run,
    key TEXT NOT NULL,          -- its id in the messages, unique in one run of the daemon
    label INTEGER NOT NULL REFERENCES label,
    start_ms INTEGER NOT NULL,
    end_ms INTEGER NOT NULL,
    state INTEGER NOT NULL,     -- 0 open, 1 ended, 2 its end was not received
    peak_pm INTEGER NOT NULL,
    mean_pm INTEGER NOT NULL,
    details BLOB NOT NULL       -- JSON, see rows.Details
);
CREATE UNIQUE INDEX event_by_key ON event (run, stream, key);
CREATE INDEX event_by_time ON event (start_ms, peak_pm, label, stream, end_ms);
CREATE INDEX event_by_stream ON event (stream, start_ms, peak_pm);
CREATE INDEX event_by_label ON event (label, start_ms, peak_pm, stream);
CREATE INDEX event_open ON event (stream) WHERE state = 0;
-- The windows around an event's begin and end, see traces.py.
CREATE TABLE trace (
    event INTEGER PRIMARY KEY REFERENCES event ON DELETE CASCADE,
    windows BLOB NOT NULL
);
-- The states of a stream, and times without messages; end_ms is NULL while it lasts.
CREATE TABLE span (
    id INTEGER PRIMARY KEY,
    machine INTEGER NOT NULL REFERENCES machine,
    stream INTEGER REFERENCES stream,   -- NULL for all streams of the machine
    kind TEXT NOT NULL,
    start_ms INTEGER NOT NULL,
    end_ms INTEGER,
    missed INTEGER NOT NULL,
    what TEXT NOT NULL
);
CREATE INDEX span_by_time ON span (start_ms);
CREATE INDEX span_open ON span (machine, stream) WHERE end_ms IS NULL;
-- How many windows of a stream were received in each minute: none means that nothing was listening.
CREATE TABLE minute (
    stream INTEGER NOT NULL REFERENCES stream,
    minute INTEGER NOT NULL,
    windows INTEGER NOT NULL,
    heard INTEGER NOT NULL,     -- windows with audio
    seen INTEGER NOT NULL,      -- windows with video
    dropped INTEGER NOT NULL,   -- windows that the daemon did not tag
    PRIMARY KEY (stream, minute)
) WITHOUT ROWID;
CREATE TABLE score (
    stream INTEGER NOT NULL REFERENCES stream,
    minute INTEGER NOT NULL,
    label INTEGER NOT NULL REFERENCES label,
    best_pm INTEGER NOT NULL,
    sum_pm INTEGER NOT NULL,    -- over the windows of the minute; their number is in `minute`
    PRIMARY KEY (stream, minute, label)
) WITHOUT ROWID;
"""

VERSION_2 = """
-- Rare scores are found by bands of the highest score, and counts by quarters of an hour without sorting.
CREATE INDEX event_by_score ON event (peak_pm / 50, start_ms, peak_pm);
CREATE INDEX event_by_quarter ON event (start_ms / 900000, start_ms, peak_pm);
-- With the duration, so that sums by label need nothing but the index.
DROP INDEX event_by_label;
CREATE INDEX event_by_label ON event (label, start_ms, peak_pm, stream, end_ms);
"""

VERSION_3 = """
-- Sums over the events that began on one day of UTC, or in one quarter of an hour, so that statistics of a year do not
-- read each event. Triggers keep them: they are right after every statement, whoever writes or removes events.
CREATE TABLE label_day (
    label INTEGER NOT NULL REFERENCES label,
    day INTEGER NOT NULL,           -- days since 1970
    events INTEGER NOT NULL,
    lasted_ms INTEGER NOT NULL,     -- all their durations together
    peak_pm INTEGER NOT NULL,       -- the highest score of all
    last_ms INTEGER NOT NULL,       -- the start of the last one
    PRIMARY KEY (label, day)
) WITHOUT ROWID;
CREATE TABLE stream_day (
    stream INTEGER NOT NULL REFERENCES stream,
    day INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (stream, day)
) WITHOUT ROWID;
CREATE TABLE quarter (
    quarter INTEGER PRIMARY KEY,    -- quarters of an hour since 1970
    events INTEGER NOT NULL
);
-- With the label and the duration, so that sums by stream need nothing but the index.
DROP INDEX event_by_stream;
CREATE INDEX event_by_stream ON event (stream, start_ms, peak_pm, label, end_ms);
INSERT INTO label_day
    SELECT label, start_ms / 86400000, count(*), sum(end_ms - start_ms), max(peak_pm), max(start_ms)
    FROM event INDEXED BY event_by_label GROUP BY 1, 2;
INSERT INTO stream_day
    SELECT stream, start_ms / 86400000, count(*) FROM event INDEXED BY event_by_stream GROUP BY 1, 2;
INSERT INTO quarter SELECT start_ms / 900000, count(*) FROM event INDEXED BY event_by_quarter GROUP BY 1;
CREATE TRIGGER event_added AFTER INSERT ON event BEGIN
    INSERT INTO label_day
        VALUES (new.label, new.start_ms / 86400000, 1, new.end_ms - new.start_ms, new.peak_pm, new.start_ms)
        ON CONFLICT DO UPDATE SET events = events + 1, lasted_ms = lasted_ms + excluded.lasted_ms,
            peak_pm = max(peak_pm, excluded.peak_pm), last_ms = max(last_ms, excluded.last_ms);
    INSERT INTO stream_day VALUES (new.stream, new.start_ms / 86400000, 1)
        ON CONFLICT DO UPDATE SET events = events + 1;
    INSERT INTO quarter VALUES (new.start_ms / 900000, 1) ON CONFLICT DO UPDATE SET events = events + 1;
END;
CREATE TRIGGER event_changed AFTER UPDATE OF end_ms, peak_pm ON event BEGIN
    UPDATE label_day SET lasted_ms = lasted_ms + new.end_ms - old.end_ms,
        peak_pm = iif(peak_pm > old.peak_pm, max(peak_pm, new.peak_pm), (
            SELECT max(peak_pm) FROM event INDEXED BY event_by_label WHERE label = new.label
                AND start_ms >= day * 86400000 AND start_ms < (day + 1) * 86400000))
        WHERE label = new.label AND day = new.start_ms / 86400000;
END;
-- A highest score and a last start that are gone are searched for again, among the events of the same label and day.
CREATE TRIGGER event_removed AFTER DELETE ON event BEGIN
    DELETE FROM label_day WHERE label = old.label AND day = old.start_ms / 86400000 AND events = 1;
    UPDATE label_day SET events = events - 1, lasted_ms = lasted_ms - (old.end_ms - old.start_ms),
        peak_pm = iif(peak_pm > old.peak_pm, peak_pm, (
            SELECT max(peak_pm) FROM event INDEXED BY event_by_label WHERE label = old.label
                AND start_ms >= day * 86400000 AND start_ms < (day + 1) * 86400000)),
        last_ms = iif(last_ms > old.start_ms, last_ms, (
            SELECT max(start_ms) FROM event INDEXED BY event_by_label WHERE label = old.label
                AND start_ms >= day * 86400000 AND start_ms < (day + 1) * 86400000))
        WHERE label = old.label AND day = old.start_ms / 86400000;
    DELETE FROM stream_day WHERE stream = old.stream AND day = old.start_ms / 86400000 AND events = 1;
    UPDATE stream_day SET events = events - 1 WHERE stream = old.stream AND day = old.start_ms / 86400000;
    DELETE FROM quarter WHERE quarter = old.start_ms / 900000 AND events = 1;
    UPDATE quarter SET events = events - 1 WHERE quarter = old.start_ms / 900000;
END;
"""

MIGRATIONS = (VERSION_1, VERSION_2, VERSION_3)
"""The script at position N turns version N into version N + 1. A settled script never changes."""
VERSION = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int:
    """The version of this file; 0 if it is empty. Raises HistoryError if it is not a history, or newer than this code.

    Raises sqlite3.Error if it cannot be read.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        if version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise HistoryError("is not a history of perceiverd; give another file")
        return 0
    if version > VERSION:
        raise HistoryError(f"has schema {version}, and this version reads up to {VERSION}; update perceiverd")
    return version


def migrate(connection: sqlite3.Connection) -> int:
    """Bring the file to the newest version, each step in one transaction; returns the version that it had.

    A migration that is interrupted leaves the older version. Raises HistoryError as `version_of` does.
    """
    before = version_of(connection)
    for number in range(before, VERSION):
        if number == 0:  # before a table exists: it cannot be changed later without rewriting the file
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {MIGRATIONS[number]}; PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {number + 1}; COMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise
    return before
