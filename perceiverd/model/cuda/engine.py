"""The engine for GPUs: windows in, logits out, while the caller does other work. See `engine.BatchEngine`.

A batch is padded to one of a few sizes, each of which has a CUDA graph: the host then starts one thing, not hundreds.
Media go through pinned memory on a stream of their own, so that one batch is copied while the one before is computed.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perceiverd.core.errors import ConfigError
from perceiverd.model.batch_sizes import SIZES
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.cuda.devices import gpu_of
from perceiverd.model.cuda.graphs import Graphs
from perceiverd.model.cuda.lanes import Lanes, lanes_of
from perceiverd.model.cuda.network import DeviceNetwork
from perceiverd.model.cuda.precision import HALF_TYPES
from perceiverd.model.cuda.readers import read_shapes, reader_for
from perceiverd.model.cuda.staging import MediaBuffers, Slot, SlotLogits
from perceiverd.model.engine import Form, Precision, WindowMedia

SLOTS = 2
"""Batches under way: one is computed while the next is copied. More would only make labels later."""


class CudaEngine:
    """One network on one device. Errors of the device leave it as they are; `resilient` answers them."""

    name = "torch"
    form: Form = "factorised"

    def __init__(
        self,
        card: Card,
        device: torch.device,
        precision: Precision = "auto",
        sizes: Sequence[int] = SIZES,
        lanes: Callable[[torch.device], Lanes] = lanes_of,
    ) -> None:
        """Loads the weights. `sizes`: of batches, ascending. Raises ModelError, or torch.OutOfMemoryError.

        `lanes` gives the queues of the device; engines that are never used at the same time may share them.

        A CPU as `device` is for tests: it computes the same, without graphs.
        """
        self._where, self._geometry = device, card.geometry
        self.device, self.max_batch = str(device), sizes[-1]
        if precision == "auto":
            precision = gpu_of(device).precision if device.type == "cuda" else "float32"
        self.precision = checked(precision, device)
        reader, self.reader = reader_for(device, HALF_TYPES[precision], read_shapes(card.geometry))
        self._network = DeviceNetwork(load_network(card), card.geometry, device, HALF_TYPES[precision], reader)
        self._lanes, self._sizes = lanes(device), tuple(sizes)
        self._slots = [Slot(card.geometry, self.max_batch, self._lanes, device) for _ in range(SLOTS)]
        self._inputs = MediaBuffers.on_device(self._slots[0].host, device)
        self._next, self._graphs = 0, Graphs(self._network, self._inputs, device)
        self._synchronize()  # the two queues do not wait for the default stream, on which all of this was made
        if device.type == "cuda":
            # Our memory is that of the default stream, which would give it to others while the last batch still runs.
            weakref.finalize(self, _finish, device).atexit = False

    def prepare(self, limit: int | None = None) -> None:
        """Make ready for each size of a batch up to `limit`, largest first. Raises torch.OutOfMemoryError."""
        for size in reversed([size for size in self._sizes if size <= (limit or self.max_batch)]):
            with self._lanes.computing():
                self._graphs.run(size)
        self._synchronize()

    def _synchronize(self) -> None:
        if self._where.type == "cuda":
            torch.cuda.synchronize(self._where)

    def release(self) -> None:
        """Free what can be made again: the graphs, and memory that PyTorch keeps for later."""
        self._graphs.clear()

    @torch.inference_mode()
    def submit(self, windows: Sequence[WindowMedia]) -> SlotLogits:
        """See `engine.BatchEngine`."""
        size = self.size_of(len(windows))
        slot, lanes = self._slots[self._next], self._lanes
        self._next = (self._next + 1) % SLOTS
        slot.free()
        slot.host.fill(windows, size)
        with lanes.copying():
            slot.device.copy_from(slot.host, size)
            copied = lanes.fence()
        with lanes.computing():
            lanes.after(copied)
            self._inputs.copy_from(slot.device, size)
            slot.logits[:size].copy_(self._graphs.run(size), non_blocking=True)
            slot.batch = SlotLogits(slot, len(windows), lanes.fence())
        return slot.batch

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches, ascending."""
        return self._sizes

    @torch.inference_mode()
    def compute(self, size: int) -> Tensor:
        """Logits (size, classes) on the device of what was copied there last; for timing. Does not wait for them."""
        with self._lanes.computing():
            return self._graphs.run(size)

    def size_of(self, count: int) -> int:
        """The size to which a batch of so many windows is padded. Raises ValueError if there is none."""
        if not 0 < count <= self.max_batch:
            raise ValueError(f"{count} windows do not fit into a batch of {self.max_batch}")
        return self._sizes[bisect_left(self._sizes, count)]

    def logits(
        self, audio: NDArray[np.float32] | None, video: Sequence[Sequence[NDArray[np.uint8]]] | None
    ) -> NDArray[np.float32]:
        """Logits (B, classes); see `engine.Engine.logits`."""
        batch = len(audio) if audio is not None else len(video or ())
        windows = [
            WindowMedia(None if audio is None else audio[row], None if video is None else video[row])
            for row in range(batch)
        ]
        parts = [windows[first : first + self.max_batch] for first in range(0, batch, self.max_batch)]
        return np.concatenate([self.submit(part).logits() for part in parts])


def _finish(device: torch.device) -> None:
    """Wait for the device. One that failed has nothing to wait for."""
    with suppress(RuntimeError):
        torch.cuda.synchronize(device)


def checked(precision: Precision, device: torch.device) -> Precision:
    """The precision. Raises ConfigError if this card lacks it."""
    if device.type != "cuda" or precision == "float32":
        return precision
    gpu = gpu_of(device)
    if precision == "bfloat16" and gpu.precision != "bfloat16":
        raise ConfigError(f"precision bfloat16: {gpu} has none; use auto, which is {gpu.precision} here")
    return precision
