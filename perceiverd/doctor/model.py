"""Checks of the GPU and the model: whether the model loads, and how many streams it can serve in real time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

from perceiverd.config import Config
from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.doctor.checks import Finding
from perceiverd.model.card import Card, load_card
from perceiverd.model.cuda.driver import NO_GPU, Driver
from perceiverd.pipeline.windower import Window

ROUNDS, BATCH = 3, 4
"""How often each batch is timed, and the number of windows in the larger batch."""
NETWORK_SHARE = 0.8
"""The part of a hop that the network may use; decoding and the rest need the other part."""


def check(settings: Config) -> Iterator[Finding]:
    """The GPU, then the model, then how many streams it can serve."""
    try:
        card = load_card(settings.model.name)
    except ModelError as error:
        do = "set model.name to one of `perceiverd models list`"
        yield Finding("model", "fault", str(error), do)
        return
    yield _gpu(settings.model.device)
    yield from _load_and_time(card, settings)


def _load_and_time(card: Card, settings: Config) -> Iterator[Finding]:
    from perceiverd.pipeline.tagger import Tagger

    began_s = time.monotonic()
    try:
        wanted = settings.model
        tagger = Tagger(card, wanted.device, wanted.threads, wanted.engine, wanted.precision, wanted.max_batch)
    except ModelError as error:
        yield Finding("model", "fault", str(error), "install perceiverd again, or fetch the model again")
        return
    except ConfigError as error:
        yield Finding("model", "fault", str(error), 'set model.device = "auto"')
        return
    one, many = ([Window.empty(card.geometry)] * count for count in (1, BATCH))
    tagger.tag(many)
    loaded_s = time.monotonic() - began_s
    runs = f"runs in {tagger.engine} on {tagger.device}"
    what = f"{card.name} is complete (sha256 {card.sha256[:12]}), loads in {loaded_s:.1f} s and {runs}"
    yield Finding("model", "ok", what)
    one_s, many_s = (_median_s(partial(tagger.tag, batch)) for batch in (one, many))
    yield speed(settings, one_s, many_s)


def speed(settings: Config, one_s: float, many_s: float) -> Finding:
    """Whether the model can serve the enabled streams, if one window takes `one_s` and BATCH windows `many_s`."""
    wanted = max(1, sum(stream.enabled for stream in settings.streams.values()))
    hop_s = settings.window.hop_s
    count = servable(one_s, many_s, hop_s)
    streams = f"about {count} stream{'s' * (count != 1)}" if count else "no stream"
    what = f"a window takes {one_s * 1e3:.0f} ms of a hop of {hop_s * 1e3:.0f} ms: this machine can serve {streams}"
    if count >= wanted:
        return Finding("speed", "ok", what)
    enough_s = _hop_for(one_s, many_s, wanted)
    do = f"set window.hop_s = {enough_s:g}, enable fewer streams, or stop other programs; otherwise windows are dropped"
    return Finding("speed", "warning", f"{what}, but {wanted} {'is' if wanted == 1 else 'are'} enabled", do)


def servable(one_s: float, many_s: float, hop_s: float) -> int:
    """How many streams' windows fit into a hop, if one window takes `one_s` and BATCH windows together `many_s`."""
    rest_s = hop_s * NETWORK_SHARE - one_s
    return 0 if rest_s < 0 else 1 + math.floor(rest_s / _next_s(one_s, many_s))


def _hop_for(one_s: float, many_s: float, streams: int) -> float:
    """The hop that this many streams need, rounded up to a tenth of a second."""
    return math.ceil((one_s + (streams - 1) * _next_s(one_s, many_s)) / NETWORK_SHARE * 10) / 10


def _next_s(one_s: float, many_s: float) -> float:
    """What each further window of a batch takes."""
    return max((many_s - one_s) / (BATCH - 1), one_s / 1000)


def _gpu(device: str) -> Finding:
    """What torch sees, compared with what the driver's files show. Loads torch only if there is a driver."""
    driver = Driver.found()
    if not driver.is_loaded:
        what, do = (driver.fault(None) if driver.on_bus else None) or (NO_GPU, "")
        return Finding("gpu", "warning" if do else "ok", f"{what}; the network runs on the CPU", do)
    import torch

    from perceiverd.model.cuda.devices import gpu_of, why_missing
    from perceiverd.model.cuda.readers import kernel_lack

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    if count:
        names = ", ".join(str(gpu_of(torch.device("cuda", index))) for index in range(count))
        what = f"torch {torch.__version__} sees {names}"
        if device == "cpu":
            return Finding("gpu", "ok", f"{what}, but model.device = cpu does not use it")
        if lack := kernel_lack():
            return Finding(
                "gpu", "warning", f"{what}; its fastest form of a cross-attend cannot run: {lack[0]}", lack[1]
            )
        return Finding("gpu", "ok", what)
    what, do = driver.fault(torch.version.cuda) or (why_missing(0), "compare nvidia-smi and ls -l /dev/nvidia*")
    return Finding("gpu", "warning", f"{what}; torch {torch.__version__} ({build}) uses the CPU", do)


def _median_s(action: Callable[[], object]) -> float:
    return statistics.median(_seconds(action) for _ in range(ROUNDS))


def _seconds(action: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    action()
    return time.perf_counter() - began_s
