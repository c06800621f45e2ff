"""The engine for GPUs, timed: one window, the best batch, uploads, the machine's limits, and where the time goes.

All of it also runs with a CPU as the device, where its numbers mean nothing; the tests do that.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from statistics import median

import msgspec
import numpy as np
import torch

from perceiverd.bench import profiling
from perceiverd.bench.readers import ReaderTiming, reader_timings
from perceiverd.bench.roofline import limit_s
from perceiverd.model.batch_sizes import batch_sizes
from perceiverd.model.card import Card
from perceiverd.model.checkpoint import load_network
from perceiverd.model.cuda.devices import gpu_of
from perceiverd.model.cuda.engine import CudaEngine
from perceiverd.model.cuda.network import DeviceMedia, DeviceNetwork
from perceiverd.model.cuda.precision import HALF_TYPES
from perceiverd.model.cuda.reading import read_plainly
from perceiverd.model.engine import Precision, WindowMedia
from perceiverd.model.geometry import Geometry

HOPS_S = 4
"""Windows that a stream gives in a second, where streams are counted."""
BATCHES_IN_A_ROW = 12
"""Batches of one measurement of throughput: the first and the last have nothing beside them."""
MATRIX = 8192
"""Rows of the matrices whose product is the GPU's limit: smaller ones do not fill a large GPU."""
COPIED = 1 << 28
"""Bytes of the copies that measure memory and upload."""
KERNELS = 12
"""Kernels that the account lists."""


class BatchRate(msgspec.Struct, frozen=True):
    """Batches of one size, one after another."""

    batch: int
    network_windows_s: float
    """Media are on the GPU already."""
    upload_windows_s: float
    """From arrays on the host to logits on the host, two batches at once."""
    of_matmul: float
    """Products of the network alone, as a share of what a plain matrix product reaches, 0..1."""
    of_limit: float = 0.0
    """The least time that its operations could take here, as a share of the time that they take; see `roofline`."""


class KernelShare(msgspec.Struct, frozen=True):
    """A part of the GPU's time in the best batch."""

    name: str
    share: float
    calls: int


class GpuTiming(msgspec.Struct, frozen=True):
    """One model on one GPU."""

    gpu: str
    precision: Precision
    reader: str
    """How cross-attends read tokens: `kernel` or `plain`."""
    start_s: float
    """Loading, compiling and recording all graphs."""
    gflop: float
    """Operations of matrix products in one window."""
    matmul_tflops: float
    copy_gbs: float
    upload_gbs: float
    network_ms: float
    """One window that is on the GPU already, median."""
    window_ms: float
    """One window from arrays on the host to logits there, median."""
    memory_mb: float
    rates: list[BatchRate]
    best_batch: int
    streams: int
    """Streams with HOPS_S windows a second that the network can serve at the best batch."""
    streams_with_upload: int
    account: list[KernelShare]
    readers: list[ReaderTiming] = []


def measure(
    card: Card, device: torch.device, rounds: int, precision: Precision = "auto", sizes: Sequence[int] = ()
) -> GpuTiming:
    """Time one model, in these sizes of batches or in those that suit it.

    Raises ModelError, ConfigError, or torch.OutOfMemoryError.
    """
    began_s = time.perf_counter()
    engine = CudaEngine(card, device, precision, sizes or batch_sizes(card.geometry))
    engine.prepare()
    start_s = time.perf_counter() - began_s
    half = HALF_TYPES[engine.precision]
    with torch.inference_mode():
        matmul, copied, uploaded = limits(device, half, rounds)
        flop = window_flop(card, device)
    windows = noise_windows(card.geometry, engine.max_batch)
    one = windows[:1]
    window_s = median(profiling.seconds_of(lambda: engine.submit(one).logits(), device) for _ in range(rounds))
    network_s = median(profiling.seconds_of(lambda: engine.compute(1), device) for _ in range(rounds))
    rates = [
        msgspec.structs.replace(
            rate,
            of_limit=round(limit_s(card, rate.batch, half, matmul, copied) * rate.network_windows_s / rate.batch, 3),
        )
        for rate in _rates(engine, windows, device, flop / matmul)
    ]
    best = max(rates, key=lambda rate: rate.network_windows_s)
    return GpuTiming(
        gpu=str(gpu_of(device)) if device.type == "cuda" else profiling.machine_name(device),
        precision=engine.precision,
        reader=engine.reader,
        start_s=round(start_s, 2),
        gflop=round(flop / 1e9, 6),
        matmul_tflops=round(matmul / 1e12, 3),
        copy_gbs=round(copied / 1e9, 1),
        upload_gbs=round(uploaded / 1e9, 1),
        network_ms=round(network_s * 1e3, 3),
        window_ms=round(window_s * 1e3, 3),
        memory_mb=round(torch.cuda.max_memory_reserved(device) / 1e6) if device.type == "cuda" else 0,
        rates=rates,
        best_batch=best.batch,
        streams=int(best.network_windows_s / HOPS_S),
        streams_with_upload=int(max(rate.upload_windows_s for rate in rates) / HOPS_S),
        account=account(engine, best.batch, device),
        readers=reader_timings(card, device, half, rounds),
    )


def limits(device: torch.device, half: torch.dtype | None, rounds: int) -> tuple[float, float, float]:
    """Operations per second of a matrix product in this type, and bytes per second of a copy and of an upload."""
    is_gpu = device.type == "cuda"
    rows, size = (MATRIX, COPIED) if is_gpu else (256, 1 << 20)
    a, b = torch.randn(2, rows, rows, device=device, dtype=half or torch.float32)
    out = torch.empty_like(a)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target, host = torch.empty_like(source), torch.zeros(size, dtype=torch.uint8, pin_memory=is_gpu)
    calls = (
        lambda: torch.mm(a, b, out=out),
        lambda: target.copy_(source),
        lambda: target.copy_(host, non_blocking=True),
    )
    for call in calls:
        profiling.seconds_of(call, device)
    product_s, copy_s, upload_s = (
        median(profiling.seconds_of(call, device) for _ in range(max(3, rounds // 4))) for call in calls
    )
    return 2 * rows**3 / product_s, 2 * size / copy_s, size / upload_s


def window_flop(card: Card, device: torch.device) -> float:
    """Operations of the matrix products in one window, counted in the plain form, which has the kernel's products."""
    network = DeviceNetwork(load_network(card), card.geometry, device, None, read_plainly)
    geometry = card.geometry
    audio, video = geometry.audio, geometry.video
    frames = torch.zeros(1, video.frames, video.height, video.width, 3, dtype=torch.uint8) if video else None
    media = DeviceMedia(
        torch.zeros(1, audio.samples, device=device) if audio else None,
        None if frames is None else frames.to(device),
        {modality.name: torch.ones(1, dtype=torch.bool, device=device) for modality in geometry.modalities},
    )
    return profiling.matmul_flop(lambda: network(media))


def noise_windows(geometry: Geometry, count: int) -> list[WindowMedia]:
    """Windows of noise with all modalities of the model."""
    rng, audio, video = np.random.default_rng(0), geometry.audio, geometry.video
    found = []
    for _ in range(count):
        samples = rng.uniform(-1, 1, audio.samples).astype(np.float32) if audio else None
        shape = (video.frames, video.height, video.width, 3) if video else None
        frames = list(rng.integers(0, 256, shape, dtype=np.uint8)) if shape else None
        found.append(WindowMedia(samples, frames))
    return found


def _rates(
    engine: CudaEngine, windows: Sequence[WindowMedia], device: torch.device, ideal_s: float
) -> Iterator[BatchRate]:
    """Each size of a batch; `ideal_s`: what a window's products take at the rate of a plain matrix product."""
    for size in engine.sizes:

        def network(size: int = size) -> None:
            for _ in range(BATCHES_IN_A_ROW):
                engine.compute(size)

        def uploading(size: int = size) -> None:
            under_way = deque([engine.submit(windows[:size])])
            for _ in range(BATCHES_IN_A_ROW - 1):
                under_way.append(engine.submit(windows[:size]))
                under_way.popleft().logits()
            under_way.popleft().logits()

        total = size * BATCHES_IN_A_ROW
        network_s, upload_s = (
            median(profiling.seconds_of(call, device) for _ in range(3)) for call in (network, uploading)
        )
        yield BatchRate(
            size, round(total / network_s, 1), round(total / upload_s, 1), round(ideal_s * total / network_s, 3)
        )


def account(engine: CudaEngine, batch: int, device: torch.device) -> list[KernelShare]:
    """The kernels that take most of the time of one batch; operators if the device is a CPU."""
    kind = torch.profiler.ProfilerActivity
    is_gpu = device.type == "cuda"
    engine.compute(batch)
    with torch.profiler.profile(activities=[kind.CUDA if is_gpu else kind.CPU]) as seen:
        profiling.seconds_of(lambda: engine.compute(batch), device)
    rows = [
        (each.key, float(each.self_device_time_total if is_gpu else each.self_cpu_time_total), each.count)
        for each in seen.key_averages()
    ]
    total = sum(spent for _, spent, _ in rows) or 1.0
    rows.sort(key=lambda row: -row[1])
    return [KernelShare(name[:80], round(spent / total, 3), count) for name, spent, count in rows[:KERNELS]]


def table(found: GpuTiming) -> str:
    """The timing as text."""
    lines = [
        f"{found.gpu}; {found.precision}, read by {found.reader}; {found.start_s:g} s to start, {found.memory_mb:g} MB",
        f"matrix product {found.matmul_tflops:g} TFLOP/s; copy {found.copy_gbs:g}, upload {found.upload_gbs:g} GB/s",
        f"one window {found.network_ms:g} ms, with upload {found.window_ms:g} ms, {found.gflop:g} GFLOP",
        f"{found.streams} streams at {HOPS_S} hops a second, {found.streams_with_upload} with upload",
        "",
        f"{'batch':>8}{'network':>14}{'with upload':>14}{'matmul':>8}{'limit':>8}",
    ]
    lines += [
        f"{rate.batch:8}{rate.network_windows_s:12.0f}/s{rate.upload_windows_s:12.0f}/s{rate.of_matmul:8.1%}{rate.of_limit:8.1%}"
        for rate in found.rates
    ]
    lines += ["", f"where the time of a batch of {found.best_batch} goes"]
    lines += [f"{each.share:8.1%} {each.calls:5} x {each.name}" for each in found.account]
    if found.readers:
        lines += ["", f"{'reading ' + found.readers[0].grid:40}{'median':>10}{'times':>8}{'error':>10}"]
        lines += [
            f"{each.name:40}not timed: {each.note}"
            if each.note
            else f"{each.name:40}{each.median_ms:7.3f} ms{each.times:8.2f}{each.error:10.1e}"
            for each in found.readers
        ]
    return "\n".join(lines)
