"""Scores windows of several threads, for many files at once: joint batches on a GPU, one after the other on a CPU.

A GPU is full only if windows of several files are in one batch. A thread of its own drives it: while one batch is
computed, the next is copied, and the threads of the files decode. A thread waits for the scores of its own windows, so
at most one batch of each thread is in memory; `window_memory` bounds the bytes. It knows windows and scores, no files.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from perceiverd.model.card import Card
from perceiverd.offline.tag import Scorer
from perceiverd.offline.window_memory import WindowMemory
from perceiverd.pipeline.tagger import PendingScores
from perceiverd.pipeline.windower import Window

UNDER_WAY = 2
"""Batches at once: one is computed while the next is copied."""
MOST_WINDOWS = 64
"""Windows of a joint batch, if the tagger has no limit."""
MOST_JOBS = 64
ALIVE_S = 5.0
"""How often a thread that waits for scores looks whether somebody still computes them."""


class JointTagger(Scorer, Protocol):
    """A tagger that computes while its caller does other work."""

    @property
    def max_batch(self) -> int | None:
        """The most windows at once; None if it computes while its caller waits."""

    def begin(self, windows: Sequence[Window]) -> PendingScores:
        """Start to tag windows."""


class ManyFilesScorer(Scorer, Protocol):
    """A scorer for several files at the same time."""

    memory: WindowMemory
    """What these hold."""


def is_joint(scorer: Scorer) -> TypeGuard[JointTagger]:
    """Whether this tagger gains from joint batches: one on a GPU does."""
    return getattr(scorer, "max_batch", None) is not None


def jobs_for(scorer: Scorer, on_cpu: int) -> int:
    """How many files to read at the same time: a GPU's network takes no core, so each core decodes a file."""
    return min(MOST_JOBS, len(os.sched_getaffinity(0))) if is_joint(scorer) else on_cpu


@contextmanager
def shared(scorer: Scorer, memory: WindowMemory | None = None) -> Iterator[ManyFilesScorer]:
    """The same for several threads, whose files hold windows in `memory` together; without one, in one of their own."""
    memory = memory or WindowMemory()
    if is_joint(scorer):
        with JointScorer(scorer, memory) as joint:
            yield joint
    else:
        yield SharedScorer(scorer, memory)


class SharedScorer:
    """One model for several threads: one batch at a time, which keeps all cores busy."""

    def __init__(self, scorer: Scorer, memory: WindowMemory | None = None) -> None:
        self._scorer, self._lock, self.memory = scorer, threading.Lock(), memory or WindowMemory()

    @property
    def card(self) -> Card:
        """The model."""
        return self._scorer.card

    def tag(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """As `Tagger.tag`."""
        with self._lock:
            return self._scorer.tag(windows)


class _Request:
    """The windows of one call, and what is known of them so far."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self.windows = windows
        self.scores: list[NDArray[np.float32] | None] = [None] * len(windows)
        self.left = len(windows)
        self.fault: BaseException | None = None
        self.done = threading.Event()

    def give(self, row: int, scores: NDArray[np.float32]) -> None:
        """The scores of one window."""
        if self.scores[row] is None:
            self.scores[row] = scores
            self.left -= 1
        if not self.left:
            self.done.set()

    def fail(self, fault: BaseException) -> None:
        """There will be no scores."""
        self.fault = fault
        self.done.set()


_Batch = list[tuple[_Request, int]]
"""Requests, and the row in each."""


class JointScorer:
    """A context manager. Windows are taken in the order of the calls; large calls are split."""

    def __init__(self, tagger: JointTagger, memory: WindowMemory | None = None) -> None:
        self._tagger, self.memory = tagger, memory or WindowMemory()
        self._waiting: deque[tuple[_Request, int]] = deque()
        self._changed = threading.Condition()
        self._is_ended = False
        self._thread = threading.Thread(target=self._work, name="joint-batches")
        self.batches = 0
        """Joint batches so far."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_ended = True
            self._changed.notify()
        self._thread.join()  # at most two batches

    @property
    def card(self) -> Card:
        """The model."""
        return self._tagger.card

    def tag(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """As `Tagger.tag`; several threads may call it at once. Raises what the tagger raises for these windows."""
        if not windows:
            raise ValueError("there are no windows")
        request = _Request(windows)
        with self._changed:
            if self._is_ended:
                raise RuntimeError("the tagger has ended")
            self._waiting.extend((request, row) for row in range(len(windows)))
            self._changed.notify()
        while not request.done.wait(ALIVE_S):  # a batch may take long, but not without the thread that drives it
            if not self._thread.is_alive() and not request.done.is_set():
                raise RuntimeError("the thread of joint batches has failed")
        if request.fault:
            raise request.fault
        return np.stack([scores for scores in request.scores if scores is not None])

    def _work(self) -> None:
        under_way: deque[tuple[_Batch, PendingScores]] = deque()
        while (batch := self._next(idle=not under_way)) is not None:
            if batch:
                try:
                    pending = self._tagger.begin([request.windows[row] for request, row in batch])
                except Exception as fault:
                    self._alone(batch, fault)
                else:
                    self.batches += 1
                    under_way.append((batch, pending))
            if under_way and (len(under_way) == UNDER_WAY or not batch):
                self._finish(*under_way.popleft())

    def _next(self, *, idle: bool) -> _Batch | None:
        """Windows that wait, as many as fit together; none if none waits and there is other work; None at the end."""
        with self._changed:
            while idle and not self._waiting and not self._is_ended:
                self._changed.wait()
            if idle and not self._waiting:
                return None
            most = self._tagger.max_batch or MOST_WINDOWS
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def _finish(self, batch: _Batch, pending: PendingScores) -> None:
        try:
            scores = pending.scores()
        except Exception as fault:
            self._alone(batch, fault)
            return
        for (request, row), one in zip(batch, scores, strict=True):
            request.give(row, one)

    def _alone(self, batch: _Batch, fault: Exception) -> None:
        """After a joint batch failed: each request alone, so that one with a fault costs no other its scores."""
        requests = {id(request): request for request, _ in batch}
        for request in requests.values():
            rows = [row for other, row in batch if other is request]
            if len(requests) == 1:
                request.fail(fault)
                continue
            try:
                found = self._tagger.tag([request.windows[row] for row in rows])
            except Exception as own:
                request.fail(own)
            else:
                for row, one in zip(rows, found, strict=True):
                    request.give(row, one)
