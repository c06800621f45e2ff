"""Engines and forms of one model beside each other, as a stream uses them: a window, with frames that are kept, sound.

The start of each engine is measured in a process of its own. The same network in other runtimes reads the exported
graph. All calls take turns, so that other work on the machine slows all of them alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from perceiverd.bench import yamnet_graph
from perceiverd.bench.baselines import installed_version
from perceiverd.bench.energy import joules
from perceiverd.core.errors import PerceiverdError
from perceiverd.model.card import Card
from perceiverd.model.engine import Engine, is_featured
from perceiverd.model.engine_choice import load_engine
from perceiverd.model.export import export
from perceiverd.model.onnx_engine import OnnxEngine
from perceiverd.model.onnx_runtime import onnxruntime
from perceiverd.model.torch_engine import TorchEngine

START_S = 120.0
"""How long a process may take to load an engine and tag a window."""
STARTS = 3
"""How often a start is measured."""

Media = tuple[NDArray[np.float32] | None, list[NDArray[np.uint8]] | None]
"""Samples (1, S) and frames (H, W, 3) of one window; what the model does not use is None."""


class PartTiming(msgspec.Struct, frozen=True):
    """Medians over the rounds."""

    wall_ms: float
    cpu_ms: float
    """Over all threads."""


class EngineTiming(msgspec.Struct, frozen=True):
    """One engine in one form, or another runtime."""

    name: str
    used: bool
    """Whether `auto` takes this engine in this form."""
    window: PartTiming | None
    """All of one window, batch 1; None for a network that only hears."""
    kept: PartTiming | None = None
    """A window whose frames were all in an earlier one, or show nothing new; None if the engine keeps nothing."""
    sound: PartTiming | None = None
    """A window with audio alone; for YAMNet its own window of 0.96 s."""
    window_mj: float | None = None
    """Energy of one window, of the processor package, by RAPL; None if it cannot be read."""


class StartTiming(msgspec.Struct, frozen=True):
    """From the start of a process until its first window was tagged."""

    engine: str
    cpu_s: float
    wall_s: float
    resident_mb: float
    """Memory at the end, shared files included."""


def noise(card: Card) -> Media:
    """One window of noise for this model."""
    rng, audio, video = np.random.default_rng(0), card.geometry.audio, card.geometry.video
    samples = rng.uniform(-1, 1, (1, audio.samples)).astype(np.float32) if audio else None
    shape = (video.frames, video.height, video.width, 3) if video else None
    return samples, list(rng.integers(0, 256, shape, dtype=np.uint8)) if shape else None


def timings(card: Card, threads: int, rounds: int) -> list[EngineTiming]:
    """Both engines in both forms, then other runtimes, on the CPU. Raises PerceiverdError if one cannot be loaded."""
    media, used = noise(card), load_engine(card, "auto", "cpu", threads)
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    names: dict[str, bool] = {}
    for factorised in (False, True):
        for engine in (OnnxEngine(card, threads, factorised), TorchEngine(card, "cpu", threads, factorised)):
            name = f"{engine.name}, {engine.form}"
            names[name] = (engine.name, engine.form) == (used.name, used.form)
            calls |= {(name, part): call for part, call in _parts(engine, media)}
    with tempfile.TemporaryDirectory(prefix="perceiverd-bench-") as folder:
        file = export(card, Path(folder))
        peers = [*_peers(file, media, threads), _yamnet(Path(folder) / "yamnet", threads)]
        names |= dict.fromkeys((name for name, _, _ in peers), False)
        calls |= {(name, part): call for name, part, call in peers}
        spent = _in_turns(calls, rounds)
    return [_timing(name, here, spent) for name, here in names.items()]


def _timing(name: str, used: bool, spent: dict[tuple[str, str], tuple[PartTiming, float | None]]) -> EngineTiming:
    window, kept, sound = (spent.get((name, part), (None, None)) for part in ("window", "kept", "sound"))
    return EngineTiming(name, used, window[0], kept[0], sound[0], window[1])


def _parts(engine: Engine, media: Media) -> Iterator[tuple[str, Callable[[], object]]]:
    samples, frames = media

    def window() -> object:
        video: Any = None if frames is None else [engine.features(frames) if is_featured(engine) else frames]
        return engine.logits(samples, video)

    yield "window", window
    if frames is not None and is_featured(engine):
        yield "kept", partial(engine.logits, samples, [engine.features(frames)])
    if samples is not None and frames is not None:
        yield "sound", partial(engine.logits, samples, None)


def _peers(file: Path, media: Media, threads: int) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """The exported graph in one piece: ONNX Runtime as it comes, and OpenVINO if it is installed."""
    samples, frames = media
    inputs: dict[str, Any] = {} if samples is None else {"audio": samples}
    inputs |= {} if frames is None else {"video": np.stack(frames)[None]}
    yield "ONNX Runtime, exported graph", "window", partial(_session(file, threads).run, None, inputs)
    if installed_version("openvino"):
        import openvino

        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(str(file), "CPU", hints)
        yield "OpenVINO, exported graph", "window", partial(compiled, inputs)


def _yamnet(folder: Path, threads: int) -> tuple[str, str, Callable[[], object]]:
    samples = np.random.default_rng(0).uniform(-1, 1, (1, yamnet_graph.SAMPLES)).astype(np.float32)
    run = partial(_session(yamnet_graph.write(folder), threads).run, None, {"audio": samples})
    return "YAMNet's layers, 0.96 s", "sound", run


def _session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # As our engine has it: threads that spin would take time from the calls that follow.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _in_turns(
    calls: dict[tuple[str, str], Callable[[], object]], rounds: int
) -> dict[tuple[str, str], tuple[PartTiming, float | None]]:
    """Medians of each call, and its energy in millijoules."""
    spent: dict[tuple[str, str], list[tuple[float, float, float | None]]] = {key: [] for key in calls}
    for turn in range(rounds + 1):
        for key, call in calls.items():
            before_j, before_cpu_s, before_s = joules(), time.process_time(), time.perf_counter()
            call()
            wall_s, cpu_s, after_j = time.perf_counter() - before_s, time.process_time() - before_cpu_s, joules()
            if turn:  # the first turn warms up
                energy_j = None if before_j is None or after_j is None else max(0.0, after_j - before_j)
                spent[key].append((wall_s, cpu_s, energy_j))
    return {key: _median(each) for key, each in spent.items()}


def _median(spent: Sequence[tuple[float, float, float | None]]) -> tuple[PartTiming, float | None]:
    wall_s, cpu_s = (median(each[index] or 0.0 for each in spent) for index in (0, 1))
    energies_j = [each[2] for each in spent if each[2] is not None]
    energy_mj = round(median(energies_j) * 1e3, 2) if energies_j else None
    return PartTiming(round(wall_s * 1e3, 2), round(cpu_s * 1e3, 2)), energy_mj


# ------------------------------------------------------------------------------------------------ starts
def starts(card: Card, threads: int) -> list[StartTiming]:
    """Of each engine, the median of a few starts. Raises PerceiverdError if one fails."""
    return [_start(card, engine, threads) for engine in ("onnxruntime", "torch")]


def _start(card: Card, engine: str, threads: int) -> StartTiming:
    found = [_started(card, engine, threads) for _ in range(STARTS)]
    return sorted(found, key=lambda each: each.cpu_s)[len(found) // 2]


def _started(card: Card, engine: str, threads: int) -> StartTiming:
    command = [sys.executable, "-m", "perceiverd.bench.engine_start", str(card.folder.absolute()), engine, str(threads)]
    began_s = time.monotonic()
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S)
        wall_s = time.monotonic() - began_s
        printed = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise PerceiverdError(f"the engine {engine} did not start within {START_S:g} s; try again") from None
    except ValueError:
        last = (done.stderr.splitlines() or ["no output"])[-1]
        raise PerceiverdError(f"the engine {engine} did not start: {last}") from None
    return StartTiming(engine, round(printed["cpu_s"], 3), round(wall_s, 3), round(printed["resident_mb"], 1))


def table(rows: Sequence[EngineTiming], started: Sequence[StartTiming]) -> str:
    """Both as text."""
    energy = any(row.window_mj is not None for row in rows)
    head = f"{'engine, wall and CPU time':31}{'a window':>18}{'frames kept':>18}{'sound alone':>18}"
    lines = [head + ("      energy" if energy else "")]
    for row in rows:
        line = f"{row.name + (' *' if row.used else ''):31}"
        line += "".join(f"{_part(each):>18}" for each in (row.window, row.kept, row.sound))
        lines.append(line + ("" if row.window_mj is None else f"{row.window_mj:9.1f} mJ"))
    lines += [
        '* what engine = "auto" uses here',
        "",
        f"{'start, to the first window':31}{'wall':>10}{'CPU':>10}{'memory':>10}",
    ]
    lines += [f"{one.engine:31}{one.wall_s:8.2f} s{one.cpu_s:8.2f} s{one.resident_mb:7.0f} MB" for one in started]
    return "\n".join(lines)


def _part(one: PartTiming | None) -> str:
    return "-" if one is None else f"{one.wall_ms:.1f} {one.cpu_ms:8.1f} ms"
