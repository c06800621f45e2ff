"""A thread that works for an owner: results, errors, and its end."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from functools import partial

import pytest

from perceiverd.model.background import BackgroundThread

LONG_S = 120.0


def test_calls_run_in_one_thread_in_their_order() -> None:
    """Results and errors come through the future; all calls have the same thread, and it is not the owner's."""
    background, seen = BackgroundThread("test"), list[tuple[str, int]]()

    def note(name: str) -> None:
        seen.append((name, threading.get_ident()))

    futures = [background.start(partial(note, name)) for name in "abc"]
    failing = background.start(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(LONG_S)
    assert [future.result(LONG_S) for future in futures] == [None] * 3
    assert [name for name, _ in seen] == ["a", "b", "c"]
    assert len({thread for _, thread in seen}) == 1 and seen[0][1] != threading.get_ident()
    assert background.close(LONG_S) and background.close(LONG_S)


def test_a_thread_that_has_ended_takes_no_call() -> None:
    """Nobody would do it; one that never began ends at once."""
    background = BackgroundThread("test")
    assert background.close(0)
    with pytest.raises(RuntimeError, match="has ended"):
        background.start(int)


def test_the_end_interrupts_a_call() -> None:
    """A call that runs Python ends at its next line, long before it would be done."""
    background, begun = BackgroundThread("test"), threading.Event()

    def work() -> None:
        begun.set()
        while True:
            threading.Event().wait(0.01)

    future = background.start(work)
    assert begun.wait(LONG_S) and background.close(LONG_S)
    assert isinstance(future.exception(LONG_S), SystemExit)


def test_the_thread_ends_with_its_owner() -> None:
    """It does not keep the owner alive."""
    background = BackgroundThread("test")
    background.start(int).result(LONG_S)
    thread = background._thread
    assert thread is not None
    del background
    gc.collect()
    thread.join(LONG_S)
    assert not thread.is_alive()


def test_the_program_ends_while_a_call_runs() -> None:
    """Its exit status is its own, and nothing is printed: a thread in the middle of a call does not abort it."""
    code = (
        "import sys, time\n"
        "from perceiverd.model.background import BackgroundThread\n"
        "background = BackgroundThread('test')\n"
        "background.start(lambda: [time.sleep(0.01) for _ in range(100_000)])\n"
        "sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG_S)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
