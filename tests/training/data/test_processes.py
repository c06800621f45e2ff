"""Work that processes share: all of it is done, one failure ends all, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perceiverd.core.errors import MediaError
from perceiverd.training.data import processes

ROOT = Path(__file__).parents[3]


def note(folder: Path, number: int) -> None:
    (folder / str(number)).write_text(str(os.getpid()))


def fail_or_stay(folder: Path, number: int) -> None:
    note(folder, number)
    if number == 0:
        raise ValueError("on purpose")
    time.sleep(300)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def within(seconds: float, condition: object) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_all_is_done_by_processes_of_their_own(tmp_path: Path) -> None:
    """Each tuple is worked on once, elsewhere."""
    processes.run(note, [(tmp_path, number) for number in range(3)])
    pids = {int((tmp_path / str(number)).read_text()) for number in range(3)}
    assert len(pids) == 3 and os.getpid() not in pids


def test_one_failure_ends_all(tmp_path: Path) -> None:
    """Who fails is told in a line; the others don't go on."""
    with pytest.raises(MediaError, match="a process failed"):
        processes.run(fail_or_stay, [(tmp_path, number) for number in range(2)])
    stayed = tmp_path / "1"  # it may have been ended before it began, or as it wrote
    pid = stayed.read_text() if stayed.exists() else ""
    assert not pid or within(10, lambda: not alive(int(pid)))


WORK = """
import os, time
def stay(folder, number):
    (folder / f"{number}.pid").write_text(str(os.getpid()))
    time.sleep(300)
"""
STAY = """
import sys
from pathlib import Path
from work_that_stays import stay
from perceiverd.training import workers
if __name__ == "__main__":
    workers.run(stay, [(Path(sys.argv[1]), number) for number in range(2)])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_none_outlives_the_one_that_began_them(tmp_path: Path, number: signal.Signals) -> None:
    """Whether it was asked to end or killed."""
    (tmp_path / "work_that_stays.py").write_text(WORK)
    (tmp_path / "stay.py").write_text(STAY)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    parent = subprocess.Popen([sys.executable, tmp_path / "stay.py", tmp_path], env=environment)
    try:
        assert within(60, lambda: len([p for p in tmp_path.glob("*.pid") if p.read_text()]) == 2)
        pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        parent.send_signal(number)
        parent.wait(20)
        assert within(10, lambda: not any(map(alive, pids)))
    finally:
        parent.kill()
        parent.wait(20)
