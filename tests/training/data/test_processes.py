"""Work in several processes: each task is done once, one failure ends all, and no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiverd.core.errors import MediaError
from perceiverd.training.data import processes

ROOT = Path(__file__).parents[3]


def write_pid(folder: Path, number: int) -> None:
    (folder / str(number)).write_text(str(os.getpid()))


def stay(folder: Path, number: int) -> None:
    """Task 0 fails; the others would run for five minutes."""
    write_pid(folder, number)
    if number == 0:
        raise ValueError("on purpose")
    time.sleep(300)


def be_killed(folder: Path, number: int) -> None:
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(300)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_each_task_runs_in_its_own_process(tmp_path: Path) -> None:
    """Each tuple is worked on once, by another process than the caller's."""
    processes.run(write_pid, [(tmp_path, number) for number in range(3)])
    pids = {int((tmp_path / str(number)).read_text()) for number in range(3)}
    assert len(pids) == 3 and os.getpid() not in pids


def test_one_failure_ends_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A worker that fails is reported in one line, with its traceback before it, and the other workers end."""
    with pytest.raises(MediaError, match="a worker process failed; its traceback is above"):
        processes.run(stay, [(tmp_path, number) for number in range(2)])
    assert "ValueError: on purpose" in capfd.readouterr().err
    stayed = tmp_path / "1"  # the worker may have been ended before it wrote
    pid = stayed.read_text() if stayed.exists() else ""
    assert not pid or within(60, lambda: not alive(int(pid)))


def test_a_killed_worker_is_a_failure(tmp_path: Path) -> None:
    """A worker that gets SIGKILL, as from the kernel when memory is short, fails the call and ends the others."""
    begun_s = time.monotonic()
    with pytest.raises(MediaError, match="a worker process was killed"):
        processes.run(be_killed, [(tmp_path, number) for number in range(2)])
    assert time.monotonic() - begun_s < 60


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
from perceiverd.training.data import processes
if __name__ == "__main__":
    processes.run(stay, [(Path(sys.argv[1]), number) for number in range(2)])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda one: one.name)
def test_no_worker_outlives_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    """The workers end with their parent, whether it gets Ctrl-C, SIGTERM or SIGKILL."""
    (tmp_path / "work_that_stays.py").write_text(WORK)
    (tmp_path / "stay.py").write_text(STAY)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    parent = subprocess.Popen([sys.executable, tmp_path / "stay.py", tmp_path], env=environment)
    try:
        assert within(60, lambda: len([p for p in tmp_path.glob("*.pid") if p.read_text()]) == 2)
        pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        parent.send_signal(number)
        assert number != signal.SIGTERM or parent.wait(60) == processes.TERMINATED
        parent.wait(60)
        assert within(60, lambda: not any(map(alive, pids)))
    finally:
        parent.kill()
        parent.wait(60)
