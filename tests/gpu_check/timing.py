"""How fast the engine is: on the bundled model, and in the public sizes beside other implementations."""

from __future__ import annotations

from typing import Any

import msgspec

from perceiverd.bench import baselines, gpu, latency
from tests.gpu_check.result import Result, Setup

NETWORK_S, UPLOAD_S = 5000, 1000
"""Windows a second of the bundled model that are wanted: of the network alone, and from arrays to scores."""
LIMIT_SHARE = 0.5
PUBLIC_MS, PEER_TIMES = 1.0, 10.0
"""One window in the public sizes, and how many times as long the fastest form of `transformers` must take."""
KERNEL_GAIN = 1.3
"""Our kernel stays only if it is so many times as fast as PyTorch's library."""
PEER_ROUNDS = 20


def speed(setup: Setup) -> Result:
    """The engine on this model."""
    found = gpu.measure(setup.card, setup.device, setup.rounds, sizes=setup.sizes)
    network, upload = (
        max(getattr(rate, f"{name}_windows_s") for rate in found.rates) for name in ("network", "upload")
    )
    best = next(rate for rate in found.rates if rate.batch == found.best_batch)
    checks = [
        setup.check(f"{NETWORK_S} windows a second in the network", network >= NETWORK_S, f"{network:.0f}/s"),
        setup.check(f"{UPLOAD_S} windows a second with upload", upload >= UPLOAD_S, f"{upload:.0f}/s"),
        setup.check(
            "the best batch reaches half of its operations' limit",
            best.of_limit >= LIMIT_SHARE,
            f"{best.of_limit:.0%} of the limit, {best.of_matmul:.0%} of a matrix product, batch {best.batch}",
        ),
    ]
    numbers = {"timing": msgspec.to_builtins(found), "text": gpu.table(found)}
    return Result("speed", line(found), checks, numbers)


def public(setup: Setup) -> Result:
    """The public sizes: our engine, the readers, and other implementations, in one process."""
    if not setup.is_gpu:
        return Result("public", "skipped: it takes minutes on a CPU", [setup.check("the public sizes", False, "")])
    report = latency.run(latency.PUBLIC, str(setup.device), 0, min(setup.rounds, PEER_ROUNDS), False)
    assert report.gpu
    numbers: dict[str, Any] = {"report": msgspec.to_builtins(report), "text": latency.table(report)}
    ours = report.gpu.network_ms
    rows = {row.name: row.median_ms for row in report.rows}
    theirs = rows.get(baselines.COMPILED)
    why = report.untimed.get(baselines.COMPILED) or "transformers is not installed"
    fused = rows.get("transformers, fused attention")
    compared = f"{theirs / ours:.1f} times" if theirs else f"not timed: {why}"
    if fused:
        compared += f"; fused, in float32: {fused / ours:.1f} times"
    best = next(rate for rate in report.gpu.rates if rate.batch == report.gpu.best_batch)
    checks = [
        setup.check(f"a window in the public sizes takes at most {PUBLIC_MS:g} ms", ours <= PUBLIC_MS, f"{ours:g} ms"),
        setup.check(
            f"{baselines.COMPILED} takes {PEER_TIMES:g} times as long",
            bool(theirs and theirs / ours >= PEER_TIMES),
            compared,
        ),
        setup.check(
            "the best batch of the public sizes reaches half of its operations' limit",
            best.of_limit >= LIMIT_SHARE,
            f"{best.of_limit:.0%} of the limit, {best.of_matmul:.0%} of a matrix product, batch {best.batch}",
        ),
        kernel_check(setup, report.gpu),
    ]
    return Result("public", line(report.gpu), checks, numbers)


def kernel_check(setup: Setup, found: gpu.GpuTiming) -> Any:
    """Whether our kernel is worth keeping."""
    timed = [each for each in found.readers if not each.note]
    kernel, library = (
        min((each.median_ms for each in timed if each.name.startswith(name)), default=None)
        for name in ("kernel", "flex_attention")
    )
    what = f"our kernel is {KERNEL_GAIN} times as fast as flex_attention"
    if kernel and library:
        return setup.check(what, library / kernel >= KERNEL_GAIN, f"{library / kernel:.2f} times")
    notes = "; ".join(f"{each.name}: {each.note}" for each in found.readers if each.note)
    return setup.check(what, False, f"not compared: {notes or 'neither was timed'}")


def line(found: gpu.GpuTiming) -> str:
    """A timing in one line."""
    best = max(rate.network_windows_s for rate in found.rates)
    upload = max(rate.upload_windows_s for rate in found.rates)
    return (
        f"one window {found.network_ms:g} ms, {found.window_ms:g} ms with upload; {best:.0f} windows/s, {upload:.0f} "
        f"with upload; reader {found.reader}, {found.precision}; {found.start_s:g} s to start"
    )
