"""In which order a device copies and computes: two CUDA streams, or nothing but the order of calls on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor


class Fence(Protocol):
    """A place in the work of a device."""

    @property
    def is_passed(self) -> bool:
        """Whether the device has done all work before it."""

    def wait(self) -> None:
        """Wait until it has."""


class Lanes(Protocol):
    """Two queues of work on one device: copies to it, and computing with what was copied."""

    def buffer(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host, zeroed, that the device can read while the host does other work."""

    def copying(self) -> AbstractContextManager[None]:
        """Work within goes to the queue of copies."""

    def computing(self) -> AbstractContextManager[None]:
        """Work within goes to the queue of computing."""

    def fence(self) -> Fence:
        """A fence at the present end of the current queue."""

    def after(self, fence: Fence) -> None:
        """Let the current queue wait for a fence of the other. The host does not wait."""


class _Passed:
    is_passed = True

    def wait(self) -> None:
        return


class CpuLanes:
    """Everything happens at once, in the order of the calls."""

    def buffer(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    def copying(self) -> AbstractContextManager[None]:
        return nullcontext()

    def computing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def fence(self) -> Fence:
        return _Passed()

    def after(self, fence: Fence) -> None:
        return


class _Event:
    def __init__(self) -> None:
        # Whoever waits sleeps: a host that spins would take a core from those who decode.
        self.event = torch.cuda.Event(blocking=True)
        self.event.record()

    @property
    def is_passed(self) -> bool:
        return bool(self.event.query())

    def wait(self) -> None:
        self.event.synchronize()


class CudaLanes:
    """Two CUDA streams of one GPU, and pinned memory of the host."""

    def __init__(self, device: torch.device) -> None:
        self._copies, self._work = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def buffer(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    @contextmanager
    def copying(self) -> Iterator[None]:
        with torch.cuda.stream(self._copies):
            yield

    @contextmanager
    def computing(self) -> Iterator[None]:
        with torch.cuda.stream(self._work):
            yield

    def fence(self) -> Fence:
        return _Event()

    def after(self, fence: Fence) -> None:
        if isinstance(fence, _Event):
            torch.cuda.current_stream().wait_event(fence.event)


def lanes_of(device: torch.device) -> Lanes:
    """The queues of this device."""
    return CudaLanes(device) if device.type == "cuda" else CpuLanes()
