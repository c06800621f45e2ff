"""The doctor's check of the history."""

from pathlib import Path

from perceiverd.doctor.history import history
from tests.support.history import Store
from tests.support.messages import hello


def test_without_a_history_there_is_no_finding(tmp_path: Path) -> None:
    """Most machines have none."""
    assert list(history(tmp_path / "none")) == []


def test_a_silent_daemon_is_a_warning(tmp_path: Path) -> None:
    """A history that has heard nothing lately says of whom, and since when."""
    store = Store(tmp_path)
    store.begin(0)
    store.receive(0, hello("door", boot_id="boot"))
    store.end(5)
    silent, fine = history(store.path)
    assert (silent.verdict, fine.verdict) == ("warning", "ok")
    assert silent.what == "no message of the daemon 'house' (ipc:///x) has been stored since 2026-01-31 12:00:05 UTC"


def test_a_damaged_database_is_a_fault(tmp_path: Path) -> None:
    """One line says what to do."""
    path = tmp_path / "history.sqlite3"
    path.write_text("no database" * 1000)
    (found,) = history(path)
    assert found.verdict == "fault"
    assert "is not a database" in found.what
    assert "restore a backup" in found.do
