"""Opening, migrating, backing up, and removing what is old."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC
from pathlib import Path

import pytest

from perceiverd.core.errors import HistoryError
from perceiverd.history import EventFilter, HistoryReader, opening
from perceiverd.history.backup import back_up
from perceiverd.history.opening import open_writer
from perceiverd.history.retention import DAY_MS, Retention, size_of
from perceiverd.history.rows import to_ms
from perceiverd.history.schema import APPLICATION_ID, MIGRATIONS, VERSION, migrate, version_of
from tests.support.history import START, Store, at, event, scores
from tests.support.messages import hello


def filled(folder: Path, days: int = 5, each: int = 40) -> Store:
    """A history with some events and a minute of scores every hour, from START on."""
    store = Store(folder)
    store.begin()
    store.receive(0, hello("door", boot_id="boot"))
    for day in range(days):
        for number in range(each):
            second = day * 86_400 + number * 600
            store.receive(second, event("begin", "Dog", second, second + 1), scores(second + 1, ("Dog", 0.5)))
            store.receive(second, event("end", "Dog", second, second + 5))
        store.end(second + 60)
    return store


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    """It stays as it is."""
    path = tmp_path / "other"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    before = path.read_bytes()
    for open_it in (open_writer, HistoryReader):
        with pytest.raises(HistoryError, match="is not a history of perceiverd"):
            open_it(path)
    assert path.read_bytes() == before


def test_text_is_refused(tmp_path: Path) -> None:
    """One line says that this is no database."""
    path = tmp_path / "notes"
    path.write_text("dear diary " * 100)
    with pytest.raises(HistoryError, match="file is not a database; move the file away"):
        open_writer(path)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    """An older program must not write to it, nor read it."""
    store = filled(tmp_path, 1)
    store.writer.connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    for open_it in (open_writer, HistoryReader):
        with pytest.raises(HistoryError, match=f"has schema {VERSION + 1}, and this version reads up to {VERSION}"):
            open_it(store.path)


def test_a_missing_history_is_one_line(tmp_path: Path) -> None:
    """It says how to begin one."""
    with pytest.raises(HistoryError, match="there is no history; start `perceiverd history run`"):
        HistoryReader(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_needs_no_right_to_write(tmp_path: Path) -> None:
    """With a writer and without one, another user reads the database in a folder that it may not write."""
    store = filled(tmp_path, 1)
    code = (  # imports first: the other user may not be allowed to read the modules
        "import encodings.idna, os, sys; from pathlib import Path; from perceiverd.history import HistoryReader; "
        "os.getuid() or os.setuid(65534); print(HistoryReader(Path(sys.argv[1])).count())"
    )
    for folder in tmp_path.parents[:3]:
        if folder.stat().st_uid == os.getuid() and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    tmp_path.chmod(0o555)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, store.path], capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "40", done.stderr
        store.writer.connection.close()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_a_history_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    """Another user gets an error that names the reason, not that there is no history."""
    store = filled(tmp_path, 1)
    code = (
        "import os, sys; from pathlib import Path; from perceiverd.history import HistoryReader; os.setuid(65534)\n"
        "try: HistoryReader(Path(sys.argv[1]))\nexcept Exception as error: print(error)"
    )
    for folder in tmp_path.parents[:3]:
        if folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    for closed in (store.path, tmp_path):
        tmp_path.chmod(0o755)
        closed.chmod(0o600)
        done = subprocess.run([sys.executable, "-c", code, store.path], capture_output=True, text=True, timeout=60)
        assert "this user may not read it" in done.stdout, done.stderr


def test_a_backup_is_complete_while_the_history_is_written(tmp_path: Path) -> None:
    """It has what was committed, opens without another file, and is for its owner only."""
    store = filled(tmp_path, 2)
    copy = tmp_path / "copy.sqlite3"
    store.writer.connection.execute("BEGIN IMMEDIATE")  # a writer in the middle of a transaction
    store.writer.connection.execute("DELETE FROM trace")
    store.writer.connection.execute("DELETE FROM event")
    assert back_up(store.path, copy) == copy.stat().st_size
    store.writer.connection.execute("ROLLBACK")
    assert copy.stat().st_mode & 0o077 == 0
    with HistoryReader(copy) as reader:
        assert reader.count() == 80
    assert {each.name for each in tmp_path.iterdir() if each.name.startswith("copy")} == {"copy.sqlite3"}
    with pytest.raises(HistoryError, match="exists already"):
        back_up(store.path, copy)


def test_retention_removes_what_is_old(tmp_path: Path) -> None:
    """Events and scores have ages of their own; the space goes back to the disk."""
    store = filled(tmp_path)
    retention = Retention(store.writer.connection, 3, 2, 10**9)
    for _ in retention.steps(to_ms(START) + 5 * DAY_MS):
        pass
    with store.reader() as reader:
        assert reader.first() == at(2 * 86_400)
        assert reader.count() == 120 and retention.removed == 80
        assert sum(reader.windows(START, at(5 * 86_400))["house/door"]) == 80
        traced = [bool(reader.trace(each.id)) for each in reader.every()]
    assert traced == [False] * 40 + [True] * 80


def test_retention_removes_the_oldest_days_of_a_large_file(tmp_path: Path) -> None:
    """The file is smaller than its limit afterwards; today stays."""
    store = filled(tmp_path, 5, 140)
    store.writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    limit = size_of(store.path) // 2
    retention = Retention(store.writer.connection, 365, 365, limit)
    for _ in retention.steps(to_ms(START) + 5 * DAY_MS):
        pass
    with store.reader() as reader:
        assert 0 < reader.count() < 5 * 140
        assert reader.events().events[0].start == at(4 * 86_400 + 139 * 600)
    connection = store.writer.connection
    pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
    assert (pages - free) * 4096 <= limit


def test_an_empty_file_gets_the_newest_version(tmp_path: Path) -> None:
    """And incremental vacuum, which cannot be switched on later."""
    connection, before = open_writer(tmp_path / "h")
    assert (before, version_of(connection)) == (0, VERSION)
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def old(path: Path) -> sqlite3.Connection:
    """A history of version 1 with one event."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(f"{MIGRATIONS[0]}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;")
    connection.execute("INSERT INTO machine VALUES (1, 'house', '', 0, 0)")
    connection.execute("INSERT INTO stream VALUES (1, 1, 'door')")
    connection.execute("INSERT INTO label VALUES (1, '/m/0bt9lr', 'Dog')")
    connection.execute("INSERT INTO run VALUES (1, 1, 'boot', '1', 'm', '0', 0, 0, 0)")
    since = "2026-01-31T12:00:00Z"
    details = f'{{"start_s": 1, "modalities": ["audio"], "on": 0.3, "off": 0.1, "since": "{since}", "began": ""}}'
    connection.execute("INSERT INTO event VALUES (7, 1, 1, 'k', 1, 1000, 2000, 1, 900, 500, ?)", (details.encode(),))
    return connection


def test_an_older_version_is_brought_to_the_newest(tmp_path: Path) -> None:
    """A reader refuses it until the writer has done that; then it has all that it had."""
    path = tmp_path / "h"
    old(path).close()
    with pytest.raises(HistoryError, match=f"has schema 1, and this version reads {VERSION}; start or restart"):
        HistoryReader(path)
    connection, before = open_writer(path)
    connection.close()
    assert before == 1
    with HistoryReader(path) as reader:
        (found,) = reader.events(EventFilter(least_peak=0.9)).events
        assert (found.id, found.name, found.peak) == (7, "Dog", 0.9)
        assert reader.statistics(EventFilter(), UTC).events == 1


def test_a_failed_migration_leaves_the_older_version(tmp_path: Path) -> None:
    """The disk was full, or the process was killed: the next start tries again from where the file was."""
    path = tmp_path / "h"
    connection = old(path)
    connection.execute("CREATE INDEX event_by_quarter ON event (key)")  # the name that the migration wants
    connection.close()
    with pytest.raises(HistoryError, match="index event_by_quarter already exists"):
        open_writer(path)
    connection = sqlite3.connect(path)
    assert version_of(connection) == 1
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'event_by_score'").fetchone() == (0,)
    connection.execute("DROP INDEX event_by_quarter")
    connection.close()
    assert open_writer(path)[1] == 1


def test_a_disk_that_is_too_full_for_a_migration_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to do, and the file is as before."""

    def on_a_full_disk(connection: sqlite3.Connection) -> int:
        connection.execute("PRAGMA max_page_count = 5")
        return migrate(connection)

    monkeypatch.setattr(opening, "migrate", on_a_full_disk)
    with pytest.raises(HistoryError, match="disk is full; free some space") as error:
        open_writer(tmp_path / "history.sqlite3")
    assert "\n" not in str(error.value)
    with sqlite3.connect(tmp_path / "history.sqlite3") as connection:
        assert version_of(connection) == 0
    connection.close()
