"""The daemon's parts, tried for a moment as the daemon would use them: the model, FFmpeg, and each stream's sources."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from perceiverd.config import Config, StreamConfig
from perceiverd.core.errors import ConfigError, ModelError, PerceiverdError
from perceiverd.core.media import Chunk, Frame, MediaFormat
from perceiverd.core.secrets import CREDENTIAL, look_up
from perceiverd.doctor.checks import Finding
from perceiverd.model.card import Card, load_card
from perceiverd.pipeline.windower import Window
from perceiverd.sources.process.restart import State
from perceiverd.sources.process.supervisor import StateChange, Supervisor
from perceiverd.sources.specs import SCHEMES, Source, name_of, secrets_of

ROUNDS, MANY = 3, 4
"""How often a batch is timed, and how many windows the larger one has."""
SPARE = 0.8
"""The part of a hop that the network may take; decoding and the rest want some as well."""
MORE_S = 1.5
"""How long is waited for the other modality once one has come."""
WITH_SECRETS = "systemd-run --pipe --wait -p EnvironmentFile=/etc/perceiverd/secrets.env perceiverd doctor"
NVIDIA, DISPLAY = "0x10de", "0x03"
NODES = Path("/sys/bus/pci/devices")


def model(settings: Config) -> Iterator[Finding]:
    """The GPU, then the model: whether it is whole and loads, and how many streams it can serve."""
    streams = sum(stream.enabled for stream in settings.streams.values())
    try:
        card = load_card(settings.model.name)
    except ModelError as error:
        yield Finding("model", "fault", str(error), "set model.name to a model that is there: perceiverd models list")
        return
    yield _gpu(settings.model.device)
    from perceiverd.pipeline.tagger import Tagger  # torch: as late as can be

    began_s = time.monotonic()
    try:
        tagger = Tagger(card, settings.model.device, settings.model.threads)
    except ModelError as error:
        yield Finding("model", "fault", str(error), "install perceiverd again, or fetch the model again")
        return
    except ConfigError as error:
        yield Finding("model", "fault", str(error), 'set model.device = "auto"')
        return
    one, many = ([_window(card)] * count for count in (1, MANY))
    tagger.tag(many)
    loaded_s = time.monotonic() - began_s
    one_s, many_s = (statistics.median(_timed(tagger.tag, batch) for _ in range(ROUNDS)) for batch in (one, many))
    hop_s = settings.window.hop_s
    served = servable(one_s, many_s, hop_s)
    yield Finding(
        "model",
        "ok",
        f"{card.name} is whole (sha256 {card.sha256[:12]}), loads in {loaded_s:.1f} s and runs on {tagger.device}",
    )
    most = f"about {served} stream{'s' * (served != 1)}" if served else "no stream"
    what = f"a window takes {one_s * 1e3:.0f} ms of a hop of {hop_s * 1e3:.0f} ms: this machine can serve {most}"
    if served < max(1, streams):
        enough_s = _enough(one_s, many_s, max(1, streams))
        do = f"set window.hop_s = {enough_s:g}, watch fewer streams, or end what else runs; else windows are dropped"
        yield Finding("speed", "warning", f"{what}; {max(1, streams)} are wanted", do)
    else:
        yield Finding("speed", "ok", what)


def servable(one_s: float, many_s: float, hop_s: float) -> int:
    """How many streams' windows fit into a hop, where one takes `one_s` and MANY in a batch take `many_s`."""
    room_s = hop_s * SPARE - one_s
    return 0 if room_s < 0 else 1 + math.floor(room_s / _each(one_s, many_s))


def _enough(one_s: float, many_s: float, streams: int) -> float:
    """The hop for so many streams, rounded up to a tenth of a second."""
    return math.ceil((one_s + (streams - 1) * _each(one_s, many_s)) / SPARE * 10) / 10


def _each(one_s: float, many_s: float) -> float:
    return max((many_s - one_s) / (MANY - 1), one_s / 1000)


def _gpu(device: str) -> Finding:
    """Torch's view of it next to the kernel's."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    seen = [torch.cuda.get_device_name(i) for i in range(there)]
    card = any(
        _read(node / "vendor") == NVIDIA and _read(node / "class").startswith(DISPLAY)
        for node in (NODES.iterdir() if NODES.is_dir() else ())
    )
    driver = Path("/proc/driver/nvidia/version").exists()
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    if seen:
        used = ", but model.device = cpu leaves it idle" if device == "cpu" else ""
        return Finding("gpu", "ok", f"torch {torch.__version__} sees {', '.join(seen)}{used}")
    if driver and not torch.version.cuda:
        do = f"install the CUDA build of torch {torch.__version__.partition('+')[0]} into this environment"
        return Finding("gpu", "warning", f"there is an NVIDIA GPU with its driver, but this torch is {build}", do)
    if driver:
        what = (
            f"there is an NVIDIA driver, but torch ({build}) can't use it: too old a driver, or no right to its nodes"
        )
        return Finding("gpu", "warning", what, "nvidia-smi tells the driver; ls -l /dev/nvidia* whom it is open to")
    if card:
        return Finding("gpu", "warning", "there is an NVIDIA GPU, but its driver is not loaded", "install the driver")
    return Finding("gpu", "ok", f"none here; torch {torch.__version__} ({build}) works on the processor")


def protocols(streams: Mapping[str, StreamConfig]) -> Iterator[Finding]:
    """Whether FFmpeg can open what URLs may begin with."""
    from perceiverd.sources.decode.protocols import missing  # loads FFmpeg

    lacking = missing(SCHEMES)
    urls = [getattr(source, "url", "") for stream in streams.values() for source in stream.sources]
    used = sorted({url.partition("://")[0].lower() for url in urls} & set(lacking))
    if used:
        what = f"this FFmpeg knows no {', '.join(used)}, which a stream wants"
        yield Finding("protocols", "fault", what, "install PyAV's own wheel: pip install --force-reinstall av")
    else:
        opened = ", ".join(scheme for scheme in SCHEMES if scheme not in lacking)
        yield Finding("protocols", "ok", f"FFmpeg opens {opened}" + (f", not {', '.join(lacking)}" if lacking else ""))


def stream(
    name: str, sources: tuple[Source, ...], wanted: MediaFormat, environment: Mapping[str, str], bound_s: float
) -> Iterator[Finding]:
    """Each source of a stream for a moment, in a process of its own, as the daemon runs it."""
    for position, source in enumerate(sources):
        check = f"stream {name}" if len(sources) == 1 else f"stream {name} {position + 1}"
        secrets: dict[str, str] = {}
        asked = ""
        try:
            for asked in secrets_of(source):
                secrets[asked] = look_up(asked, environment)
        except ConfigError as error:
            # By systemd, as the service has it: a shell would run what is in that file. A credential is another unit's.
            do = "" if asked.startswith(CREDENTIAL) else f"as root: {WITH_SECRETS}"
            yield Finding(check, "warning", f"{name_of(source)}: not tried, {error}", do)
            continue
        try:
            yield _tried(check, source, wanted, secrets, bound_s / len(sources))
        except PerceiverdError as error:
            yield Finding(check, "fault", str(error), "see what it names")


def _tried(check: str, source: Source, wanted: MediaFormat, secrets: Mapping[str, str], bound_s: float) -> Finding:
    """The first data of a source, or why there is none."""
    began_s = time.monotonic()
    until_s, first_s = began_s + bound_s, 0.0
    came: dict[str, str] = {}
    with Supervisor({("doctor", 0): source}, wanted, secrets=secrets) as runner:
        while len(came) < 2 and time.monotonic() < until_s:
            for arrival in runner.poll(100):
                match arrival.what:
                    case Frame():
                        came.setdefault("pictures", "pictures")
                    case Chunk():
                        came.setdefault("sound", "sound")
                    case StateChange(state=State.BACKING_OFF | State.STALLED, detail=detail) if not came:
                        return _lost(check, name_of(source), detail)
                    case StateChange(state=State.ENDED):
                        until_s = 0.0
                    case _:
                        pass
            if came and not first_s:
                first_s = time.monotonic() - began_s
                until_s = min(until_s, time.monotonic() + MORE_S)
    if came:
        return Finding(check, "ok", f"{name_of(source)}: {' and '.join(sorted(came))}, the first after {first_s:.1f} s")
    what = f"{name_of(source)}: nothing came within {bound_s:.0f} s"
    return Finding(check, "fault", what, "see that it is switched on and sends what the model wants: sound or pictures")


def _lost(check: str, name: str, detail: str) -> Finding:
    """What the source's process said, under one name, with what to do where it did not say that itself."""
    said = detail.removeprefix(f"{name}: ")
    named = said.startswith(("camera ", "microphone"))
    do = "see that it is there and switched on, and that address, name and password are right"
    return Finding(check, "fault", said if named else f"{name}: {said}", "" if "; " in said else do)


def _window(card: Card) -> Window:
    audio, video = card.geometry.audio, card.geometry.video
    return Window(
        0,
        card.geometry.window_ns,
        np.zeros(audio.samples, np.float32) if audio else None,
        np.zeros((video.frames, video.height, video.width, 3), np.uint8) if video else None,
    )


def _timed(tag: object, batch: list[Window]) -> float:
    assert callable(tag)
    began_s = time.perf_counter()
    tag(batch)
    return time.perf_counter() - began_s


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
