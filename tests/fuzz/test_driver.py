"""The harness itself: it notices each kind of fault, keeps its input, and repeats it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.driver import fuzz, repeat
from tests.fuzz.target import ROOT, judge
from tests.fuzz.worker import Worker

FAULTY = targets.load("faulty")


@pytest.mark.parametrize("name", targets.NAMES)
def test_seeds_are_accepted(tmp_path: Path, name: str) -> None:
    """Each target begins with valid inputs; of the configurations, a few name no stream."""
    target = targets.load(name)
    seeds = target.make_seeds(tmp_path)
    outcomes = [judge(target, data, tmp_path) for data in seeds]
    assert not [outcome for outcome in outcomes if outcome.is_failure]
    assert sum(outcome.kind == "accepted" for outcome in outcomes) >= len(seeds) / 2


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"fine", "accepted"),
        (b"refuse", "refused"),
        (b"escape", "error"),
        (b"error", "error"),
        (b"hang", "hang"),
        (b"crash", "crash"),
        (b"peak", "memory"),
    ],
)
def test_each_fault_is_noticed(tmp_path: Path, data: bytes, kind: str) -> None:
    """Other exceptions, hangs, crashes and large memory are failures, and the next input is judged as usual."""
    with Worker(FAULTY, tmp_path, cpu_limit_s=0.5) as worker:
        assert worker.judge(data).kind == kind
        assert worker.judge(b"fine").kind == "accepted"


def test_growing_memory_is_noticed(tmp_path: Path) -> None:
    """A megabyte that each input leaves behind is a failure after a while."""
    with Worker(FAULTY, tmp_path) as worker:
        kinds = [worker.judge(b"leak").kind for _ in range(340)]
    assert kinds.index("memory") >= 300


def test_failures_are_kept_and_repeated(tmp_path: Path) -> None:
    """The shortest input of each failure is kept, with the command that repeats it. Foreign crashes are apart."""
    report = fuzz(FAULTY, tmp_path, seconds=600, seed=0, most=60)
    assert sum(report.kinds.values()) == 60
    assert {Path(path).read_bytes() for path in report.failures} == {b"error", b"escape"}
    assert [Path(path).read_bytes() for path in report.foreign] == [b"crash"]
    text = Path(report.failures[0]).with_suffix(".txt").read_text()
    assert f"repeat it: .venv/bin/python -m tests.fuzz repeat faulty {report.failures[0]}" in text
    assert repeat(FAULTY, Path(report.failures[0])).kind == "error"


def test_a_run_continues_the_one_before(tmp_path: Path) -> None:
    """A second run gives the failures of the first again, and forgets those that are repaired."""
    fuzz(FAULTY, tmp_path, seconds=600, seed=0, most=30)
    before = sorted((tmp_path / "failures").iterdir())
    repaired = tmp_path / "failures" / "error-0.input"
    repaired.write_bytes(b"fine")
    report = fuzz(FAULTY, tmp_path, seconds=600, seed=0, most=4)
    assert sorted((tmp_path / "failures").iterdir()) == before
    assert len(report.failures) == 2


@pytest.mark.parametrize(("data", "status", "text"), [(b"fine", 0, "accepted: fine\n"), (b"error", 1, "ZeroDivision")])
def test_the_command_repeats_a_failure(tmp_path: Path, data: bytes, status: int, text: str) -> None:
    """`repeat` prints the outcome with its traceback, and ends with 1 if it is a failure."""
    path = tmp_path / "input"
    path.write_bytes(data)
    command = [sys.executable, "-m", "tests.fuzz", "repeat", "faulty", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert text in done.stdout
    assert done.returncode == status
