"""What happens if something fails: full memory, a graph that is refused, a lost device. Streams are in `soak`."""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import partial
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from perceiverd.bench import gpu
from perceiverd.model.cuda.engine import CudaEngine
from perceiverd.model.cuda.network import DeviceMedia
from perceiverd.model.mixed_batches import grouped_logits
from perceiverd.model.resilient import ResilientEngine
from perceiverd.model.torch_engine import TorchEngine
from tests.gpu_check.accuracy import EXACT, mixed
from tests.gpu_check.result import Check, Result, Setup
from tests.support.small_devices import settle

FREE_LEFT = 64_000_000
"""Bytes of the GPU that are left free where its memory is made short."""


class Clock:
    """Time that passes when we say so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def resilient(setup: Setup, clock: Clock, *, precise: bool) -> ResilientEngine:
    """The engine as the daemon has it."""
    make = partial(CudaEngine, setup.card, setup.device, "float32" if precise else "auto", setup.sizes)
    return ResilientEngine(str(setup.device), make, partial(TorchEngine, setup.card, "cpu"), clock)


def memory(setup: Setup) -> Result:
    """The GPU's memory is filled, and freed again: the windows have their logits throughout."""
    clock = Clock()
    engine = resilient(setup, clock, precise=True)
    windows = gpu.noise_windows(setup.card.geometry, engine.max_batch)
    exact = grouped_logits(TorchEngine(setup.card, "cpu"), windows)
    whole, errors = engine.max_batch, []

    def compare() -> None:
        errors.append(float(np.abs(engine.submit(windows).logits() - exact).max()))
        settle(engine)

    compare()
    with Ballast(setup):
        compare()  # everything is allocated already
        untouched = engine.health
        release(engine)  # as after a first failure: graphs must be recorded again, which needs memory
    with Ballast(setup):
        compare()
        low = engine.health
    for _ in range(10):
        clock.now_s += 400
        compare()
    high = engine.health
    checks = [
        setup.check("a full GPU does not matter to what is loaded", untouched.out_of_memory == 0, str(untouched)),
        setup.check(
            "short memory makes batches smaller, and they grow again",
            low.out_of_memory > 0 and high.batch_limit == whole,
            f"largest batch {whole} -> {low.batch_limit} -> {high.batch_limit}",
        ),
        Check("all windows have their logits meanwhile", max(errors) < 10 * EXACT, f"within {max(errors):.1e}"),
    ]
    numbers = {"low": msgspec.to_builtins(low), "high": msgspec.to_builtins(high)}
    return Result("memory", f"{checks[1].found}; logits within {max(errors):.1e}", checks, numbers)


class Ballast:
    """A context manager that fills the GPU's memory, as another program does."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._held: list[Tensor] = []

    def __enter__(self) -> None:
        if self._setup.is_gpu:
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(self._setup.device)
            size = max(1, free - FREE_LEFT)
            self._held = [torch.empty(size, dtype=torch.uint8, device=self._setup.device)]

    def __exit__(self, *_: object) -> None:
        self._held.clear()
        if self._setup.is_gpu:
            torch.cuda.empty_cache()


def release(engine: ResilientEngine) -> None:
    """Forget all graphs."""
    if engine._gpu:
        engine._gpu.release()


def faults(setup: Setup) -> Result:
    """A network that no graph can hold, and a fault from which CUDA does not recover."""
    card = setup.card
    windows = mixed(gpu.noise_windows(card.geometry, min(3, max(setup.sizes))))
    exact = grouped_logits(TorchEngine(card, "cpu"), windows)
    engine, lines = CudaEngine(card, setup.device, "float32", setup.sizes), Lines()
    engine._graphs._network = _Waiting(engine._graphs._network)  # type: ignore[assignment]
    logging.getLogger("perceiverd.model").addHandler(lines)
    off = [float(np.abs(engine.submit(windows).logits() - exact).max()) for _ in range(3)]
    engine.release()
    off.append(float(np.abs(engine.submit(windows).logits() - exact).max()))
    said = [each for each in lines.found if each.startswith("graphs-unusable")]
    command = [sys.executable, "-m", "tests.gpu_check.lost", setup.model, str(setup.device)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=setup.limit_s)
    last = ((done.stdout.strip() or done.stderr.strip()).splitlines() or ["no output"])[-1]
    checks = [
        setup.check("a network that no graph can hold runs without, with a line in the log", len(said) == 1, str(said)),
        Check("its logits are right", max(off) < 10 * EXACT, f"within {max(off):.1e}"),
        Check("after a fault of CUDA the CPU computes, and the process ends well", done.returncode == 0, last),
    ]
    return Result("faults", f"graphs: {checks[1].found}; lost device: {last}", checks, {"log": done.stderr[-2000:]})


class _Waiting:
    """A network that waits for the device, which no graph can hold."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, media: DeviceMedia) -> Tensor:
        logits: Tensor = self._network(media)
        logits.sum().item()
        return logits


class Lines(logging.Handler):
    """Keeps log lines."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())
