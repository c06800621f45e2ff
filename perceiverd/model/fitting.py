"""Makes an engine on a GPU and finds the largest batches that its memory has room for. It may run in any thread.

The engine belongs to the call while it runs: nobody else may use it. It knows no CPU and no pauses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from perceiverd.model.engine import BatchEngine
from perceiverd.model.faults import clear_frames, fault_of, first_line


class PreparedEngine(BatchEngine, Protocol):
    """What is needed of the engine on the GPU."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches, ascending; every batch is padded to one of them."""

    def prepare(self, limit: int | None = None) -> None:
        """Make ready for each size of a batch up to `limit`; may raise errors of the device."""

    def release(self) -> None:
        """Free what can be made again."""


@dataclass(frozen=True, slots=True)
class ShortMemory:
    """Batches of this size did not fit."""

    batch: int
    next: int
    """The largest batch that is tried after it; 0 if there is no smaller one."""
    error: str


@dataclass(frozen=True, slots=True, eq=False)
class FittedEngine:
    """An engine, and what it has room for."""

    gpu: PreparedEngine | None
    """None if there is no room for one window; its memory is free again."""
    limit: int
    """The largest batch; 0 without an engine."""
    short: tuple[ShortMemory, ...]
    """What did not fit before, largest first."""
    took_s: float


def built(make: Callable[[], PreparedEngine], limit: int | None, stopping: threading.Event) -> FittedEngine:
    """A new engine for batches of up to `limit`, or of all its sizes; smaller ones if they do not fit.

    Raises whatever `make` raises but errors of short memory.
    """
    began_s, owned = time.monotonic(), list[PreparedEngine]()
    short: tuple[ShortMemory, ...] = ()
    try:
        owned.append(make())
    except RuntimeError as error:
        if fault_of(error) != "memory":
            raise
        clear_frames(error)
        short = (ShortMemory(1, 0, first_line(error)),)
    if short:
        torch.cuda.empty_cache()  # other programs need what was loaded in part
        return FittedEngine(None, 0, short, time.monotonic() - began_s)
    return fitted(owned, limit or owned[0].max_batch, stopping, began_s=began_s)


def fitted(
    owned: list[PreparedEngine],
    limit: int,
    stopping: threading.Event,
    *,
    release: bool = False,
    began_s: float | None = None,
) -> FittedEngine:
    """The engine, ready for batches of up to `limit`, or of as many as fit.

    `owned` holds the engine and is emptied, so that it can be freed here. `release`: free what it has recorded first.
    Stops early once `stopping` is set. Raises errors of the device that are not about its memory.
    """
    began_s = time.monotonic() if began_s is None else began_s
    gpu, limit, short = _fit(owned.pop(), limit, stopping, release=release)
    if gpu is None:
        torch.cuda.empty_cache()  # other programs need it
    return FittedEngine(gpu, limit, short, time.monotonic() - began_s)


def _fit(
    gpu: PreparedEngine, limit: int, stopping: threading.Event, *, release: bool
) -> tuple[PreparedEngine | None, int, tuple[ShortMemory, ...]]:
    short: list[ShortMemory] = []
    while limit and not stopping.is_set():
        try:
            if release:
                gpu.release()
            gpu.prepare(limit)
        except RuntimeError as error:
            if fault_of(error) != "memory":
                raise
            clear_frames(error)
            after, line = smaller(gpu.sizes, limit), first_line(error)
        else:
            return gpu, limit, tuple(short)
        short.append(ShortMemory(limit, after, line))
        limit, release = after, True
    if release:
        gpu.release()
    return None, 0, tuple(short)


def smaller(sizes: Sequence[int], limit: int) -> int:
    """The largest size of at most a half of `limit`; 0 if there is none."""
    return max((size for size in sizes if size <= limit // 2), default=0)


def larger(sizes: Sequence[int], limit: int) -> int:
    """The smallest size of at least twice `limit`, or the largest one."""
    return min((size for size in sizes if size >= 2 * limit), default=sizes[-1])
