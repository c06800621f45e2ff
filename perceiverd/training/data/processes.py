"""Processes that share long work; where one fails the others are ended, and none outlives the one that began them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

from perceiverd.core.errors import MediaError

TERMINATED = 128 + signal.SIGTERM
"""Exit status after SIGTERM, as a shell reports it."""
END_S = 5.0
"""What a process has to end once it was told to."""


def run(work: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Call `work` with each tuple in a process of its own. Raises MediaError where one fails; its words are above."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_child, args=(work, one), daemon=True) for one in arguments]
    with _terminable():
        try:
            for process in running:
                process.start()
            while running:
                # Without a limit: the work may take hours, and an end is always noticed.
                wait([process.sentinel for process in running])
                # Each is asked once: between two askings one may end.
                codes = [process.exitcode for process in running]
                if any(codes):
                    raise MediaError("a process failed; its last words are above")
                running = [process for process, code in zip(running, codes, strict=True) if code is None]
        finally:
            _end([process for process in running if process.pid])


def _end(running: Sequence[multiprocessing.process.BaseProcess]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        process.join(END_S)
        if process.exitcode is None:
            process.kill()


def _child(work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_with_parent, daemon=True).start()
    work(*arguments)


def _with_parent() -> None:
    """End with the process that began this one, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM is an exception meanwhile, so that what has begun is ended."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
