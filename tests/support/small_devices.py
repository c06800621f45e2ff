"""Engines that are real, on a device that has little memory, breaks, or is slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.model.card import Card
from perceiverd.model.cuda.engine import CudaEngine
from perceiverd.model.cuda.staging import SlotLogits
from perceiverd.model.engine import WindowMedia
from perceiverd.model.fitting import PreparedEngine
from perceiverd.model.resilient import ResilientEngine

LONG_S = 120.0
"""More than anything here takes, on any machine."""


def settle(engine: ResilientEngine) -> ResilientEngine:
    """Wait until nothing is made in the background."""
    ends_s = time.monotonic() + LONG_S
    while engine.health.is_preparing:
        assert time.monotonic() < ends_s, engine.health
        time.sleep(0.002)
    return engine


class SmallDevice:
    """The memory of a device that other programs use too."""

    def __init__(self, free: int) -> None:
        self.free = free
        """Windows for which there is memory now."""
        self.is_broken = self.is_slow = False

    def check(self, size: int) -> None:
        if self.is_broken:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if size > self.free:
            raise torch.cuda.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} MB.")


class SmallEngine(CudaEngine):
    """The real engine, on the CPU, as if its device had little memory."""

    def __init__(self, card: Card, small: SmallDevice, sizes: Sequence[int] = (1, 2, 4, 8)) -> None:
        small.check(1)
        super().__init__(card, torch.device("cpu"), sizes=sizes)
        self._small, self.taken = small, [0]

    def prepare(self, limit: int | None = None) -> None:
        self._small.check(limit or self.max_batch)
        super().prepare(limit)

    def submit(self, windows: Sequence[WindowMedia]) -> SlotLogits:
        self._small.check(self.size_of(len(windows)))
        self.taken.append(len(windows))
        return super().submit(windows)


class LateEngine(SmallEngine):
    """Its errors come with the results, as those of a real GPU do."""

    def submit(self, windows: Sequence[WindowMedia]) -> SlotLogits:
        pending = CudaEngine.submit(self, windows)
        return LateLogits(pending, self._small, self.size_of(len(windows)))  # type: ignore[return-value]


class LateLogits:
    """Logits that the device may fail to give."""

    def __init__(self, pending: SlotLogits, small: SmallDevice, size: int) -> None:
        self._pending, self._small, self._size = pending, small, size

    @property
    def is_ready(self) -> bool:
        self._small.check(self._size)
        return self._pending.is_ready

    def logits(self) -> NDArray[np.float32]:
        self._small.check(self._size)
        return self._pending.logits()


class HeldEngine(CudaEngine):
    """Its batches are ready when `open` says so, as those of a GPU are after a while."""

    def __init__(self, card: Card) -> None:
        super().__init__(card, torch.device("cpu"), sizes=(1, 2))
        self.open = False

    def submit(self, windows: Sequence[WindowMedia]) -> SlotLogits:
        return HeldLogits(super().submit(windows), self)  # type: ignore[return-value]


class HeldLogits:
    """Logits that are not ready before the engine is open."""

    def __init__(self, pending: SlotLogits, engine: HeldEngine) -> None:
        self._pending, self._engine = pending, engine

    @property
    def is_ready(self) -> bool:
        return self._engine.open

    def logits(self) -> NDArray[np.float32]:
        return self._pending.logits()


class Factory:
    """Makes engines; from the second one on only while its gate is open, and not while it has a fault."""

    def __init__(self, card: Card, small: SmallDevice) -> None:
        self._card, self._small = card, small
        self.gate, self.begun = threading.Event(), threading.Event()
        self.fault: Exception | None = None
        self.made = 0

    def __call__(self) -> PreparedEngine:
        if self.made:
            self.begun.set()
            assert self.gate.wait(LONG_S)
        if self.fault is not None:
            raise self.fault
        self.made += 1
        return GatedEngine(self._card, self._small, self.gate)


class GatedEngine(SmallEngine):
    """Made ready for another size only while the gate is open, if the device says so."""

    def __init__(self, card: Card, small: SmallDevice, gate: threading.Event) -> None:
        super().__init__(card, small)
        self._gate = gate

    def prepare(self, limit: int | None = None) -> None:
        assert not self._small.is_slow or self._gate.wait(LONG_S)
        super().prepare(limit)
