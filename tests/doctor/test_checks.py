"""Checks that find, hang, die, fail and write too much, each in a real process."""

import faulthandler
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from perceiverd.doctor.checks import Check, Finding, examine


def well() -> Iterator[Finding]:
    yield Finding("well", "ok", "it is")


def test_findings_come_in_order_and_alone_where_asked(tmp_path: Path) -> None:
    """Checks run side by side but for those that measure speed, which come last."""

    def slow() -> Iterator[Finding]:
        time.sleep(0.3)
        (tmp_path / "done").touch()
        yield Finding("slow", "warning", "it was", "wait")

    def late() -> Iterator[Finding]:
        yield Finding("late", "ok", str((tmp_path / "done").exists()))

    found = list(examine([Check("late", late, 5, alone=True), Check("slow", slow, 5), Check("well", well, 5)]))
    assert found == [Finding("slow", "warning", "it was", "wait"), *well(), Finding("late", "ok", "True")]


def test_a_check_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """What it found before counts; its bound holds, its child is gone, and the others are told."""

    def hangs() -> Iterator[Finding]:
        yield Finding("hangs", "ok", "so far")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "60"])
        (tmp_path / "child").write_text(str(child.pid))
        child.wait()

    began_s = time.monotonic()
    found = list(examine([Check("hangs", hangs, 1, hint="unplug it"), Check("well", well, 1)]))
    assert time.monotonic() - began_s < 5
    assert found == [
        Finding("hangs", "ok", "so far"),
        Finding("hangs", "fault", "no answer within 1 s", "unplug it"),
        *well(),
    ]
    child = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    # Killed, it is a zombie at most, until whoever is process 1 has seen to it.
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() - began_s < 10
        time.sleep(0.01)


def test_what_dies_or_fails_is_a_fault_in_one_line() -> None:
    """A crash in a library tells its signal, an error its kind; no traceback, no other check harmed."""

    def dies() -> Iterator[Finding]:
        faulthandler.disable()  # pytest's
        os.kill(os.getpid(), signal.SIGSEGV)
        yield from ()

    def fails() -> Iterator[Finding]:
        print("noise")
        yield from ()
        raise OSError("two\nlines")

    died, failed, *rest = examine([Check("dies", dies, 5), Check("fails", fails, 5), Check("well", well, 5)])
    assert (died.verdict, died.what) == ("fault", "the check died of SIGSEGV")
    assert (failed.verdict, failed.what) == ("fault", "the check failed: OSError: two lines")
    assert failed.do
    assert rest == list(well())


def test_many_findings_pass_the_pipe() -> None:
    """More than a pipe holds comes whole."""

    def many() -> Iterator[Finding]:
        for i in range(3000):
            yield Finding("many", "ok", f"{i:0100}")

    assert len(list(examine([Check("many", many, 20)]))) == 3000


def test_who_stops_reading_leaves_nothing_behind() -> None:
    """Ctrl-C between two findings ends the checks that run."""

    def hangs() -> Iterator[Finding]:
        time.sleep(60)
        yield from ()

    found = examine([Check("well", well, 5), Check("hangs", hangs, 60)])
    next(found)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    found.close()  # type: ignore[attr-defined]
    assert children
    assert not set(children) & set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
