"""`perceiverd doctor`: what is well, what is not, and what to do about it. Every check in its own process and bound."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec

from perceiverd import config
from perceiverd.config import Config
from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.core.media import MediaFormat, VideoFormat
from perceiverd.core.paths import SERVICE_CONFIG
from perceiverd.doctor import machine, service, streams
from perceiverd.doctor.checks import Check, Finding, examine
from perceiverd.model.card import load_card
from perceiverd.pipeline.rules import resolve
from perceiverd.sources.specs import Url

WRITE = "write it (the commented example is configs/perceiverd.toml), or name another with --config"
MODEL_S = 180.0
STREAM_S = 12.0
QUICK_S = 10.0
NAME_WIDTH = 14


def doctor(path: Path | None, *, json: bool) -> int:
    """Look at this machine as the daemon with this configuration would find it, and print it; 1 where a fault is."""
    counts: Counter[str] = Counter()
    for finding in findings(path, os.environ):
        counts[finding.verdict] += 1
        print(msgspec.json.encode(finding).decode() if json else told(finding), flush=True)
    if not json:
        kinds = [each for each in ("fault", "warning") if counts[each]]
        said = ", ".join(f"{counts[each]} {each}{'s' * (counts[each] != 1)}" for each in kinds)
        print(f"\n{said or 'all is well'}")
    return int(counts["fault"] > 0)


def told(finding: Finding) -> str:
    """A finding for people: what is so, and below it what to do."""
    line = f"{finding.verdict:8} {finding.check:{NAME_WIDTH}} {finding.what}"
    return f"{line}\n{'':8} {'':{NAME_WIDTH}} -> {finding.do}" if finding.do else line


def findings(path: Path | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What is found, as it is found."""
    path = path or (SERVICE_CONFIG if SERVICE_CONFIG.exists() else None)
    settings, finding = _settings(path)
    yield finding
    # Whoever stops reading, or presses Ctrl-C, ends the checks too.
    yield from examine(checks(settings, path, environment))


def checks(settings: Config, path: Path | None, environment: Mapping[str, str]) -> list[Check]:
    """What there is to be looked at, in the order of its telling."""
    enabled = {name: stream for name, stream in settings.streams.items() if stream.enabled}
    sources = [source for stream in enabled.values() for source in stream.sources]
    hears = any(source.__struct_config__.tag == "microphone" for source in sources)
    quick: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("clock", machine.clock),
        ("memory", partial(machine.memory, len(sources))),
        ("descriptors", partial(machine.descriptors, len(sources))),
        ("cameras", machine.cameras),
        ("sound cards", machine.sound_cards),
        ("sound library", partial(machine.sound_library, hears)),
        ("protocols", partial(streams.protocols, enabled)),
        ("labels", partial(service.labels_endpoint, settings)),
        ("metrics", partial(service.metrics_endpoint, settings)),
        ("rights", partial(service.rights, settings, path)),
        ("snapshots", partial(service.snapshots_folder, settings, environment)),
        ("secrets", service.secrets_file),
        ("state", service.state),
        ("service", service.service),
    ]
    found = [Check(name, look, QUICK_S * 2) for name, look in quick]
    wanted = _wanted(settings)
    for name, stream in enabled.items():
        waits = [source.open_timeout_s if isinstance(source, Url) else QUICK_S for source in stream.sources]
        bound_s = STREAM_S * len(waits) if max(waits) <= STREAM_S else (max(waits) + 2) * len(waits)
        look = partial(streams.stream, name, stream.sources, wanted, environment, bound_s)
        found.append(Check(f"stream {name}", look, bound_s + 8, hint="unplug the camera or microphone and plug it in"))
    hint = 'the disk, or the GPU\'s driver: set model.device = "cpu" to do without'
    return [*found, Check("model", partial(streams.model, settings), MODEL_S, alone=True, hint=hint)]


def _settings(path: Path | None) -> tuple[Config, Finding]:
    """What the file says, or the defaults where it can't be used."""
    if path is None:
        what = f"no file was given, and {SERVICE_CONFIG} is not there: looked at with the defaults, and no stream"
        return Config(), Finding("config", "warning", what, "perceiverd doctor --config FILE")
    try:
        settings = config.load(path)
    except ConfigError as error:
        mend = "mend that place" if not isinstance(error.__cause__, FileNotFoundError) else WRITE
        return Config(), Finding("config", "fault", str(error), f"{mend}; all else is looked at with the defaults")
    enabled = [name for name, stream in settings.streams.items() if stream.enabled]
    if not enabled:
        do = "add a table [streams.NAME]; configs/perceiverd.toml shows how"
        return settings, Finding("config", "fault", f"{path}: no stream is enabled", do)
    try:
        card = load_card(settings.model.name)
        for name in enabled:
            resolve(card.labels, card.calibration, settings.events, settings.streams[name].events, name)
    except ModelError:
        pass  # the model's own check tells
    except ConfigError as error:
        return settings, Finding("config", "fault", f"{path}: {error}", "mend that place")
    return settings, Finding(
        "config", "ok", f"{path}: {len(enabled)} stream{'s' * (len(enabled) != 1)} ({', '.join(enabled)})"
    )


def _wanted(settings: Config) -> MediaFormat:
    """What the model wants of sources; where there is none that can be used, sound and small pictures."""
    try:
        return load_card(settings.model.name).geometry.media_format
    except ModelError:
        return MediaFormat(16_000, VideoFormat(128, 128, 8.0))
