"""Which windows go to the network together, and when. It knows streams and a tagger, but no sources and no messages.

A batch has the newest window of each stream that has one. If not all fit, streams take turns: while the device is full,
the hops of all streams stretch alike. A GPU has up to two batches under way; the loop looks after sources meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perceiverd.daemon.stream import StreamState
from perceiverd.daemon.telemetry import LoopCounts
from perceiverd.pipeline.windower import Window

if TYPE_CHECKING:
    from perceiverd.pipeline.tagger import PendingScores, Tagger

UNDER_WAY = 2
"""Batches at once: one is computed while the next is copied. With more, windows would only wait on the device."""
BUSY_MS = 1
"""The longest wait for media while a batch is under way, or waits for more windows: its labels must not wait."""

LAST_S = 3.0
"""How long the end waits for the windows that are under way: longer than they may wait for a GPU, shorter than the
unit's TimeoutStopSec. They are dropped and counted after it."""


class Turns:
    """Decides whose windows are in the next batch. Values only."""

    def __init__(self, max_wait_ns: int) -> None:
        """`max_wait_ns`: how long the first window of a batch may wait for those of other streams."""
        self.max_wait_ns = max_wait_ns
        self._last_turn: dict[str, int] = {}
        self._turns = 0
        self._since_ns: int | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a window waits for others."""
        return self._since_ns is not None

    def choose(self, due: Sequence[str], streams: int, limit: int | None, now_ns: int) -> Sequence[str]:
        """The streams of the next batch, of those that have a window; none while it waits for more.

        `streams`: how many there are. `limit`: the most windows of a batch. The streams that had their last turn
        longest ago come first.
        """
        if not due:
            self._since_ns = None
            return ()
        if self._since_ns is None:
            self._since_ns = now_ns
        most = min(streams, limit or streams)
        if len(due) < most and now_ns - self._since_ns < self.max_wait_ns:
            return ()
        chosen = sorted(due, key=lambda name: self._last_turn.get(name, 0))[:limit]
        self._since_ns = now_ns if len(chosen) < len(due) else None
        for name in chosen:  # each has a number of its own: a whole batch with one number would favour its first
            self._turns += 1
            self._last_turn[name] = self._turns
        return chosen

    def forget(self, names: Mapping[str, object]) -> None:
        """Keep only the turns of these streams."""
        self._last_turn = {name: turn for name, turn in self._last_turn.items() if name in names}


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    windows: Sequence[tuple[StreamState, Window]]
    pending: PendingScores
    began_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, eq=False)
class TaggedScores:
    """A window with its scores."""

    stream: StreamState
    window: Window
    scores: NDArray[np.float32]
    """(labels,), 0..1."""
    reused: int
    """Frames that an earlier window had too."""


class WindowBatches:
    """The batches under way."""

    def __init__(self, counts: LoopCounts, max_wait_ns: int) -> None:
        self._counts, self.turns = counts, Turns(max_wait_ns)
        self._under_way: deque[_Batch] = deque()

    def has(self, stream: StreamState) -> bool:
        """Whether a window of this stream is under way."""
        return any(stream is other for batch in self._under_way for other, _ in batch.windows)

    def wait_ms(self, idle_ms: int) -> int:
        """How long the loop may wait for media."""
        return BUSY_MS if self._under_way or self.turns.is_waiting else idle_ms

    def start(self, tagger: Tagger, streams: Mapping[str, StreamState], now_ns: int) -> None:
        """Start a batch, if there are windows and fewer than two batches are under way."""
        if len(self._under_way) >= UNDER_WAY:
            return
        due = [name for name, stream in streams.items() if stream.due]
        chosen = self.turns.choose(due, len(streams), tagger.max_batch, now_ns)
        taken = [(streams[name], window) for name in chosen if (window := streams[name].next_window())]
        if not taken:
            return
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        pending = tagger.begin([window for _, window in taken])
        self._under_way.append(_Batch(taken, pending, began_s, time.process_time() - began_cpu_s))

    def finished(self, *, wait_s: float = 0.0) -> Iterator[TaggedScores]:
        """The windows of batches that are ready, or are so within `wait_s`, oldest batch first."""
        ends_s = time.monotonic() + wait_s
        while self._under_way and self._is_ready(ends_s):
            batch = self._under_way[0]
            began_cpu_s = time.process_time()
            scores = batch.pending.scores()
            self._counts.add_inference(
                time.monotonic() - batch.began_s, batch.cpu_s + time.process_time() - began_cpu_s
            )
            self._under_way.popleft()
            for (stream, window), row, reused in zip(batch.windows, scores, batch.pending.reused_frames, strict=True):
                yield TaggedScores(stream, window, row, reused)

    def _is_ready(self, ends_s: float) -> bool:
        """Whether the oldest batch is ready before this time. To ask for its scores could take for ever."""
        pending = self._under_way[0].pending
        while not (is_ready := pending.is_ready) and time.monotonic() < ends_s:
            time.sleep(BUSY_MS / 1000)
        return is_ready

    def discard(self) -> None:
        """Drop the windows that are under way, and count them."""
        for batch in self._under_way:
            for stream, _ in batch.windows:
                stream.progress.drop(1)
        self._under_way.clear()
