"""Runs questions to the history in a few threads, each with a reader of its own, within bounds of number and time."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from perceiverd.core.errors import HistoryError, PerceiverdError
from perceiverd.history import HistoryReader

THREADS = 3
MOST_WAITING = 40
"""Questions that wait or run at one time; a further one is refused."""
ANSWER_S = 30.0
"""Statistics of a year take two seconds; a question that takes longer than this is given up."""

Answer = TypeVar("Answer")
Identity = tuple[int, int, bool]


class BusyError(PerceiverdError):
    """There are too many questions, or one took too long."""


class ReaderPool:
    """The threads and their readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = self.asked = self.refused = 0
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="history")
        self._local = threading.local()
        self._readers: set[HistoryReader] = set()
        self._lock = threading.Lock()

    async def ask(self, question: Callable[[HistoryReader], Answer]) -> Answer:
        """The answer to a question. Raises HistoryError if the history cannot be read, BusyError."""
        with self._lock:
            if self.waiting >= MOST_WAITING:
                self.refused += 1
                raise BusyError("the history has too many questions at this moment; try again in some seconds")
            self.waiting += 1
            self.asked += 1
        future = self._executor.submit(self._answer, question)
        future.add_done_callback(self._done)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise BusyError(f"the history did not answer within {ANSWER_S:.0f} s; ask for less") from None

    def close(self) -> None:
        """End the threads after what they do now, and close their readers."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.close()

    def _done(self, _: object) -> None:
        with self._lock:
            self.waiting -= 1

    def _answer(self, question: Callable[[HistoryReader], Answer]) -> Answer:
        try:
            return question(self._reader())
        except sqlite3.Error as error:
            self._forget()
            raise HistoryError(f"cannot read the history: {error}") from error

    def _reader(self) -> HistoryReader:
        """This thread's reader; a new one if the file was replaced, or if a writer began to write it."""
        identity = _identity(self.path)
        if getattr(self._local, "identity", None) != identity:
            self._forget()
        if getattr(self._local, "reader", None) is None:
            self._local.reader = HistoryReader(self.path)
            self._local.identity = identity
            with self._lock:
                self._readers.add(self._local.reader)
        found: HistoryReader = self._local.reader
        return found

    def _forget(self) -> None:
        reader: HistoryReader | None = getattr(self._local, "reader", None)
        self._local.reader = None
        if reader is not None:
            with self._lock:
                self._readers.discard(reader)
            reader.close()


def _identity(path: Path) -> Identity | None:
    """Which file this is, and whether it is being written: without a log the reader would see no changes."""
    try:
        info = path.stat()
        return info.st_dev, info.st_ino, os.path.exists(f"{path}-wal")  # noqa: PTH110 - no error for a folder
    except OSError:
        return None
