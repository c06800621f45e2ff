"""A copy of the database while it is written to."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from perceiverd.core.errors import HistoryError
from perceiverd.history.opening import open_reader


def back_up(database: Path, into: Path) -> int:
    """Copy the database as it is now into a new file, for its owner only, and check the copy; returns its bytes.

    The writer can continue: in WAL mode, readers do not block it. The copy is one file without a log beside it,
    and can be put in the place of the database. Raises HistoryError, and leaves no part of a copy.
    """
    source = open_reader(database)
    part = into.with_name(f"{into.name}.part")
    try:
        if into.exists():
            raise HistoryError(f"{into}: exists already; give a new name")
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            _copy(source, part)
            size = part.stat().st_size
            part.rename(into)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HistoryError(f"{into}: cannot write the backup: {error.strerror}; give another file") from error
    except sqlite3.Error as error:
        raise HistoryError(f"{into}: cannot write the backup: {error}") from error
    finally:
        source.close()
    return size


def _copy(source: sqlite3.Connection, part: Path) -> None:
    copy = sqlite3.connect(part)
    try:
        source.backup(copy)
        # Out of WAL mode, so that the copy is complete without another file. The writer switches it on again.
        copy.execute("PRAGMA journal_mode = DELETE")
        if (found := copy.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise HistoryError(f"the copy is damaged, and so may be the database: {found}")
    finally:
        copy.close()
    with part.open("rb") as file:
        os.fsync(file.fileno())
