"""The parts of `make gpu-check`: each measures one thing on a device, and says whether it is as it should be.

Every part also runs on the CPU, where it shows that the part itself works.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from perceiverd.bench import gpu, latency
from perceiverd.model.card import Card, load_card
from perceiverd.model.cuda.devices import gpu_of
from perceiverd.model.cuda.driver import Driver
from perceiverd.model.cuda.engine import SIZES, CudaEngine
from perceiverd.model.engine import Precision, WindowMedia
from perceiverd.model.resilient import ResilientEngine, grouped_logits
from perceiverd.model.torch_engine import TorchEngine

TESTS = ("tests/model/cuda", "tests/model/test_inference.py", "tests/bench/test_gpu.py")
EXACT, CLOSE = 1e-4, 0.02
"""How far scores may be from the CPU's: in float32, and in half precision."""
KERNEL_GAIN = 1.3
"""Our kernel stays only if it is so many times as fast as PyTorch's library."""
FREE_LEFT = 64_000_000
"""Bytes of the GPU that are left free where its memory is made short."""


@dataclass
class Result:
    """What a part found."""

    name: str
    ok: bool
    summary: str
    """One line for a person."""
    numbers: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Setup:
    """What all parts share."""

    device: torch.device
    model: str
    """A model's name or folder."""
    soak_s: float
    rounds: int
    sizes: tuple[int, ...] = SIZES

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def card(self) -> Card:
        return load_card(self.model)


def facts(setup: Setup) -> Result:
    """The machine and its software."""
    numbers: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "driver": msgspec.to_builtins(Driver.found()),
    }
    if setup.is_gpu:
        numbers["gpu"] = msgspec.to_builtins(gpu_of(setup.device))
        numbers["nvidia-smi"] = _run(
            ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,mig.mode.current", "--format=csv"]
        )
    what = str(gpu_of(setup.device)) if setup.is_gpu else "no GPU: this run shows only that the check works"
    return Result("facts", True, f"{what}; torch {torch.__version__}", numbers)


def tests(setup: Setup) -> Result:
    """`pytest -m gpu` on what needs a GPU."""
    wanted = "gpu" if setup.is_gpu else "not gpu"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", wanted, *TESTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return Result("tests", done.returncode == 0, last, {"failed": failed, "tail": done.stdout[-4000:]})


def agreement(setup: Setup) -> Result:
    """Scores of each precision, beside those of the CPU in float32, on mixed batches of noise."""
    card = setup.card
    windows = _mixed(gpu.noise_windows(card.geometry, 12))
    exact = _sigmoid(grouped_logits(TorchEngine(card, "cpu"), windows))
    precisions: list[Precision] = ["float32"]
    if setup.is_gpu:  # a CPU without instructions for half precision needs minutes
        precisions += ["bfloat16", "float16"] if gpu_of(setup.device).precision == "bfloat16" else ["float16"]
    numbers: dict[str, Any] = {}
    for precision in precisions:
        engine = CudaEngine(card, setup.device, precision, setup.sizes)
        parts = [windows[at : at + engine.max_batch] for at in range(0, len(windows), engine.max_batch)]
        found = _sigmoid(np.concatenate([engine.submit(part).logits() for part in parts]))
        numbers[precision] = {"most": float(np.abs(found - exact).max()), "reader": engine.reader}
        del engine
    ok = all(each["most"] < (EXACT if name == "float32" else CLOSE) for name, each in numbers.items())
    summary = ", ".join(f"{name} {each['most']:.1e}" for name, each in numbers.items())
    return Result("agreement", ok, f"largest difference of a score from the CPU: {summary}", numbers)


def speed(setup: Setup) -> Result:
    """The engine on this model."""
    found = gpu.measure(setup.card, setup.device, setup.rounds, sizes=setup.sizes)
    return Result("speed", True, _speed_line(found), {"timing": msgspec.to_builtins(found), "text": gpu.table(found)})


def public(setup: Setup) -> Result:
    """The sizes of the public checkpoint: our engine, the readers, and other implementations, in one process."""
    if not setup.is_gpu:
        return Result("public", True, "skipped: it takes minutes on a CPU")
    report = latency.run(latency.PUBLIC, str(setup.device), 0, setup.rounds, False)
    assert report.gpu
    rows = {row.name: row.median_ms for row in report.rows}
    numbers: dict[str, Any] = {"report": msgspec.to_builtins(report), "text": latency.table(report)}
    theirs = rows.get("transformers, bf16, fused, compiled") or rows.get("transformers, fused attention")
    if theirs:
        numbers["times_transformers"] = round(theirs / report.gpu.network_ms, 1)
    kernel, library = (
        min((each.median_ms for each in report.gpu.readers if each.name.startswith(name)), default=None)
        for name in ("kernel", "flex_attention")
    )
    if kernel and library:
        numbers["times_flex_attention"] = round(library / kernel, 2)
        numbers["keep_kernel"] = library / kernel >= KERNEL_GAIN
    ok = report.gpu.network_ms <= 1.0 and numbers.get("times_transformers", 0) >= 10
    beside = {key: value for key, value in numbers.items() if key not in ("report", "text")}
    return Result("public", ok, f"{_speed_line(report.gpu)}; {beside}", numbers)


def streams(setup: Setup) -> Result:
    """A daemon with many streams of the bundled clip, four hops a second, decoding included."""
    count, seconds = (32, 20) if setup.is_gpu else (1, 5)
    with tempfile.TemporaryDirectory(prefix="perceiverd-gpu-") as folder:
        file = Path(folder) / "streams.json"
        command = [sys.executable, "-m", "perceiverd", "bench", setup.model, "--streams", str(count)]
        command += ["--seconds", str(seconds), "--hop", "0.25", "--device", str(setup.device), "--json", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150)
        numbers = json.loads(file.read_text()) if file.exists() else {}
    line = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]
    return Result("streams", done.returncode == 0, line, {"report": numbers, "text": done.stdout[-4000:]})


def short_memory(setup: Setup) -> Result:
    """The GPU's memory is filled, and freed again: the windows have their logits throughout."""
    if not setup.is_gpu:
        return Result("short memory", True, "skipped: needs a GPU; tests/model/test_resilient.py does this on a CPU")
    card, now_s = setup.card, [0.0]
    engine = ResilientEngine(
        str(setup.device),
        partial(CudaEngine, card, setup.device, "float32", setup.sizes),
        partial(TorchEngine, card, "cpu"),
        lambda: now_s[0],
    )
    windows = gpu.noise_windows(card.geometry, engine.max_batch)
    exact = grouped_logits(TorchEngine(card, "cpu"), windows)
    whole, errors = engine.max_batch, []

    def compare() -> None:
        errors.append(float(np.abs(engine.submit(windows).logits() - exact).max()))

    compare()
    assert engine._gpu
    engine._gpu.release()  # as after a first failure: graphs must be recorded again, which needs memory
    free, _ = torch.cuda.mem_get_info(setup.device)
    ballast = torch.empty(max(1, free - FREE_LEFT), dtype=torch.uint8, device=setup.device)
    compare()
    low = engine.health
    del ballast
    torch.cuda.empty_cache()
    for _ in range(10):
        now_s[0] += 400
        compare()
    high = engine.health
    numbers = {"low": msgspec.to_builtins(low), "high": msgspec.to_builtins(high), "most": max(errors)}
    ok = low.out_of_memory > 0 and high.batch_limit == whole and max(errors) < 10 * EXACT
    summary = f"largest batch {whole} -> {low.batch_limit} -> {high.batch_limit}, logits within {max(errors):.1e}"
    return Result("short memory", ok, summary, numbers)


def soak(setup: Setup) -> Result:
    """Batches of random sizes and modalities: flat memory, no new graph, no wrong logits."""
    card, rng = setup.card, np.random.default_rng(0)
    engine = CudaEngine(card, setup.device, sizes=setup.sizes)
    engine.prepare()
    windows = _mixed(gpu.noise_windows(card.geometry, engine.max_batch))
    first = engine.submit(windows).logits()
    span = float(np.ptp(first))
    graphs, before = len(engine._graphs._recorded), _reserved(setup)
    ends_s, batches, worst = time.monotonic() + setup.soak_s, 0, 0.0
    while time.monotonic() < ends_s:
        rows = rng.permutation(len(windows))[: rng.integers(1, engine.max_batch + 1)]
        found = engine.submit([windows[row] for row in rows]).logits()
        worst = max(worst, float(np.abs(found - first[rows]).max()) / span)
        batches += 1
    grown, new = _reserved(setup) - before, len(engine._graphs._recorded) - graphs
    ok = grown == 0 and new == 0 and worst < 0.05 and batches > 0
    summary = f"{batches} batches: memory grew by {grown} bytes, {new} graphs recorded again, logits within {worst:.1e}"
    return Result("soak", ok, summary, {"batches": batches, "grown": grown, "graphs": new, "worst": worst})


PARTS: dict[str, Callable[[Setup], Result]] = {
    "facts": facts,
    "tests": tests,
    "agreement": agreement,
    "speed": speed,
    "public": public,
    "streams": streams,
    "short-memory": short_memory,
    "soak": soak,
}


def _mixed(windows: list[WindowMedia]) -> list[WindowMedia]:
    """Every third window without audio, every third without video, if the model has both."""
    if any(window.audio is None or window.frames is None for window in windows):
        return windows
    kinds = [(window.audio, window.frames) for window in windows]
    return [
        WindowMedia(None if row % 3 == 1 else audio, None if row % 3 == 2 else frames)
        for row, (audio, frames) in enumerate(kinds)
    ]


def _sigmoid(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return found


def _speed_line(found: gpu.GpuTiming) -> str:
    best = max(rate.network_windows_s for rate in found.rates)
    upload = max(rate.upload_windows_s for rate in found.rates)
    share = max(rate.of_matmul for rate in found.rates)
    return (
        f"one window {found.network_ms:g} ms; {best:.0f} windows/s, {upload:.0f} with upload; {share:.0%} of a matrix "
        f"product; reader {found.reader}, {found.precision}"
    )


def _reserved(setup: Setup) -> int:
    return torch.cuda.memory_reserved(setup.device) if setup.is_gpu else 0


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except OSError as error:
        return str(error)
