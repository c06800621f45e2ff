"""Opens the database, for the one writer and for any number of readers."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from perceiverd.core.errors import HistoryError
from perceiverd.history.schema import VERSION, migrate, version_of

FILE = "history.sqlite3"
BUSY_MS = 5_000
"""How long to wait for a lock. Only a second writer or a migration holds one for more than milliseconds."""
WAL_BYTES = 16_000_000
"""The log is cut back to this size after it was copied into the database."""


def open_writer(path: Path) -> tuple[sqlite3.Connection, int]:
    """The database, made if it is missing and brought to the newest version; and the version that it had.

    Raises HistoryError. A second writer is refused: the first one holds a lock on the file beside it.
    """
    try:
        connection = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
        try:
            _prepare(connection)
            before = migrate(connection)
        except BaseException:
            connection.close()
            raise
    except HistoryError as error:
        raise HistoryError(f"{path}: {error}") from None
    except sqlite3.Error as error:
        raise HistoryError(f"{path}: cannot open the history: {error}; {_advice(error, path)}") from error
    return connection, before


def _prepare(connection: sqlite3.Connection) -> None:
    version_of(connection)  # before anything is written
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect on an empty file only
    connection.execute("PRAGMA journal_mode = WAL")
    # In WAL mode NORMAL never damages the file. After a power cut the commits since the last checkpoint may be missing;
    # `HistoryWriter.sync` bounds that.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    connection.execute("PRAGMA cache_size = -16000")


def open_reader(path: Path) -> sqlite3.Connection:
    """The database for reading, while a writer may run. Raises HistoryError.

    The reader needs no right to write: if the files beside the database are missing, no writer runs, and the database
    is read as if it could not change.
    """
    # Not by opening it: closing a descriptor of the database would drop the locks that SQLite holds in this process.
    folder = next(each for each in path.absolute().parents if os.path.lexists(each) or each == each.parent)
    if not os.access(folder, os.X_OK) or (os.path.exists(path) and not os.access(path, os.R_OK)):  # noqa: PTH110 - no error
        raise HistoryError(f"{path}: this user may not read it; only its owner and the group of its folder may")
    if not path.is_file():
        raise HistoryError(f"{path}: there is no history; start `perceiverd history run`, or give another --database")
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        connection = _readable(address)
    except sqlite3.OperationalError as error:
        if path.with_name(f"{path.name}-wal").exists():
            raise HistoryError(f"{path}: cannot open the history: {error}; {_advice(error, path)}") from error
        connection = _immutable(address, path)
    except (HistoryError, sqlite3.Error) as error:
        raise HistoryError(f"{path}: {error}") from error
    return connection


def _immutable(address: str, path: Path) -> sqlite3.Connection:
    try:
        return _readable(f"{address}&immutable=1")
    except (HistoryError, sqlite3.Error) as error:
        raise HistoryError(f"{path}: cannot read the history: {error}") from error


def _readable(address: str) -> sqlite3.Connection:
    # Any thread may use it, one at a time: a web server's threads do.
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_MS / 1000, check_same_thread=False)
    try:
        version = version_of(connection)
        if version == 0:
            raise HistoryError("has no tables yet: `perceiverd history run` is about to make them; try again")
        if version < VERSION:
            raise HistoryError(
                f"has schema {version}, and this version reads {VERSION}; "
                "start or restart `perceiverd history run`, which updates it"
            )
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -16000")
    except BaseException:
        connection.close()
        raise
    return connection


def _advice(error: sqlite3.Error, path: Path) -> str:
    """What to do about it."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_BUSY"):
        return "another `perceiverd history run` uses it; stop that one"
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return "move the file away, or put a backup in its place"
    if name.startswith("SQLITE_FULL"):
        return f"free some space on the disk of {path.parent}; nothing is changed until there is enough"
    return f"check that this user may write to {path.parent}"
