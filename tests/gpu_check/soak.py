"""Streams come and go for minutes with batches of any size, as in the daemon's loop; in the middle, memory is short.

Streams, turns, batches, tagger and engine are the daemon's own; only sources are missing: each stream gets one of some
windows of noise, whose scores are known from batches of one. Everything random has a seed. On a CPU the same runs on a
device that only says how much memory it has.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from perceiverd.bench import gpu
from perceiverd.core.clock import now_ns
from perceiverd.daemon.batching import TaggedScores, WindowBatches
from perceiverd.daemon.stream import StreamState
from perceiverd.daemon.telemetry import LoopCounts
from perceiverd.model.cuda.engine import CudaEngine
from perceiverd.model.fitting import PreparedEngine
from perceiverd.model.resilient import ResilientEngine
from perceiverd.model.torch_engine import TorchEngine
from perceiverd.pipeline import tagger as tagger_module
from perceiverd.pipeline.tagger import Tagger
from perceiverd.pipeline.windower import Window
from tests.gpu_check.accuracy import CLOSE, mixed
from tests.gpu_check.lasting import Ballast, Clock
from tests.gpu_check.result import Check, Result, Setup
from tests.support.small_devices import SmallDevice, SmallEngine, settle
from tests.support.streams import stream

LEAVE_S = 30.0
"""Of a part's time, what loading, recovering and the end take."""
MOST_STREAMS = 64
CALM, SHORT = 0.45, 0.55
"""The shares of the time at which memory becomes short, and at which it is free again."""
RECOVERS = 30
"""Turns after which batches must be whole again: each lets the longest pause pass."""
LEAK_BYTES = 64_000_000
"""How much more memory may be held after the recovery: graphs are recorded in another order then."""
SEED = 20


@dataclass(frozen=True)
class Growth:
    """What must not grow while streams come and go."""

    memory_bytes: int
    """Of the device, held by PyTorch."""
    allocations: int
    """Calls that took memory from the device."""
    graphs: int
    """Recorded so far."""
    kernels: int
    """That Triton has compiled for this process."""

    @classmethod
    def now(cls, setup: Setup, engine: ResilientEngine) -> Growth:
        """As it is now."""
        inner = engine._gpu
        graphs = inner._graphs.recordings if isinstance(inner, CudaEngine) else 0
        if not setup.is_gpu:
            return cls(0, 0, graphs, 0)
        from perceiverd.model.cuda.kernel import _read

        allocations = torch.cuda.memory_stats(setup.device).get("num_device_alloc", 0)
        kernels = sum(len(each[0]) for each in _read.device_caches.values())
        return cls(torch.cuda.memory_reserved(setup.device), allocations, graphs, kernels)

    def since(self, before: Growth) -> Growth:
        return Growth(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(Growth)))

    def __str__(self) -> str:
        return (
            f"{self.memory_bytes} bytes, {self.allocations} allocations, {self.graphs} graphs, {self.kernels} kernels"
        )


class Crowd:
    """Streams that come and go, and the loop that serves them."""

    def __init__(self, setup: Setup, engine: ResilientEngine, clock: Clock) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tagger_module, "load_engine", lambda *_: engine)
            self._tagger = Tagger(setup.card, str(setup.device))
        self._engine, self._clock = engine, clock
        self._geometry, self._rng = setup.card.geometry, np.random.default_rng(SEED)
        self.most = min(MOST_STREAMS, engine.max_batch)
        media = mixed(gpu.noise_windows(self._geometry, self.most))
        self._windows = [Window(row, row + 1, each.audio, each.frames) for row, each in enumerate(media)]
        self._exact: NDArray[np.float32] = np.concatenate([self._tagger.tag([each]) for each in self._windows])
        self._batches = WindowBatches(LoopCounts(), 0)
        self._streams: dict[str, StreamState] = {}
        self.begun = self.ended = self.tagged = 0
        self.worst = 0.0
        """How far a score was from that of the same window alone."""
        self.sizes = Counter[int]()
        """Windows of the batches that began."""

    def turn(self) -> None:
        """One turn of the loop."""
        self._come_and_go()
        names = list(self._streams)
        for name in self._rng.choice(names, self._rng.integers(1, len(names) + 1), replace=False):
            self._streams[name].due.append(self._windows[self._rng.integers(self.most)])
        under_way = self._under_way()
        self._batches.start(self._tagger, self._streams, now_ns())
        if begun := self._under_way() - under_way:
            self.sizes[begun] += 1
            self._clock.now_s += 1.0
        for one in self._batches.finished():
            self._compare(one)

    def finish(self) -> None:
        """Wait for what is under way."""
        for one in self._batches.finished(wait_s=120.0):
            self._compare(one)

    def together(self, later_s: float = 0.0) -> None:
        """All windows at once, after a pause."""
        self._clock.now_s += later_s
        found = self._tagger.tag(self._windows)
        self.worst = max(self.worst, float(np.abs(found - self._exact).max()))
        settle(self._engine)

    def _under_way(self) -> int:
        return sum(len(batch.windows) for batch in self._batches._under_way)

    def _come_and_go(self) -> None:
        for name in [name for name in self._streams if self._rng.random() < 0.1]:
            del self._streams[name]
            self.ended += 1
        room = self.most - len(self._streams)
        come = min(room, int(self._rng.integers(0, 2 + self.most // 8)))
        for _ in range(come if self._streams else max(1, come)):
            self._streams[f"s{self.begun}"] = stream(self._geometry)
            self.begun += 1
        self._batches.turns.forget(self._streams)

    def _compare(self, one: TaggedScores) -> None:
        self.tagged += 1
        self.worst = max(self.worst, float(np.abs(one.scores - self._exact[one.window.start_ns]).max()))


def soak(setup: Setup) -> Result:
    """Streams come and go; memory is flat, nothing is recorded or compiled again, and short memory costs no labels."""
    clock, small = Clock(), SmallDevice(max(setup.sizes))
    engine = ResilientEngine(
        str(setup.device), _maker(setup, small), partial(TorchEngine, setup.card, "cpu"), clock_s=clock
    )
    crowd = Crowd(setup, engine, clock)
    lasts_s, began_s = max(0.2, min(setup.soak_s, setup.limit_s - LEAVE_S)), time.monotonic()

    def until(share: float) -> None:
        first = crowd.tagged
        while time.monotonic() < began_s + share * lasts_s or crowd.tagged == first:
            crowd.turn()
        crowd.finish()

    calm = _grown(setup, engine, partial(until, CALM))
    before = Growth.now(setup, engine)
    with _short(setup, engine, small):
        crowd.together()
        until(SHORT)
        low = settle(engine).health
    recovers = 0
    while recovers < RECOVERS and engine.health.batch_limit < engine.max_batch:
        crowd.together(later_s=400)
        recovers += 1
    leaked = Growth.now(setup, engine).since(before).memory_bytes
    calm_again = _grown(setup, engine, partial(until, 1.0))
    engine.close()
    flat = "while streams come and go, memory is flat, and nothing is recorded or compiled again"
    nothing, health = Growth(0, 0, 0, 0), engine.health
    checks = [
        setup.check(flat, calm == nothing, str(calm)),
        setup.check(f"{flat}, also after memory was short", calm_again == nothing, str(calm_again)),
        Check("short memory in the middle makes batches smaller", low.out_of_memory > 0, str(low)),
        Check("afterwards batches are whole again", health.batch_limit == engine.max_batch, f"{recovers} pauses"),
        setup.check("after the recovery no more memory is held", leaked <= LEAK_BYTES, f"{leaked} bytes"),
        Check("every window has its scores", crowd.worst < CLOSE, f"{crowd.tagged} windows, within {crowd.worst:.1e}"),
    ]
    many = f"{crowd.begun} streams began and {crowd.ended} ended"
    batches = f"{sum(crowd.sizes.values())} batches of {min(crowd.sizes)} to {max(crowd.sizes)} windows"
    numbers: dict[str, Any] = {"sizes": dict(sorted(crowd.sizes.items())), "seconds": lasts_s}
    return Result("soak", f"{lasts_s:.0f} s; {many}; {batches}; {checks[5].found}", checks, numbers)


def _maker(setup: Setup, small: SmallDevice) -> Callable[[], PreparedEngine]:
    if setup.is_gpu:
        return partial(CudaEngine, setup.card, setup.device, "auto", setup.sizes)
    return partial(SmallEngine, setup.card, small, setup.sizes)


def _grown(setup: Setup, engine: ResilientEngine, run: Callable[[], None]) -> Growth:
    """By how much things grow while this runs."""
    before = Growth.now(setup, settle(engine))
    run()
    return Growth.now(setup, settle(engine)).since(before)


@contextmanager
def _short(setup: Setup, engine: ResilientEngine, small: SmallDevice) -> Iterator[None]:
    """Another program takes the memory, and graphs must be recorded again, as after a failure."""
    if engine._gpu is not None:
        engine._gpu.release()
    free, small.free = small.free, small.free // 2
    with Ballast(setup):
        yield
    small.free = free
