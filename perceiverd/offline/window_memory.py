"""Bounds the bytes of windows that several files hold together, if they are tagged at the same time.

A file that wants more than there is waits; it loses nothing. It knows sizes, but no windows and no files.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perceiverd.core.errors import MediaError
from perceiverd.core.logs import log_event
from perceiverd.model.batch_sizes import window_bytes
from perceiverd.model.geometry import Geometry

logger = logging.getLogger("perceiverd.offline")

HELD_BYTES = 1 << 30
"""Windows of all files together: 64 jobs with full batches of the bundled model need a third of it. Each decoder has a
limit of its own, 128 MB."""
LONG_S = 10.0
"""A wait of this length is logged."""


class WindowMemory:
    """What files that are tagged at the same time may hold. Safe to use from several threads.

    A file has room for two windows from its begin to its end: the one that it collects, and one of its batch. It waits
    for that. For more windows in its batch it has room only if nobody waits; otherwise it tags the batch as it is. So
    a file that holds something never waits, so all files end. A single file always has room.
    """

    def __init__(self, limit_bytes: int = HELD_BYTES, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = self.most_bytes = 0
        """Now, and the most so far."""
        self.waiting = 0
        """Files that wait now."""
        self._changed, self._clock_s = threading.Condition(), clock_s
        self._is_ended = False

    @contextmanager
    def share(self, file: str, each_bytes: int) -> Iterator[WindowShare]:
        """The room of one file, whose windows have `each_bytes` each. Waits until there is some.

        Raises MediaError after `end`.
        """
        share = WindowShare(self, each_bytes)
        share.held_bytes = self._begin(file, 2 * each_bytes)
        try:
            yield share
        finally:
            self._give(share.held_bytes)

    def end(self) -> None:
        """Let nobody wait any more, and begin no file."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def _begin(self, file: str, count: int) -> int:
        began_s, is_logged = self._clock_s(), False
        with self._changed:
            self.waiting += 1
            try:
                while not self._is_ended and self.held_bytes and self.held_bytes + count > self.limit_bytes:
                    self._changed.wait(LONG_S)
                    waited_s = self._clock_s() - began_s
                    if not is_logged and waited_s >= LONG_S:
                        is_logged = True
                        _log_wait(file, waited_s, self.held_bytes, count)
            finally:
                self.waiting -= 1
            if self._is_ended:
                raise MediaError(f"{file}: was not begun, because the run ends")
            self._take(count)
        return count

    def _more(self, count: int) -> bool:
        with self._changed:
            if self.waiting or self.held_bytes + count > self.limit_bytes:
                return False
            self._take(count)
            return True

    def _take(self, count: int) -> None:
        self.held_bytes += count
        self.most_bytes = max(self.most_bytes, self.held_bytes)

    def _give(self, count: int) -> None:
        with self._changed:
            self.held_bytes -= count
            self._changed.notify_all()


class WindowShare:
    """The room that a file has. One thread uses it."""

    def __init__(self, memory: WindowMemory | None = None, each_bytes: int = 0) -> None:
        """Without a memory, there is no limit."""
        self._memory, self._each_bytes = memory, each_bytes
        self.held_bytes = 0

    def more(self) -> bool:
        """Have room for one more window in a batch, if there is any now."""
        if self._memory is None:
            return True
        if not self._memory._more(self._each_bytes):
            return False
        self.held_bytes += self._each_bytes
        return True

    def tagged(self) -> None:
        """The batch is gone: give back what it needed beyond the first window."""
        if self._memory is not None and (extra := self.held_bytes - 2 * self._each_bytes):
            self.held_bytes -= extra
            self._memory._give(extra)


@contextmanager
def share_of(scorer: object, file: str, geometry: Geometry) -> Iterator[WindowShare]:
    """The room of a file in the memory of a scorer; without limit if it has none, because it has one file at a time."""
    memory = getattr(scorer, "memory", None)
    if not isinstance(memory, WindowMemory):
        yield WindowShare()
        return
    with memory.share(file, window_bytes(geometry)) as share:
        yield share


def _log_wait(file: str, waited_s: float, held_bytes: int, needed_bytes: int) -> None:
    """In the thread of the file, so that its record has the line too."""
    waited, held_mb, needs_mb = f"{waited_s:.0f}", held_bytes >> 20, max(1, needed_bytes >> 20)
    log_event(logger, logging.WARNING, "file-waiting", file=file, waited_s=waited, held_mb=held_mb, needs_mb=needs_mb)
