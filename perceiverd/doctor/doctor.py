"""The command `perceiverd doctor`: which checks there are, and printing what they find."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec

from perceiverd import config
from perceiverd.config import Config, ModelConfig, StreamConfig
from perceiverd.core.errors import ConfigError, ModelError
from perceiverd.core.media import MediaFormat, VideoFormat
from perceiverd.core.paths import SERVICE_CONFIG
from perceiverd.doctor import endpoints, history, machine, model, service, streams, web
from perceiverd.doctor.checks import Check, Finding, run_checks
from perceiverd.model.card import load_card
from perceiverd.model.cuda.driver import Driver
from perceiverd.pipeline.rules import resolve
from perceiverd.sources.specs import Microphone, Url

EXAMPLE = "configs/perceiverd.toml"
MODEL_TIMEOUT_S = 180.0
SOURCE_TIMEOUT_S = 12.0
OPEN_TIMEOUT_S = 10.0
"""Seconds for opening a device or a file."""
QUICK_TIMEOUT_S = 20.0
"""Seconds for a check that neither opens a device nor loads a model."""
STREAM_MARGIN_S = 8.0
"""Seconds that the process of a stream's check gets beyond the time for its sources: it imports libraries."""
MODEL_HINT = 'the disk or the GPU\'s driver is too slow; to do without the GPU, set model.device = "cpu"'
ANY_FORMAT = MediaFormat(16_000, VideoFormat(128, 128, 8.0))
"""What sources are asked for if the model cannot be used."""
NAME_WIDTH = 14


def run(path: Path | None, *, json: bool) -> int:
    """Check this machine as the daemon with this configuration would use it, and print the findings.

    Returns the exit status: 1 if there is a fault, otherwise 0.
    """
    counts: Counter[str] = Counter()
    for finding in findings(path, os.environ):
        counts[finding.verdict] += 1
        print(msgspec.json.encode(finding).decode() if json else formatted(finding), flush=True)
    if not json:
        kinds = [each for each in ("fault", "warning") if counts[each]]
        summary = ", ".join(_count(counts[each], each) for each in kinds)
        print(f"\n{summary or 'no faults, no warnings'}")
    return int(counts["fault"] > 0)


def formatted(finding: Finding) -> str:
    """A finding as text: what was found, and on a second line what to do."""
    line = f"{finding.verdict:8} {finding.check:{NAME_WIDTH}} {finding.what}"
    return f"{line}\n{'':8} {'':{NAME_WIDTH}} -> {finding.do}" if finding.do else line


def findings(path: Path | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    """All findings, as they arrive. Closing the iterator ends the checks that still run."""
    path = path or (SERVICE_CONFIG if SERVICE_CONFIG.exists() else None)
    settings, finding = _settings(path)
    yield finding
    yield from run_checks(planned_checks(settings, path, environment))


def _in_torch(options: ModelConfig) -> bool:
    """Whether PyTorch computes the network, as far as files show."""
    return options.engine == "torch" or (
        options.engine == "auto" and options.device != "cpu" and Driver.found().is_loaded
    )


def planned_checks(settings: Config, path: Path | None, environment: Mapping[str, str]) -> list[Check]:
    """The checks for this configuration, in the order in which their findings are printed."""
    enabled = {name: stream for name, stream in settings.streams.items() if stream.enabled}
    sources = [source for stream in enabled.values() for source in stream.sources]
    needs_microphone = any(isinstance(source, Microphone) for source in sources)
    quick: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("clock", machine.clock),
        ("memory", partial(machine.memory, len(sources), in_torch=_in_torch(settings.model))),
        ("descriptors", partial(machine.descriptors, len(sources))),
        ("cameras", machine.cameras),
        ("sound cards", machine.sound_cards),
        ("sound library", partial(machine.sound_library, needs_microphone)),
        ("protocols", partial(streams.protocols, enabled)),
        ("labels", partial(endpoints.labels_endpoint, settings)),
        ("metrics", partial(endpoints.metrics_endpoint, settings)),
        ("rights", partial(service.rights, settings, path)),
        ("snapshots", partial(service.snapshots_folder, settings, environment)),
        ("secrets", service.secrets_file),
        ("state", service.state_folder),
        ("history", history.history),
        ("web", web.web),
        ("service", service.units),
    ]
    checks = [Check(name, find, QUICK_TIMEOUT_S) for name, find in quick]
    wanted = _media_format(settings)
    checks += [_stream_check(name, stream, wanted, environment) for name, stream in enabled.items()]
    return [*checks, Check("model", partial(model.check, settings), MODEL_TIMEOUT_S, alone=True, hint=MODEL_HINT)]


def _stream_check(name: str, stream: StreamConfig, wanted: MediaFormat, environment: Mapping[str, str]) -> Check:
    opening_s = [source.open_timeout_s if isinstance(source, Url) else OPEN_TIMEOUT_S for source in stream.sources]
    each_s = SOURCE_TIMEOUT_S if max(opening_s) <= SOURCE_TIMEOUT_S else max(opening_s) + 2
    timeout_s = each_s * len(opening_s)
    find = partial(streams.try_sources, name, stream.sources, wanted, environment, timeout_s)
    hint = "unplug the camera or microphone and plug it in again"
    return Check(f"stream {name}", find, timeout_s + STREAM_MARGIN_S, hint=hint)


def _settings(path: Path | None) -> tuple[Config, Finding]:
    """The configuration and its finding; the default configuration if the file cannot be used."""
    if path is None:
        what = f"no --config given and {SERVICE_CONFIG} does not exist; checking the defaults, without streams"
        return Config(), Finding("config", "warning", what, "perceiverd doctor --config FILE")
    try:
        settings = config.load(path)
    except ConfigError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        repair = f"write it ({EXAMPLE} is an annotated example), or give another file with --config"
        do = repair if missing else "correct it there"
        return Config(), Finding("config", "fault", str(error), f"{do}; the other checks use the defaults")
    return settings, _config_finding(path, settings)


def _config_finding(path: Path, settings: Config) -> Finding:
    enabled = [name for name, stream in settings.streams.items() if stream.enabled]
    if not enabled:
        do = f"add a table [streams.NAME]; {EXAMPLE} has examples"
        return Finding("config", "fault", f"{path}: no stream is enabled", do)
    try:
        card = load_card(settings.model.name)
        for name in enabled:
            resolve(card.labels, card.calibration, settings.events, settings.streams[name].events, name)
    except ModelError:
        pass  # the check of the model reports it
    except ConfigError as error:
        return Finding("config", "fault", f"{path}: {error}", "correct it there")
    return Finding("config", "ok", f"{path}: {_count(len(enabled), 'stream')} ({', '.join(enabled)})")


def _media_format(settings: Config) -> MediaFormat:
    try:
        return load_card(settings.model.name).geometry.media_format
    except ModelError:
        return ANY_FORMAT


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
