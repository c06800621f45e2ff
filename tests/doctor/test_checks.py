"""Checks that succeed, hang, crash, fail and write much, each in a real process."""

import faulthandler
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perceiverd.doctor.checks import Check, Finding, run_checks


def passes() -> Iterator[Finding]:
    yield Finding("passes", "ok", "passed")


def test_findings_keep_the_order_of_the_checks(tmp_path: Path) -> None:
    """Checks run at the same time, except those that measure speed: they run last and alone."""

    def slow() -> Iterator[Finding]:
        time.sleep(0.3)
        (tmp_path / "done").touch()
        yield Finding("slow", "warning", "it was", "wait")

    def late() -> Iterator[Finding]:
        yield Finding("late", "ok", str((tmp_path / "done").exists()))

    checks = [Check("late", late, 60, alone=True), Check("slow", slow, 60), Check("passes", passes, 60)]
    found = list(run_checks(checks))
    assert found == [Finding("slow", "warning", "it was", "wait"), *passes(), Finding("late", "ok", "True")]


@pytest.mark.quiet
def test_a_hanging_check_is_killed_with_its_children(tmp_path: Path) -> None:
    """Its earlier findings count, it ends at its time limit, its child is killed, and other checks still report."""

    def hangs() -> Iterator[Finding]:
        yield Finding("hangs", "ok", "so far")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "60"])
        (tmp_path / "child").write_text(str(child.pid))
        child.wait()

    began_s = time.monotonic()
    found = list(run_checks([Check("hangs", hangs, 1, hint="unplug it"), Check("passes", passes, 60)]))
    assert time.monotonic() - began_s < 30
    assert found == [
        Finding("hangs", "ok", "so far"),
        Finding("hangs", "fault", "the check gave no result within 1 s", "unplug it"),
        *passes(),
    ]
    child = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    # A killed child may stay a zombie until process 1 reaps it.
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() - began_s < 50
        time.sleep(0.01)


def test_a_check_that_crashes_or_fails_is_a_fault() -> None:
    """A crash is reported with its signal, an exception in one line with its type; other checks still run."""

    def crashes() -> Iterator[Finding]:
        faulthandler.disable()  # pytest's
        os.kill(os.getpid(), signal.SIGSEGV)
        yield from ()

    def fails() -> Iterator[Finding]:
        print("noise")
        yield from ()
        raise OSError("two\nlines")

    crashed, failed, *rest = run_checks(
        [Check("crashes", crashes, 60), Check("fails", fails, 60), Check("passes", passes, 60)]
    )
    assert (crashed.verdict, crashed.what) == ("fault", "the check crashed with SIGSEGV")
    assert (failed.verdict, failed.what) == ("fault", "the check failed: OSError: two lines")
    assert failed.do
    assert rest == list(passes())


def test_many_findings_pass_through_the_pipe() -> None:
    """All findings arrive, even if they are more than a pipe can hold."""

    def many() -> Iterator[Finding]:
        for i in range(3000):
            yield Finding("many", "ok", f"{i:0100}")

    assert len(list(run_checks([Check("many", many, 60)]))) == 3000


def test_closing_the_iterator_ends_the_checks() -> None:
    """If the caller stops between two findings, as on Ctrl-C, the running checks end."""

    def hangs() -> Iterator[Finding]:
        time.sleep(60)
        yield from ()

    found = run_checks([Check("passes", passes, 60), Check("hangs", hangs, 60)])
    next(found)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    found.close()  # type: ignore[attr-defined]
    assert children
    assert not set(children) & set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
