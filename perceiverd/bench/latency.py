"""`perceiverd bench`: how long a window takes here, beside the machine's limits and other implementations.

All networks run in one process and in turns, one call after the other, so that other work on the machine slows all of
them alike. The report has medians; the load average before and after shows whether to trust them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from perceiverd import __version__
from perceiverd.bench import baselines, gpu, profiling
from perceiverd.bench import engines as by_engine
from perceiverd.bench.baselines import ScoreBatch, TimedNetwork
from perceiverd.bench.engines import EngineTiming, StartTiming
from perceiverd.bench.gpu import GpuTiming
from perceiverd.core.labels import Label
from perceiverd.model.card import Card, load_card
from perceiverd.model.checkpoint import load_network, save_model
from perceiverd.model.convert import HubConfig, convert
from perceiverd.model.cuda.devices import device_of
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.engine import Form, is_featured
from perceiverd.model.engine_choice import load_engine
from perceiverd.model.geometry import Geometry
from perceiverd.model.inference import Inference
from perceiverd.model.perceiver import Perceiver

PUBLIC = "public"
"""The public checkpoint's sizes, with random weights: to measure the time needs no download."""
BATCHES = (1, 2, 4, 8, 16, 32)
"""Windows at once that are tried for the best throughput."""
FORMS: tuple[Form, ...] = ("factorised", "plain")
FRAMES, STREAMS = (8, 16, 32, 64), (1, 4, 16, 64)
"""Frames of a window, and windows at once, that `--growth` times."""
MB = 1_000_000


class NetworkTiming(msgspec.Struct, frozen=True):
    """One network's time, work and memory for one window."""

    name: str
    median_ms: float
    p99_ms: float
    """Over the rounds; with 100 rounds or fewer it is the slowest."""
    gflop: float
    """Operations of matrix products in one window, counted, in 1e9."""
    of_matmul: float
    """Their rate as a share of what the machine reaches in a plain matrix product, 0..1."""
    of_copy: float | None
    """Bytes that operations read and wrote per second, as a share of the machine's rate in a plain copy. Caches can
    make it larger than 1. None if it does not run in PyTorch, so that nobody counts them."""
    peak_mb: float | None
    """Weights, tables and the memory allocated during a call; None if nobody counts it."""
    times: float
    """Its median divided by the median of the first row."""
    best_batch: int | None = None
    """Windows at once with the highest throughput; measured for the first row only."""
    windows_s: float | None = None
    """Windows per second at the best batch."""


class GrowthTiming(msgspec.Struct, frozen=True):
    """Time and memory with more frames in a window, or more windows at once."""

    frames: int
    streams: int
    tokens: int
    """Tokens of all windows together."""
    median_ms: float
    peak_mb: float | None
    """Memory allocated during a call, without weights and tables."""


class BenchReport(msgspec.Struct, frozen=True):
    """All numbers for one model, and the machine they were measured on."""

    perceiverd: str
    versions: dict[str, str]
    time: str
    machine: str
    device: str
    threads: int
    rounds: int
    load: tuple[float, float]
    """Load average before and after."""
    model: str
    geometry: str
    matmul_gflops: float
    copy_gbs: float
    rows: list[NetworkTiming]
    growth: list[GrowthTiming]
    engines: list[EngineTiming] = []
    """On a CPU only."""
    starts: list[StartTiming] = []
    untimed: dict[str, str] = {}
    """Networks that cannot be timed here, and why."""
    gpu: GpuTiming | None = None
    """On a GPU only: the engine that runs there. The rows above have its network in float32, without graphs."""


def run(model: str, device: str, threads: int, rounds: int, growth: bool) -> BenchReport:
    """Measure one model. Raises ModelError if it cannot be loaded, ConfigError if there is no such device."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    where = device_of(device)
    before = os.getloadavg()[0]
    with torch.inference_mode():
        geometry, network, networks = _networks(model, where)
        if where.type == "cpu":
            with _card_of(model, geometry, network) as card:
                networks.insert(0, _as_used(card, networks))
        untimed = {network.name: network.fault for network in networks if network.fault}
        rows, matmul, copied = _timings([network for network in networks if not network.fault], where, rounds)
        grown = list(_growth(where, max(2, rounds // 4))) if growth else []
    del networks  # their memory is large
    on_gpu: GpuTiming | None = None
    if where.type == "cuda":
        torch.cuda.empty_cache()
        with _card_of(model, geometry, network) as card:
            on_gpu = gpu.measure(card, where, rounds)
    timed: list[EngineTiming] = []
    starts: list[StartTiming] = []
    if where.type == "cpu":
        with _card_of(model, geometry, network) as card:
            timed = by_engine.timings(card, torch.get_num_threads(), rounds)
            starts = by_engine.starts(card, torch.get_num_threads())
    sizes = ", ".join(f"{m.tokens} tokens of {m.name}" for m in geometry.modalities)
    return BenchReport(
        perceiverd=__version__,
        versions=dict(baselines.versions()),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=profiling.machine_name(where),
        device=str(where),
        threads=torch.get_num_threads(),
        rounds=rounds,
        load=(round(before, 1), round(os.getloadavg()[0], 1)),
        model=model,
        geometry=f"{sizes}; {geometry.trunk.latents} latents of {geometry.trunk.width} channels",
        matmul_gflops=round(matmul / 1e9, 1),
        copy_gbs=round(copied / 1e9, 1),
        rows=rows,
        growth=grown,
        engines=timed,
        starts=starts,
        untimed=untimed,
        gpu=on_gpu,
    )


@contextmanager
def _card_of(model: str, geometry: Geometry, network: Perceiver) -> Iterator[Card]:
    """The card of a model; of the public sizes, in a folder for this time."""
    if model != PUBLIC:
        yield load_card(model)
        return
    with tempfile.TemporaryDirectory(prefix="perceiverd-bench-") as folder:
        labels = [Label(i, f"k700/{i}", str(i)) for i in range(geometry.classes)]
        save_model(Path(folder), network, geometry, labels, name=PUBLIC, licence="CC0-1.0")
        yield load_card(Path(folder))


def _networks(model: str, device: torch.device) -> tuple[Geometry, Perceiver, list[TimedNetwork]]:
    """Sizes and network, and what to time. Our forms come first. The others exist only in the public sizes."""
    theirs: Any = None
    if model != PUBLIC:
        card = load_card(model)
        geometry, network = card.geometry, load_network(card)
    elif baselines.installed_version("transformers"):
        with torch.inference_mode(False):  # `torch.compile` refuses weights that were made in inference mode
            theirs = baselines.public_checkpoint(num_frames=16)
        config = msgspec.json.decode(theirs.config.to_json_string(), type=HubConfig)
        geometry, network = convert(config, theirs.state_dict())
    else:
        geometry, network = _public_network(16)
    network.to(device)
    samples, frames = _noise_window(geometry, device)
    networks = [
        _our_network(f"perceiverd, PyTorch, {form}", network, geometry, samples, frames, form == "factorised")
        for form in FORMS
    ]
    if theirs is not None:
        with torch.inference_mode(False):
            theirs.to(device)
        networks += baselines.transformers_networks(theirs, samples, frames)
    if model == PUBLIC and baselines.installed_version("perceiver-pytorch"):
        contents = network.bytes.convolve(_tokens(geometry, samples, frames))
        networks.append(baselines.perceiver_pytorch_network(geometry, network.bytes(contents)))
    if model == PUBLIC and baselines.installed_version("transformers"):
        networks.append(baselines.ast_network(device))
    return geometry, network, networks


def _public_network(num_frames: int) -> tuple[Geometry, Perceiver]:
    labels = {str(i): str(i) for i in range(700)}
    geometry = HubConfig(
        "perceiver", labels, 784, 512, 1, 8, num_cross_attention_heads=1, num_frames=num_frames
    ).geometry()
    return geometry, Perceiver(geometry.modalities, geometry.trunk, geometry.classes).eval()


def _our_network(
    name: str, network: Perceiver, geometry: Geometry, samples: Tensor, frames: Tensor, factorised: bool | None
) -> TimedNetwork:
    """Our network, from samples and pixels to logits, as the tagger runs it."""
    ready = Inference(network, factorised)

    def score(batch: int) -> Tensor:
        wide = (media.expand(batch, *media.shape[1:]) for media in (samples, frames))
        return ready(_tokens(geometry, *wide))

    return TimedNetwork(name, score, ready)


def _as_used(card: Card, torch_forms: Sequence[TimedNetwork]) -> TimedNetwork:
    """The engine and form that `auto` takes on a CPU. `torch_forms`: our network in PyTorch, in the order of FORMS."""
    engine = load_engine(card, "auto", "cpu", torch.get_num_threads())
    samples, frames = by_engine.noise(card)

    def score(batch: int) -> Any:
        wide = None if samples is None else np.repeat(samples, batch, axis=0)
        video: Any = None
        if frames is not None:
            each = engine.features(frames * batch) if is_featured(engine) else frames * batch
            video = [each[first : first + len(frames)] for first in range(0, len(each), len(frames))]
        return engine.logits(wide, video)

    return TimedNetwork("perceiverd", score, None, torch_forms[FORMS.index(engine.form)].score)


def _noise_window(geometry: Geometry, device: torch.device) -> tuple[Tensor, Tensor]:
    """One window of noise: audio (1, samples), frames (1, T, H, W, 3); empty if the model does not use them."""
    audio, video = geometry.audio, geometry.video
    samples = torch.rand(1, audio.samples if audio else 0, device=device) * 2 - 1
    shape = (1, video.frames, video.height, video.width, 3) if video else (1, 0)
    return samples, torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


def _tokens(geometry: Geometry, samples: Tensor, frames: Tensor) -> dict[str, Tensor]:
    tokens = {"audio": audio_tokens(samples, geometry.audio)} if geometry.audio else {}
    return tokens | ({"video": video_tokens(frames, geometry.video)} if geometry.video else {})


def _timings(
    networks: Sequence[TimedNetwork], device: torch.device, rounds: int
) -> tuple[list[NetworkTiming], float, float]:
    """A row for each network; the machine's operations per second (matrix product) and bytes per second (copy)."""
    (product, operations), (copy, copied) = profiling.matmul_probe(device), profiling.copy_probe(device)
    turns: dict[str, profiling.Call] = {"matmul": product, "copy": copy}
    turns |= {network.name: partial(network.score, 1) for network in networks}
    spent: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(rounds + 1):
        for name, call in turns.items():
            seconds = profiling.seconds_of(call, device)
            if turn:  # the first turn warms up
                spent[name].append(seconds)
    matmul, bandwidth = operations / median(spent["matmul"]), copied / median(spent["copy"])
    del copy, turns["copy"]  # its memory is large
    rows = []
    for index, network in enumerate(networks):
        counted = partial(network.counted or network.score, 1)
        seconds, flop = median(spent[network.name]), profiling.matmul_flop(counted)
        traffic = None if network.holds is None else profiling.traffic_bytes(counted)
        best = _best_batch(network.score, device) if index == 0 else (None, None)
        rows.append(
            NetworkTiming(
                name=network.name,
                median_ms=round(seconds * 1e3, 2),
                p99_ms=round(float(np.percentile(spent[network.name], 99, method="higher")) * 1e3, 2),
                gflop=round(flop / 1e9, 6),
                of_matmul=round(flop / seconds / matmul, 3),
                of_copy=None if traffic is None else round(traffic / seconds / bandwidth, 3),
                peak_mb=_peak_mb(network, device),
                times=round(seconds / median(spent[networks[0].name]), 2),
                best_batch=best[0],
                windows_s=best[1],
            )
        )
    return rows, matmul, bandwidth


def _best_batch(score: ScoreBatch, device: torch.device) -> tuple[int, float]:
    """The batch with the most windows per second, and these. Stops after two larger batches without improvement."""
    rates: dict[int, float] = {}
    for batch in BATCHES:
        score(batch)
        rates[batch] = batch / median(profiling.seconds_of(partial(score, batch), device) for _ in range(3))
        if len(rates) > 2 and max(list(rates.values())[-2:]) < max(rates.values()):
            break
    best = max(rates, key=lambda batch: rates[batch])
    return best, round(rates[best], 2)


def _peak_mb(network: TimedNetwork, device: torch.device) -> float | None:
    if network.holds is None:
        return None
    beside = profiling.peak_bytes(partial(network.score, 1), device)
    return None if beside is None else round((profiling.held_bytes(network.holds) + beside) / MB, 1)


def _growth(device: torch.device, rounds: int) -> Iterator[GrowthTiming]:
    """Windows with more frames and audio, and more windows at once, in the public sizes."""
    for frames, streams in [*((n, 1) for n in FRAMES), *((16, n) for n in STREAMS[1:])]:
        geometry, network = _public_network(frames)
        ours = _our_network("", network.to(device), geometry, *_noise_window(geometry, device), True)
        call = partial(ours.score, streams)
        call()
        seconds = median(profiling.seconds_of(call, device) for _ in range(rounds))
        tokens = streams * (sum(m.tokens for m in geometry.modalities) + geometry.trunk.constants)
        peak = profiling.peak_bytes(call, device)
        yield GrowthTiming(
            frames, streams, tokens, round(seconds * 1e3, 1), None if peak is None else round(peak / MB, 1)
        )


def table(report: BenchReport) -> str:
    """The report as text: the machine, then a line for each network."""
    found = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    lines = [
        f"{report.model}: {report.geometry}",
        f"{report.machine}; {report.device}, {report.threads} threads; perceiverd {report.perceiverd}, {found}",
        f"matrix product {report.matmul_gflops:g} GFLOP/s, copy {report.copy_gbs:g} GB/s; {report.rounds} rounds",
        f"load {report.load[0]:g} before, {report.load[1]:g} after",
        "",
        f"{'one window':31}{'median':>10}{'p99':>10}{'times':>8}{'GFLOP':>8}{'matmul':>8}{'copy':>6}{'memory':>10}",
    ]
    for row in report.rows:
        memory = "-" if row.peak_mb is None else f"{row.peak_mb:.0f} MB"
        copied = "-" if row.of_copy is None else f"{row.of_copy:.0%}"
        lines.append(
            f"{row.name:31}{row.median_ms:7.1f} ms{row.p99_ms:7.1f} ms{row.times:8.2f}{row.gflop:8.1f}"
            f"{row.of_matmul:8.0%}{copied:>6}{memory:>10}"
        )
    lines += [f"{name:31}not timed: {why}" for name, why in report.untimed.items()]
    lines += [
        f"\n{row.name}: {row.windows_s:g} windows a second in batches of {row.best_batch}"
        for row in report.rows
        if row.windows_s
    ]
    if report.gpu:
        lines += ["", gpu.table(report.gpu)]
    if report.engines:
        lines += ["", by_engine.table(report.engines, report.starts)]
    if report.growth:
        lines += ["", f"{'frames':>8}{'streams':>9}{'tokens':>10}{'median':>12}{'beside model':>16}"]
    for one in report.growth:
        memory = "unknown" if one.peak_mb is None else f"{one.peak_mb:.0f} MB"
        lines.append(f"{one.frames:8}{one.streams:9}{one.tokens:10}{one.median_ms:9.1f} ms{memory:>16}")
    return "\n".join(lines)
