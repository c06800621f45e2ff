"""`perceiverd bench`: what a window costs here, next to what the machine could do and to what others need.

Everything runs in one process and in turns, one call of each network after the other, so that whatever else the machine
does meets all alike. Medians are told; the load before and after tells whether to believe them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
from perceiverd.bench import baselines, profiling
from perceiverd.bench.baselines import Peer, Score
from perceiverd.core.errors import ConfigError
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.convert import HubConfig, convert
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.geometry import Geometry
from perceiverd.model.inference import Inference
from perceiverd.model.perceiver import Perceiver
from perceiverd.pipeline.tagger import device_of

PUBLIC = "public"
"""The public checkpoint's sizes, with random weights: what it costs needs no download."""
BATCHES = (1, 2, 4, 8, 16, 32)
FRAMES, STREAMS = (8, 16, 32, 64), (1, 4, 16, 64)
MB = 1_000_000


class Row(msgspec.Struct, frozen=True):
    """What one network took."""

    name: str
    median_ms: float
    p99_ms: float
    """Of one window; of the rounds, so the slowest where there are no more than a hundred."""
    gflop: float
    """Of matrix products, counted."""
    of_matmul: float
    """Share of the machine's rate at which those were done, 0..1."""
    of_copy: float
    """The same of memory: everything that operations read and wrote, as if no cache held it, over the time."""
    peak_mb: float | None
    """Weights and tables, and what was allocated beside; None where the system doesn't tell."""
    times: float
    """Its median over that of the first row."""
    best_batch: int | None = None
    windows_s: float | None = None
    """At the best batch."""


class Growth(msgspec.Struct, frozen=True):
    """What more tokens, or more streams, take."""

    frames: int
    streams: int
    tokens: int
    """Of all windows together."""
    median_ms: float
    peak_mb: float | None
    """What was allocated beside weights and tables."""


class BenchReport(msgspec.Struct, frozen=True):
    """One run."""

    perceiverd: str
    versions: dict[str, str]
    time: str
    machine: str
    device: str
    threads: int
    rounds: int
    load: tuple[float, float]
    """Mean number of programs that wanted a processor: before, after."""
    model: str
    geometry: str
    matmul_gflops: float
    copy_gbs: float
    rows: list[Row]
    growth: list[Growth]


def run(model: str, device: str, threads: int, rounds: int, growth: bool) -> BenchReport:
    """Raises ModelError for a model that can't be loaded, ConfigError for a device that is not there."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    where = device_of(device)
    before = os.getloadavg()[0]
    with torch.inference_mode():
        geometry, subjects = _subjects(model, where)
        rows, matmul, copied = _rows(subjects, where, rounds)
        grown = list(_growth(where, max(2, rounds // 4))) if growth else []
    sizes = ", ".join(f"{m.tokens} tokens of {m.name}" for m in geometry.modalities)
    return BenchReport(
        perceiverd=__version__,
        versions=dict(baselines.versions()),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=profiling.machine(where),
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
    )


# ------------------------------------------------------------------------------------------------ what is measured
def _subjects(model: str, device: torch.device) -> tuple[Geometry, list[Peer]]:
    """Ours first; others only beside the public sizes, for which they are made."""
    theirs: Any = None
    if model != PUBLIC:
        card = load_card(model)
        geometry, network = card.geometry, load_network(card)
    elif baselines.installed("transformers"):
        theirs = baselines.public_checkpoint(num_frames=16)
        config = msgspec.json.decode(theirs.config.to_json_string(), type=HubConfig)
        geometry, network = convert(config, theirs.state_dict())
    else:
        geometry, network = _public(16)
    network.to(device)
    sound, frames = _media(geometry, device)
    subjects = [_ours("perceiverd", network, geometry, sound, frames, None)]
    subjects.append(_ours("perceiverd, plain attention", network, geometry, sound, frames, False))
    if theirs is not None:
        subjects += baselines.transformers_peers(theirs.to(device), sound, frames)
    if model == PUBLIC and baselines.installed("perceiver-pytorch"):
        subjects.append(baselines.perceiver_pytorch_peer(geometry, network.bytes(_tokens(geometry, sound, frames))))
    if model == PUBLIC and baselines.installed("transformers"):
        subjects.append(baselines.ast_peer(device))
    return geometry, subjects


def _public(num_frames: int) -> tuple[Geometry, Perceiver]:
    labels = {str(i): str(i) for i in range(700)}
    geometry = HubConfig(
        "perceiver", labels, 784, 512, 1, 8, num_cross_attention_heads=1, num_frames=num_frames
    ).geometry()
    return geometry, Perceiver(geometry.modalities, geometry.trunk, geometry.classes).eval()


def _ours(
    name: str, network: Perceiver, geometry: Geometry, sound: Tensor, frames: Tensor, factorised: bool | None
) -> Peer:
    """From samples and pixels to logits, as the tagger does it."""
    ready = Inference(network, factorised)

    def score(batch: int) -> Tensor:
        wide = (media.expand(batch, *media.shape[1:]) for media in (sound, frames))
        return ready(_tokens(geometry, *wide))

    return Peer(name, score, ready)


def _media(geometry: Geometry, device: torch.device) -> tuple[Tensor, Tensor]:
    """One window of noise: sound (1, samples) and pictures (1, T, H, W, 3); empty where the model takes none."""
    audio, video = geometry.audio, geometry.video
    sound = torch.rand(1, audio.samples if audio else 0, device=device) * 2 - 1
    shape = (1, video.frames, video.height, video.width, 3) if video else (1, 0)
    return sound, torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


def _tokens(geometry: Geometry, sound: Tensor, frames: Tensor) -> dict[str, Tensor]:
    tokens = {"audio": audio_tokens(sound, geometry.audio)} if geometry.audio else {}
    return tokens | ({"video": video_tokens(frames, geometry.video)} if geometry.video else {})


# ------------------------------------------------------------------------------------------------ how it is measured
def _rows(subjects: Sequence[Peer], device: torch.device, rounds: int) -> tuple[list[Row], float, float]:
    """A row for each; and the machine's own rates: operations of a matrix product a second, bytes copied a second."""
    (product, operations), (copy, copied) = profiling.matmul(device), profiling.copy(device)
    turns: dict[str, profiling.Call] = {"matmul": product, "copy": copy}
    turns |= {peer.name: partial(peer.score, 1) for peer in subjects}
    spent: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(rounds + 1):
        for name, call in turns.items():
            seconds = profiling.timed(call, device)
            if turn:  # the first warms up
                spent[name].append(seconds)
    matmul, bandwidth = operations / median(spent["matmul"]), copied / median(spent["copy"])
    del copy, turns["copy"]  # its memory is large
    rows = []
    for index, peer in enumerate(subjects):
        seconds, traffic = median(spent[peer.name]), profiling.traffic(partial(peer.score, 1))
        flop = profiling.flop(partial(peer.score, 1))
        best = _best_batch(peer.score, device) if index == 0 else (None, None)
        rows.append(
            Row(
                name=peer.name,
                median_ms=round(seconds * 1e3, 2),
                p99_ms=round(float(np.percentile(spent[peer.name], 99, method="higher")) * 1e3, 2),
                gflop=round(flop / 1e9, 6),
                of_matmul=round(flop / seconds / matmul, 3),
                of_copy=round(traffic / seconds / bandwidth, 3),
                peak_mb=_peak_mb(peer, device),
                times=round(seconds / median(spent[subjects[0].name]), 2),
                best_batch=best[0],
                windows_s=best[1],
            )
        )
    return rows, matmul, bandwidth


def _best_batch(score: Score, device: torch.device) -> tuple[int, float]:
    """The batch with most windows a second; larger ones are not tried once two in a row brought nothing."""
    rates: dict[int, float] = {}
    for batch in BATCHES:
        score(batch)
        rates[batch] = batch / median(profiling.timed(partial(score, batch), device) for _ in range(3))
        if len(rates) > 2 and max(list(rates.values())[-2:]) < max(rates.values()):
            break
    best = max(rates, key=lambda batch: rates[batch])
    return best, round(rates[best], 2)


def _peak_mb(peer: Peer, device: torch.device) -> float | None:
    beside = profiling.peak(partial(peer.score, 1), device)
    return None if beside is None else round((profiling.held(peer.holds) + beside) / MB, 1)


def _growth(device: torch.device, rounds: int) -> Iterator[Growth]:
    """Windows of more frames and more sound, and more windows at once, at the public sizes."""
    for frames, streams in [*((n, 1) for n in FRAMES), *((16, n) for n in STREAMS[1:])]:
        geometry, network = _public(frames)
        ours = _ours("", network.to(device), geometry, *_media(geometry, device), True)
        call = partial(ours.score, streams)
        call()
        seconds = median(profiling.timed(call, device) for _ in range(rounds))
        tokens = streams * (sum(m.tokens for m in geometry.modalities) + geometry.trunk.constants)
        peak = profiling.peak(call, device)
        yield Growth(frames, streams, tokens, round(seconds * 1e3, 1), None if peak is None else round(peak / MB, 1))


# ------------------------------------------------------------------------------------------------ how it is told
def table(report: BenchReport) -> str:
    """For people: a line each, the machine above."""
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
        memory = "unknown" if row.peak_mb is None else f"{row.peak_mb:.0f} MB"
        lines.append(
            f"{row.name:31}{row.median_ms:7.1f} ms{row.p99_ms:7.1f} ms{row.times:8.2f}{row.gflop:8.1f}"
            f"{row.of_matmul:8.0%}{row.of_copy:6.0%}{memory:>10}"
        )
    lines += [
        f"\n{row.name}: {row.windows_s:g} windows a second in batches of {row.best_batch}"
        for row in report.rows
        if row.windows_s
    ]
    if report.growth:
        lines += ["", f"{'frames':>8}{'streams':>9}{'tokens':>10}{'median':>12}{'beside model':>16}"]
    for one in report.growth:
        memory = "unknown" if one.peak_mb is None else f"{one.peak_mb:.0f} MB"
        lines.append(f"{one.frames:8}{one.streams:9}{one.tokens:10}{one.median_ms:9.1f} ms{memory:>16}")
    return "\n".join(lines)


def check(path: Path) -> None:
    """Raises ConfigError where nothing could be written; what is there stays."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def write(reports: Sequence[BenchReport], path: Path) -> None:
    """As JSON. Raises ConfigError where it can't be written."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(reports)) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
