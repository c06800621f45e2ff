"""Processes that share long work; where one fails the others are ended, and none outlives the one that began them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

from perceiverd.errors import MediaError

KILLED_S = 5.0
"""What a process has to end once it was told to."""


def run(work: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Call `work` with each tuple in a process of its own. Raises MediaError where one fails; its words are above."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=work, args=one, daemon=True) for one in arguments]
    for process in running:
        process.start()
    try:
        while running:
            # Without a limit: the work may take hours, and an end is always noticed.
            wait([process.sentinel for process in running])
            ended = [process for process in running if process.exitcode is not None]
            running = [process for process in running if process.exitcode is None]
            if any(process.exitcode for process in ended):
                raise MediaError("a process failed; its last words are above")
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join(KILLED_S)
            if process.exitcode is None:
                process.kill()
