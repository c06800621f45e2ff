"""Keeps labels coming if the GPU fails: smaller batches if its memory is short, then the CPU, and back when it can.

Nothing here keeps the caller waiting for an engine: a thread makes engines and records their batches. The caller
takes over what is done between two batches. It knows engines and their errors, but not what they compute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.logs import LogLimit, log_event
from perceiverd.model.background import EXIT_S, BackgroundThread
from perceiverd.model.engine import (
    Computed,
    DeviceHealth,
    Engine,
    Form,
    PendingLogits,
    WindowMedia,
)
from perceiverd.model.faults import clear_frames, fault_of, first_line, keep_for_ever
from perceiverd.model.fitting import FittedEngine, PreparedEngine, ShortMemory, built, fitted, larger, smaller
from perceiverd.model.mixed_batches import grouped_logits, one_of_each

logger = logging.getLogger("perceiverd.model")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""How long a smaller batch, or the CPU, is used before more is tried again. Each failure doubles it."""
MOST_FAILURES = 10
"""Builds in a row that fail for another reason than short memory: nobody has repaired it in half an hour. Short memory
has no such limit: the program that takes it may end after hours."""
HOLD_S = 2.0
"""How long windows wait while the GPU is made ready for other sizes. To record a graph takes a fraction of a second,
but a driver may hang."""
SPARE_S = 300.0
"""The longest wait for the CPU's engine: weights from a small board's memory card, while other programs run."""


_Kind = Literal["start", "build", "shrink", "grow"]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What the device's thread does; the engine on the GPU is its own meanwhile."""

    kind: _Kind
    future: Future[FittedEngine]


class ResilientEngine:
    """A `BatchEngine` that answers the errors of a GPU. One thread at a time may use it.

    If memory is short, the largest batch is about halved, again and again; if a batch of one does not fit, the CPU
    computes. After a pause the largest batch grows again, up to the whole. If CUDA reports a fault from which a process
    cannot recover, the CPU computes until the process is started again.

    While the engine on the GPU is built again, the CPU computes. While it is made ready for other sizes, windows wait
    for it up to `HOLD_S`. While the CPU's engine is loaded, they wait for that.
    """

    name = "torch"

    def __init__(
        self,
        device: str,
        make: Callable[[], PreparedEngine],
        spare: Callable[[], Engine],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make` loads the network on the GPU, now and again later; `spare` on the CPU, if it is needed."""
        self._name, self._make, self._make_spare, self._clock_s = device, make, spare, clock_s
        self._device_thread, self._spare_thread = BackgroundThread("gpu-engine"), BackgroundThread("spare-engine")
        self._gpu: PreparedEngine | None = None
        """None while a job has it, too."""
        self._job: _Job | None = None
        self._spare: Future[Engine] | None = None
        self._pause_s, self._retry_s = FIRST_PAUSE_S, -np.inf
        self._failures = 0
        self._log_limit = LogLimit()
        self.form: Form = "factorised"
        self.max_batch = 1
        self._sizes: tuple[int, ...] = (1,)
        self._health = DeviceHealth(batch_limit=0)
        try:
            self._take(built(make, None, self._device_thread.stopping), "start")
        except RuntimeError as error:
            if fault_of(error) != "lost":
                raise
            self._lose(error)

    @property
    def device(self) -> str:
        """Where windows are computed now."""
        return self._name if self._health.batch_limit else "cpu"

    @property
    def health(self) -> DeviceHealth:
        """What has happened to the GPU so far."""
        self._adopt()
        return self._health

    def submit(self, windows: Sequence[WindowMedia]) -> PendingLogits:
        """See `BatchEngine`; takes any number of windows."""
        self._adopt()
        self._try_more()
        return _Batch(self, windows)

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

    def close(self, wait_s: float = EXIT_S) -> bool:
        """End what is made in the background, and wait for it; False if it still runs after `wait_s`."""
        ends_s = time.monotonic() + wait_s
        ended = [
            thread.close(max(0.0, ends_s - time.monotonic())) for thread in (self._device_thread, self._spare_thread)
        ]
        return all(ended)

    # Windows, from the caller's thread.

    def start(self, windows: Sequence[WindowMedia], until_s: float) -> Sequence[PendingLogits] | None:
        """Start windows on the GPU, or compute them on the CPU; None while neither is ready.

        `until_s`, on the clock of the process: how long they wait for the GPU.
        """
        self._adopt()
        while self._gpu is not None:
            limit = self._health.batch_limit
            try:
                return [self._gpu.submit(windows[at : at + limit]) for at in range(0, len(windows), limit)]
            except RuntimeError as error:
                self.answer(error)  # nobody has the engine then, but a job
        if self._is_held(until_s):
            return None
        self._spare = self._spare or self._spare_thread.start(partial(_loaded, self._make_spare, one_of_each(windows)))
        return [Computed(self._on_cpu(self._spare.result(), windows))] if self._spare.done() else None

    def wait(self, until_s: float) -> None:
        """Wait for what `start` waits for. Raises TimeoutError if the CPU's engine is not loaded in time."""
        if self._job is not None and self._is_held(until_s):
            wait_for([self._job.future], max(0.0, until_s - time.monotonic()))
        elif self._spare is not None and not wait_for([self._spare], SPARE_S).done:
            raise TimeoutError(f"the CPU's engine was not loaded within {SPARE_S:.0f} s")

    def collect(self, windows: Sequence[WindowMedia], parts: Sequence[PendingLogits]) -> NDArray[np.float32]:
        """The logits of a batch; if the device failed meanwhile, they are computed again."""
        try:
            return np.concatenate([part.logits() for part in parts])
        except RuntimeError as error:
            self.answer(error)
        return self.submit(windows).logits()

    def _is_held(self, until_s: float) -> bool:
        """Whether windows wait for the GPU's engine, which is made ready for other sizes."""
        is_short = self._job is not None and self._job.kind != "build" and self._health.batch_limit > 0
        return is_short and time.monotonic() < until_s

    def _on_cpu(self, spare: Engine, windows: Sequence[WindowMedia]) -> NDArray[np.float32]:
        self._health = replace(self._health, windows_on_cpu=self._health.windows_on_cpu + len(windows))
        return grouped_logits(spare, windows)

    # Failing.

    def answer(self, error: RuntimeError) -> None:
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
        if self._gpu is None:  # of a batch that was under way before; what it asks for is being done
            return
        before = self._health.batch_limit
        after = smaller(self._sizes, before)
        self._wait_longer()
        self._note_short(ShortMemory(before, after, first_line(error)))
        self._health = replace(self._health, batch_limit=after)
        self._fit("shrink", after)

    def _lose(self, error: RuntimeError) -> None:
        """Leave the GPU alone until the process ends."""
        was_lost = self._health.is_lost
        for each in (self._gpu, self._job.future if self._job else None, error):
            if each is not None:
                keep_for_ever(each)
        self._gpu = self._job = None
        self._health = replace(self._health, batch_limit=0, is_lost=True, is_preparing=False)
        if not was_lost:  # a second batch was under way
            log_event(logger, logging.ERROR, "device-lost", device=self._name, used="cpu", error=first_line(error))

    def _wait_longer(self) -> None:
        self._retry_s = self._clock_s() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    # Recovering. The thread of the device works; the caller's thread decides.

    def _try_more(self) -> None:
        """After the pause: load the network again, or double the largest batch."""
        limit = self._health.batch_limit
        is_whole = self._gpu is not None and limit == self.max_batch
        if self._job or is_whole or self._health.is_lost or self._clock_s() < self._retry_s:
            return
        if self._gpu is not None:
            self._retry_s = self._clock_s() + self._pause_s
            self._fit("grow", larger(self._sizes, limit))
        elif self._failures < MOST_FAILURES:
            self._health = replace(self._health, builds=self._health.builds + 1)
            # With one window at first: memory was short a moment ago.
            self._begin("build", partial(built, self._make, 1, self._device_thread.stopping))

    def _fit(self, kind: Literal["shrink", "grow"], limit: int) -> None:
        """Let the thread make the engine ready for this size. It is not ours before it is done."""
        assert self._gpu is not None
        owned, self._gpu = [self._gpu], None
        release = kind == "shrink"
        self._begin(kind, partial(fitted, owned, limit, self._device_thread.stopping, release=release))

    def _begin(self, kind: _Kind, call: Callable[[], FittedEngine]) -> None:
        self._job = _Job(kind, self._device_thread.start(call))
        self._health = replace(self._health, is_preparing=True)

    def _adopt(self) -> None:
        """Take over what the thread has done, if it has."""
        job = self._job
        if job is None or not job.future.done():
            return
        self._job, self._health = None, replace(self._health, is_preparing=False)
        error = job.future.exception()
        if error is None:
            self._take(job.future.result(), job.kind)
        elif isinstance(error, RuntimeError) and fault_of(error) == "lost":
            self._lose(error)
        elif isinstance(error, Exception):
            self._note_failed_build(error)
        else:
            raise error

    def _take(self, found: FittedEngine, kind: _Kind) -> None:
        """Use an engine for batches of its limit, or the CPU if there is no engine."""
        for each in found.short:
            self._note_short(each)
        self._gpu, self._health = found.gpu, replace(self._health, batch_limit=found.limit)
        if found.short and kind != "shrink":  # there the pause began with the batch that did not fit
            self._wait_longer()
        if found.gpu is None:
            self._health = replace(self._health, failed_builds=self._health.failed_builds + (kind == "build"))
            return
        self._failures = 0
        self.max_batch, self.form, self._sizes = found.gpu.max_batch, found.gpu.form, found.gpu.sizes
        if kind == "build":
            self._retry_s = self._clock_s() + self._pause_s
            took_s = f"{found.took_s:.1f}"
            log_event(logger, logging.INFO, "device-rebuilt", device=self._name, batch=found.limit, took_s=took_s)
        if found.limit == self.max_batch and (self._health.out_of_memory or self._health.failed_builds):
            self._pause_s = FIRST_PAUSE_S
            if self._may_log():
                log_event(logger, logging.INFO, "device-recovered", device=self._name, batch=found.limit)

    def _note_short(self, short: ShortMemory) -> None:
        self._health = replace(self._health, out_of_memory=self._health.out_of_memory + 1)
        if self._may_log():
            batch, after, line = short.batch, short.next or "cpu", short.error
            log_event(
                logger, logging.WARNING, "device-memory-short", device=self._name, batch=batch, next=after, error=line
            )

    def _note_failed_build(self, error: Exception) -> None:
        """The CPU computes. Build again after a pause, unless it has failed too often."""
        clear_frames(error)
        self._failures += 1
        failed = self._health.failed_builds + 1
        self._gpu, self._health = None, replace(self._health, batch_limit=0, failed_builds=failed)
        self._wait_longer()
        next_s = "never" if self._failures >= MOST_FAILURES else f"{self._retry_s - self._clock_s():.0f}"
        attempt, line = self._failures, first_line(error)
        log_event(
            logger, logging.ERROR, "device-build-failed", device=self._name, attempt=attempt, next_s=next_s, error=line
        )

    def _may_log(self) -> bool:
        return self._log_limit.admit(time.monotonic_ns()) is not None


def _loaded(make: Callable[[], Engine], windows: Sequence[WindowMedia]) -> Engine:
    """The CPU's engine, after windows of the kinds that wait: it loads what each kind needs with the first one."""
    engine = make()
    with suppress(Exception):  # a fault of a window is raised where its logits are asked for
        grouped_logits(engine, windows)
    return engine


class _Batch:
    """See `engine.PendingLogits`. Its windows are under way, or wait until they can be."""

    def __init__(self, engine: ResilientEngine, windows: Sequence[WindowMedia]) -> None:
        self._engine, self._windows, self._until_s = engine, windows, time.monotonic() + HOLD_S
        self._parts = engine.start(windows, self._until_s)
        self._found: NDArray[np.float32] | None = None

    @property
    def is_ready(self) -> bool:
        if self._found is not None:
            return True
        try:
            if self._parts is None:
                self._parts = self._engine.start(self._windows, self._until_s)
            if self._parts is None or not all(part.is_ready for part in self._parts):
                return False
            self._keep(np.concatenate([part.logits() for part in self._parts]))
        except RuntimeError as error:
            return not self._is_answered(error)
        return True

    def _is_answered(self, error: RuntimeError) -> bool:
        """Whether the device failed, so that the windows wait once more; another error is for `logits` to raise."""
        try:
            self._engine.answer(error)
        except RuntimeError:
            return False
        self._parts, self._until_s = None, time.monotonic() + HOLD_S
        return True

    def _keep(self, found: NDArray[np.float32]) -> None:
        self._found = found
        self._windows, self._parts = (), ()  # media of a batch need much memory

    def logits(self) -> NDArray[np.float32]:
        if self._found is not None:
            return self._found
        while self._parts is None:
            self._engine.wait(self._until_s)
            self._parts = self._engine.start(self._windows, self._until_s)
        found = self._engine.collect(self._windows, self._parts)
        self._keep(found)
        return found
