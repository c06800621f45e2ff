"""What happens in the long run, and if something fails: full memory, a graph that is refused, a lost device."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from perceiverd.bench import gpu
from perceiverd.model.cuda.engine import CudaEngine
from perceiverd.model.cuda.network import DeviceMedia
from perceiverd.model.engine import WindowMedia
from perceiverd.model.mixed_batches import grouped_logits
from perceiverd.model.resilient import ResilientEngine
from perceiverd.model.torch_engine import TorchEngine
from tests.gpu_check.accuracy import EXACT, mixed
from tests.gpu_check.result import Check, Result, Setup
from tests.support.small_devices import settle

FREE_LEFT = 64_000_000
"""Bytes of the GPU that are left free where its memory is made short."""
LEAVE_S = 25.0
"""Of a part's time, what loading and the end take."""
MOST_STREAMS = 64
WRONG = 0.05
"""How far logits may be from those of the same window in another batch, over their range, in half precision."""


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


def soak(setup: Setup) -> Result:
    """Streams come and go at random, with and without each modality; in the middle, memory is short for a while."""
    clock, rng = Clock(), np.random.default_rng(0)
    engine = resilient(setup, clock, precise=False)
    most = min(MOST_STREAMS, engine.max_batch)
    windows = mixed(gpu.noise_windows(setup.card.geometry, most))
    first = np.concatenate([engine.submit([window]).logits() for window in windows])
    span = float(np.ptp(first))
    lasts_s = max(0.2, min(setup.soak_s, setup.limit_s - LEAVE_S))
    began_s = time.monotonic()
    quiet, batches, worst = _quiet(setup, engine), 0, 0.0
    alive = set(rng.choice(most, max(1, most // 2), replace=False).tolist())
    failures = 0
    for phase in ("calm", "short", "calm again"):
        ends_s = began_s + lasts_s * {"calm": 0.5, "short": 0.6, "calm again": 1.0}[phase]
        if phase == "short":
            release(engine)
        with Ballast(setup) if phase == "short" else _Nothing():
            while time.monotonic() < ends_s or not batches:
                alive = _changed(alive, most, rng)
                rows = sorted(alive)
                off = _off(engine, windows, rows, first)
                worst, batches, clock.now_s = max(worst, off / span), batches + 1, clock.now_s + 1.0
        failures = max(failures, engine.health.out_of_memory)
        if phase == "calm":
            grown = quiet()
    clock.now_s += 4000
    for _ in range(10):
        clock.now_s += 400
        worst = max(worst, _off(engine, windows, list(range(most)), first) / span)
        settle(engine)
    checks = [
        setup.check(
            "memory is flat and no graph is recorded again while streams come and go",
            grown == (0, 0),
            f"{grown[0]} bytes, {grown[1]} graphs",
        ),
        setup.check("short memory in the middle is noticed", failures > 0, f"{failures} times"),
        setup.check(
            "afterwards batches are whole again", engine.health.batch_limit == engine.max_batch, str(engine.health)
        ),
        Check("every window has its logits", worst < WRONG, f"{batches} batches, within {worst:.1e} of their range"),
    ]
    return Result("soak", f"{lasts_s:.0f} s; {checks[0].found}; {checks[3].found}", checks, {"batches": batches})


class _Nothing:
    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


def _changed(alive: set[int], most: int, rng: np.random.Generator) -> set[int]:
    """The streams after some have ended and others begun; at least one."""
    ended = {stream for stream in alive if rng.random() < 0.1}
    begun = {int(stream) for stream in rng.integers(0, most, rng.integers(0, 1 + most // 8))}
    return (alive - ended) | begun or {int(rng.integers(0, most))}


def _off(engine: ResilientEngine, windows: Sequence[WindowMedia], rows: list[int], first: Any) -> float:
    found = engine.submit([windows[row] for row in rows]).logits()
    return float(np.abs(found - first[rows]).max())


def _quiet(setup: Setup, engine: ResilientEngine) -> Any:
    """A function that says by how much memory and graphs have grown since now."""

    def state() -> tuple[int, int]:
        held = torch.cuda.memory_reserved(setup.device) if setup.is_gpu else 0
        inner = engine._gpu
        return held, len(inner._graphs.sizes) if isinstance(inner, CudaEngine) else 0

    before = state()
    return lambda: (state()[0] - before[0], state()[1] - before[1])
