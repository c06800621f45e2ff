"""What has been done in a folder of outputs."""

from dataclasses import replace
from pathlib import Path

import pytest

from perceiverd.core.errors import PerceiverdError
from perceiverd.offline.folders.journal import FileDone, Journal, key_of
from perceiverd.offline.folders.walk import Found

FILE = Found("/in/a/b.wav", "a/b.wav", 100, 7)


def done(file: str = "a/b.wav", error: str | None = None) -> FileDone:
    return FileDone(file=file, key="", windows=0 if error else 3, media_s=1.5, error=error)


def test_an_interrupted_run_is_resumed(tmp_path: Path) -> None:
    """Without an end, the next runs with these settings know what was done; failed files count as done too."""
    bad = replace(FILE, name="bad.wav")
    with Journal(tmp_path, "s") as journal:
        assert not journal.resumes
        journal.add(FILE, done())
    with Journal(tmp_path, "s") as journal:
        assert journal.resumes
        journal.add(bad, done("bad.wav", "damaged"))
    with Journal(tmp_path, "s") as journal:
        assert journal.was_done(FILE, in_any_run=False) == "with outputs"
        assert journal.was_done(bad, in_any_run=False) == "without outputs"
        assert [each.file for each in journal.done()] == ["a/b.wav", "bad.wav"]


def test_a_finished_run_begins_anew(tmp_path: Path) -> None:
    """After an end nothing counts as done, except for those who ask for any run; failed files are tried again then."""
    bad = replace(FILE, name="bad.wav")
    with Journal(tmp_path, "s") as journal:
        journal.add(FILE, done())
        journal.add(bad, done("bad.wav", "damaged"))
        journal.finish()
    with Journal(tmp_path, "s") as journal:
        assert not journal.resumes
        assert journal.was_done(FILE, in_any_run=False) == "no"
        assert journal.was_done(FILE, in_any_run=True) == "with outputs"
        assert journal.was_done(bad, in_any_run=True) == "no"
        assert list(journal.done()) == []


@pytest.mark.parametrize(
    "other",
    [replace(FILE, size=101), replace(FILE, mtime_ns=8), replace(FILE, name="b.wav")],
    ids=["size", "time", "name"],
)
def test_a_changed_file_is_not_done(tmp_path: Path, other: Found) -> None:
    """Another size, time of change or place makes it another file; another root does not."""
    with Journal(tmp_path, "s") as journal:
        journal.add(FILE, done())
    with Journal(tmp_path, "s") as journal:
        assert journal.was_done(other, in_any_run=True) == "no"
        assert journal.was_done(replace(FILE, address="/moved/a/b.wav"), in_any_run=True) == "with outputs"


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    """What was done with other settings does not count."""
    with Journal(tmp_path, "s") as journal:
        journal.add(FILE, done())
    with Journal(tmp_path, "t") as journal:
        assert not journal.resumes
        assert journal.was_done(FILE, in_any_run=True) == "no"
    assert key_of(FILE, "s") != key_of(FILE, "t")


@pytest.mark.parametrize("cut", [2, 20, 100])
def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path, cut: int) -> None:
    """The journal stays readable; the file of the torn line is not done, and later lines count."""
    with Journal(tmp_path, "s") as journal:
        journal.add(FILE, done())
        journal.add(replace(FILE, name="c.wav"), done("c.wav"))
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(tmp_path, "s") as journal:
        assert journal.resumes
        assert journal.was_done(FILE, in_any_run=False) == "with outputs"
        assert journal.was_done(replace(FILE, name="c.wav"), in_any_run=False) == "no"
        journal.add(replace(FILE, name="d.wav"), done("d.wav"))
        assert [each.file for each in journal.done()] == ["a/b.wav", "d.wav"]
    with Journal(tmp_path, "s") as journal:
        assert journal.was_done(replace(FILE, name="d.wav"), in_any_run=False) == "with outputs"


def test_a_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    """Its file is done, and is listed once."""
    with Journal(tmp_path, "s") as journal:
        journal.add(FILE, done())
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        with Journal(tmp_path, "s") as journal:
            assert journal.was_done(FILE, in_any_run=False) == "with outputs"
            assert [each.file for each in journal.done()] == ["a/b.wav"]


def test_a_pipe_is_never_done(tmp_path: Path) -> None:
    """What comes through it the next time is something else."""
    pipe = Found("-", "stdin")
    with Journal(tmp_path, "s") as journal:
        journal.add(pipe, done("stdin"))
    with Journal(tmp_path, "s") as journal:
        assert journal.was_done(pipe, in_any_run=True) == "no"


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    """The second one is refused while the first one runs, and not after."""
    with Journal(tmp_path, "s"), pytest.raises(PerceiverdError, match="another run writes here"):
        Journal(tmp_path, "s")
    with Journal(tmp_path, "s"):
        pass
