"""Keeps labels coming if the GPU fails: smaller batches if its memory is short, then the CPU, and back when it can.

It knows engines and their errors, but not what they compute.
"""

from __future__ import annotations

import ctypes
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.core.logs import LogLimit, log_event
from perceiverd.model.engine import (
    BatchEngine,
    Computed,
    DeviceHealth,
    Engine,
    Form,
    PendingLogits,
    WindowMedia,
    is_featured,
)

logger = logging.getLogger("perceiverd.model")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""How long a smaller batch, or the CPU, is used before more is tried again. Each failure doubles it."""
ALLOCATION_WORDS = ("out of memory", "ALLOC_FAILED", "_STATUS_NOT_INITIALIZED", "CUFFT_INTERNAL_ERROR")
"""In errors of CUDA and its libraries that are no OutOfMemoryError. The last two are what cuBLAS, cuDNN and cuFFT say
if there is no memory for what they need themselves."""
CUDA_WORDS = ("CUDA", "cuDNN", "cuFFT")

Fault = Literal["memory", "lost"]


def fault_of(error: BaseException) -> Fault | None:
    """What an error says about the device: its memory is short, or this process has lost it; None: another error."""
    if isinstance(error.__context__, torch.OutOfMemoryError):  # raised while a graph that did not fit was given up
        return "memory"
    if isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in ALLOCATION_WORDS):
        return "memory" if isinstance(error, RuntimeError) else None
    is_cuda = isinstance(error, RuntimeError) and any(word in str(error) for word in CUDA_WORDS)
    return "lost" if isinstance(error, torch.AcceleratorError) or is_cuda else None


class PreparedEngine(BatchEngine, Protocol):
    """What is needed of the engine on the GPU."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches, ascending; every batch is padded to one of them."""

    def prepare(self, limit: int | None = None) -> None:
        """Make ready for each size of a batch up to `limit`; may raise errors of the device."""

    def release(self) -> None:
        """Free what can be made again."""


class ResilientEngine:
    """A `BatchEngine` that answers the errors of a GPU.

    If memory is short, the largest batch is about halved, again and again; if a batch of one does not fit, the CPU
    computes. After a pause the largest batch grows again, up to the whole. If CUDA reports a fault from which a process
    cannot recover, the CPU computes until the process is started again.
    """

    name = "torch"

    def __init__(
        self,
        device: str,
        make: Callable[[], PreparedEngine],
        spare: Callable[[], Engine],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make` loads the network on the GPU, `spare` on the CPU; it is called if it is needed."""
        self._name, self._make, self._make_spare, self._clock_s = device, make, spare, clock_s
        self._gpu: PreparedEngine | None = None
        self._cpu: Engine | None = None
        self._pause_s, self._retry_s = FIRST_PAUSE_S, -np.inf
        self._log_limit = LogLimit()
        self.form: Form = "factorised"
        self.max_batch = 1
        self._sizes: tuple[int, ...] = (1,)
        self.health = DeviceHealth(batch_limit=1)
        self._build(first=True)

    @property
    def device(self) -> str:
        """Where windows are computed now."""
        return self._name if self.health.batch_limit else "cpu"

    def submit(self, windows: Sequence[WindowMedia]) -> PendingLogits:
        """See `BatchEngine`; takes any number of windows."""
        self._try_more()
        while (limit := self.health.batch_limit) and self._gpu:
            try:
                parts = [self._gpu.submit(windows[at : at + limit]) for at in range(0, len(windows), limit)]
                return _Guarded(self, windows, parts)
            except RuntimeError as error:
                self._answer(error)
        return Computed(self._on_cpu(windows))

    def logits(
        self, audio: NDArray[np.float32] | None, video: Sequence[Sequence[NDArray[np.uint8]]] | None
    ) -> NDArray[np.float32]:
        """Logits (B, classes); see `engine.Engine.logits`."""
        batch = len(audio) if audio is not None else len(video or ())
        return self.submit(
            [
                WindowMedia(None if audio is None else audio[row], None if video is None else video[row])
                for row in range(batch)
            ]
        ).logits()

    # Failing and recovering.

    def collect(self, windows: Sequence[WindowMedia], parts: Sequence[PendingLogits]) -> NDArray[np.float32]:
        """The logits of a batch; if the device failed meanwhile, they are computed again."""
        try:
            return np.concatenate([part.logits() for part in parts])
        except RuntimeError as error:
            self._answer(error)
        return self.submit(windows).logits()

    def _answer(self, error: RuntimeError) -> None:
        """Make do with less. Raises the error if it is none of the device."""
        match fault_of(error):
            case "memory":
                clear_frames(error)
                self._shrink(error)
            case "lost":
                self._lose(error)
            case _:
                raise error

    def _shrink(self, error: RuntimeError) -> None:
        before = self.health.batch_limit
        after = max((size for size in self._sizes if size <= before // 2), default=0)
        self.health = replace(self.health, batch_limit=after, out_of_memory=self.health.out_of_memory + 1)
        self._wait_longer()
        if self._may_log():
            line, left = _first_line(error), after or "cpu"
            log_event(
                logger, logging.WARNING, "device-memory-short", device=self._name, batch=before, next=left, error=line
            )
        try:
            if self._gpu is not None:
                self._gpu.release()
            if not after:
                self._gpu = None
                torch.cuda.empty_cache()  # other programs need what it leaves, also if it was loaded in part
        except RuntimeError as second:
            self._lose(second)

    def _lose(self, error: RuntimeError) -> None:
        """Leave the GPU alone until the process ends."""
        if self._gpu is not None:
            # To free its memory needs CUDA, which would end the process: PyTorch's destructors must not raise, but
            # that of pinned memory does (pytorch#178154). So it is never freed, not even when Python ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._gpu))
            self._gpu = None
        self.health = replace(self.health, batch_limit=0, is_lost=True)
        log_event(logger, logging.ERROR, "device-lost", device=self._name, used="cpu", error=_first_line(error))

    def _wait_longer(self) -> None:
        self._retry_s = self._clock_s() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _try_more(self) -> None:
        """After the pause: load the network again, or double the largest batch."""
        limit = self.health.batch_limit
        if self.health.is_lost or limit == self.max_batch or self._clock_s() < self._retry_s:
            return
        if self._gpu is None:
            self._build(first=False)
            return
        self._retry_s = self._clock_s() + self._pause_s
        self._grow(min((size for size in self._sizes if size >= 2 * limit), default=self.max_batch))

    def _build(self, *, first: bool) -> None:
        """Load the network on the GPU, with the largest batches that fit at the start, and with one window later."""
        try:
            self._gpu = self._make()
            self.max_batch, self.form, self._sizes = self._gpu.max_batch, self._gpu.form, self._gpu.sizes
        except RuntimeError as error:
            self.health = replace(self.health, batch_limit=1)
            self._answer(error)
            return
        limit = self.max_batch if first else 1
        while limit and not self._grow(limit):
            limit = self.health.batch_limit

    def _grow(self, limit: int) -> bool:
        """Use batches of up to `limit`; False if the device cannot."""
        assert self._gpu
        self.health = replace(self.health, batch_limit=limit)
        try:
            self._gpu.prepare(limit)
        except RuntimeError as error:
            self._answer(error)
            return False
        if limit == self.max_batch and self.health.out_of_memory:
            self._pause_s = FIRST_PAUSE_S
            if self._may_log():
                log_event(logger, logging.INFO, "device-recovered", device=self._name, batch=limit)
        return True

    def _on_cpu(self, windows: Sequence[WindowMedia]) -> NDArray[np.float32]:
        self._cpu = self._cpu or self._make_spare()
        self.health = replace(self.health, windows_on_cpu=self.health.windows_on_cpu + len(windows))
        return grouped_logits(self._cpu, windows)

    def _may_log(self) -> bool:
        return self._log_limit.admit(time.monotonic_ns()) is not None


class _Guarded:
    """See `engine.PendingLogits`."""

    def __init__(self, engine: ResilientEngine, windows: Sequence[WindowMedia], parts: Sequence[PendingLogits]) -> None:
        self._engine, self._windows, self._parts = engine, windows, parts
        self._found: NDArray[np.float32] | None = None

    @property
    def is_ready(self) -> bool:
        try:
            return self._found is not None or all(part.is_ready for part in self._parts)
        except RuntimeError:
            return True  # `logits` answers the error

    def logits(self) -> NDArray[np.float32]:
        if self._found is None:
            self._found = self._engine.collect(self._windows, self._parts)
            self._windows, self._parts = (), ()  # media of a batch need much memory
        return self._found


def grouped_logits(engine: Engine, windows: Sequence[WindowMedia]) -> NDArray[np.float32]:
    """Logits (windows, classes) by an engine whose batches have windows with the same modalities only."""
    kinds = [(window.audio is not None, window.frames is not None) for window in windows]
    found: list[NDArray[np.float32] | None] = [None] * len(windows)
    for kind in dict.fromkeys(kinds):
        rows = [row for row, each in enumerate(kinds) if each == kind]
        audio = [samples for row in rows if (samples := windows[row].audio) is not None]
        frames = [pictures for row in rows if (pictures := windows[row].frames) is not None]
        video = [engine.features(each) for each in frames] if is_featured(engine) else frames
        logits = engine.logits(np.stack(audio) if audio else None, video or None)
        for row, one in zip(rows, logits, strict=True):
            found[row] = one
    return np.stack([one for one in found if one is not None])


def clear_frames(error: BaseException) -> None:
    """Forget the variables of the calls that an error ended: they hold what was computed, in the device's memory."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
