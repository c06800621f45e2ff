"""Runs one function in several processes at once.

If one process fails, the others are ended. No process outlives the one that started it. Knows nothing of the work.
"""

# Plain processes, not a `concurrent.futures.ProcessPoolExecutor`: in Python 3.11 a pool can wait for ever if a worker
# is killed while tasks are being submitted.

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import TypeVarTuple

from perceiverd.core.errors import MediaError
from perceiverd.core.signals import die_with_parent, handling

TERMINATED = 128 + signal.SIGTERM
"""Exit status after SIGTERM, as a shell reports it."""
END_S = 5.0
"""How long a worker may take to end after SIGTERM; then it gets SIGKILL."""

Arguments = TypeVarTuple("Arguments")


def run(work: Callable[[*Arguments], None], tasks: Sequence[tuple[*Arguments]]) -> None:
    """Call `work` with each tuple, each in a process of its own. Call this from the main thread.

    Raises MediaError if a worker fails: its traceback is then on standard error.
    """
    context = multiprocessing.get_context("spawn")
    running: list[BaseProcess] = [
        context.Process(target=_work, args=(os.getpid(), work, task), daemon=True) for task in tasks
    ]
    with _terminable():
        try:
            for process in running:
                process.start()
            while running:
                # No time limit: the work may take hours, and the end of a process always wakes this call.
                wait([process.sentinel for process in running])
                # We read each exit code once, because a process may end between two reads.
                codes = [process.exitcode for process in running]
                for code in filter(None, codes):
                    raise MediaError(_failure(code))
                running = [process for process, code in zip(running, codes, strict=True) if code is None]
        finally:
            _end([process for process in running if process.pid])


def _failure(code: int) -> str:
    """What an exit code other than 0 means: negative ones are signals."""
    if code == -signal.SIGKILL:
        return "a worker process was killed; check that there is enough memory"
    return "a worker process failed; its traceback is above"


def _end(running: Sequence[BaseProcess]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        process.join(END_S)
        if process.exitcode is None:
            process.kill()


def _work(parent: int, work: Callable[[*Arguments], None], task: tuple[*Arguments]) -> None:
    """Do one task in a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then ends its workers
    _end_with(parent)
    work(*task)


def _end_with(parent: int) -> None:
    """Let this process end with its parent, even if the parent has already ended."""
    die_with_parent()
    if os.getppid() != parent:  # the parent ended before the line above
        os._exit(1)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM an exception, so that the workers are ended before this process ends."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    with handling((signal.SIGTERM,), leave):
        yield
