"""Runs the network for each size of a batch: as a CUDA graph, plainly if a graph cannot be recorded, or on a CPU.

A graph holds all kernels of a batch, so the host starts one thing, not hundreds.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import torch
from torch import Tensor

from perceiverd.core.logs import log_event
from perceiverd.model.cuda.network import DeviceNetwork
from perceiverd.model.cuda.precision import exact_float32
from perceiverd.model.cuda.staging import MediaBuffers

logger = logging.getLogger("perceiverd.model")

WARM_UPS = 2
"""Passes before a graph is recorded: kernels are compiled, and libraries choose their algorithms."""
CAPTURING = threading.Lock()
"""PyTorch allows one capture at a time in a process; two models may have threads that record."""
CAPTURE_WORDS = ("captur", "cudaErrorStreamCapture")
"""In CUDA's errors about what a graph cannot hold. They leave the device as it was."""


class Graphs:
    """Runs the network on the first windows of its inputs."""

    def __init__(self, network: DeviceNetwork, inputs: MediaBuffers, device: torch.device) -> None:
        self._network, self._inputs, self._where = network, inputs, device
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool: Any = None
        self.recordings = 0
        """Graphs that were recorded so far."""
        self._failed: torch.cuda.CUDAGraph | None = None
        """A graph that could not be recorded. PyTorch's memory may still refer to it, so it is not deleted."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that have a graph now."""
        return tuple(self._recorded)

    @property
    def is_plain(self) -> bool:
        """Whether the network runs without graphs."""
        return self._where.type != "cuda" or self._failed is not None

    def run(self, size: int) -> Tensor:
        """Logits (size, classes) of the first windows, in the current stream; valid until the next call.

        The first call for a size records its graph. Raises torch.OutOfMemoryError; then there may be no graphs at all.
        """
        if not self.is_plain and size not in self._recorded:
            self._record(size)
        if self.is_plain:
            with exact_float32():
                return self._network(self._inputs.first(size))
        graph, logits = self._recorded[size]
        graph.replay()
        return logits

    def clear(self) -> None:
        """Forget all graphs and free their memory. Raises errors of the device."""
        if self._where.type == "cuda":
            torch.cuda.synchronize(self._where)  # a batch may be running in one of them
        self._recorded.clear()
        self._pool = None
        if self._where.type == "cuda":
            torch.cuda.empty_cache()

    def _record(self, size: int) -> None:
        media, stream = self._inputs.first(size), torch.cuda.current_stream(self._where)
        # The libraries choose among their algorithms in the warm-up; the graph then has the fastest. They also allocate
        # their workspaces in it, for this stream: what is allocated in a capture belongs to that graph alone.
        with CAPTURING, exact_float32(benchmark=True):
            for _ in range(WARM_UPS):
                self._network(media)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            try:
                # Graphs share their memory, because only one of them runs at a time. Other threads may call CUDA
                # meanwhile, to ask for the state of their own work: with the mode "global" this would be an error here.
                with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                    logits = self._network(media)
            except RuntimeError as error:
                # PyTorch frees cuBLAS's workspace of the stream together with any graph that was recorded in it, also
                # if others still use it (pytorch#193402). So all of them go. None is running: a capture begins with a
                # wait for the device.
                self._recorded.clear()
                if not is_capture_error(error):
                    raise
                self._failed = graph
                first = str(error).splitlines()[0]
                log_event(logger, logging.WARNING, "graphs-unusable", device=str(self._where), error=first)
                return
        self._recorded[size] = graph, logits
        self.recordings += 1


def is_capture_error(error: BaseException) -> bool:
    """Whether a graph cannot hold what was called, and not that memory was short or the device failed."""
    seen: BaseException | None = error
    messages = []
    while seen is not None:
        if isinstance(seen, torch.OutOfMemoryError):
            return False
        messages.append(str(seen))
        seen = seen.__context__
    return any(word in message for message in messages for word in CAPTURE_WORDS)
