"""`perceiverd tag`: from options to the settings of `offline.tag` and `offline.folders`. Does not read files itself."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import typer

from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import DEFAULT, Card, load_card
from perceiverd.model.engine import DEVICE_PATTERN, EngineName
from perceiverd.offline import tag
from perceiverd.offline.decoding import Decoder
from perceiverd.offline.decoding_protocol import VideoDecoderName
from perceiverd.offline.writers.formats import Format, chosen
from perceiverd.offline.writers.writer import RecordKind, WriterOptions
from perceiverd.pipeline.rules import Rules, resolve
from perceiverd.pipeline.tagger import Tagger
from perceiverd.sources.specs import MediaOptions, RawFormat

if TYPE_CHECKING:  # they are loaded when they are needed: the configuration alone takes 60 ms
    from perceiverd.config import Config
    from perceiverd.offline.folders.walk import Selection

logger = logging.getLogger("perceiverd.cli")

AGO_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Seconds of the units of `--since`."""
JOB_CORES = 3
"""Cores for each job on a CPU, unless the user chooses. One job decodes while the network works for another; more
jobs wait."""


@dataclass(frozen=True, slots=True)
class FolderCommand:
    """The options for outputs in a folder."""

    out: Path
    selection: Selection
    skip_done: bool
    jobs: int | None


@dataclass(frozen=True, slots=True)
class TagCommand:
    """The options of the command."""

    files: list[str]
    formats: str
    """Their names, separated by commas."""
    top: int
    hop_s: float | None
    """None for the default: the window's length, or the configuration's `hop_s` if events are made."""
    kinds: frozenset[RecordKind]
    """The records to write; empty for those of the format."""
    config: Path | None
    model: str | None
    """None for the default model."""
    device: str
    engine: EngineName
    batch: int
    output: Path | None
    """None for standard output."""
    folder: FolderCommand | None
    """None if all goes into one output."""
    use: MediaOptions
    conceal_s: float | None = None
    """None for the configuration's `conceal_s`."""
    raw: str | None = None
    """FORMAT,RATE,CHANNELS of audio without a container."""
    embed_bytes: int = 0
    """The largest media file that is put into an HTML page."""
    video: VideoDecoderName = "cpu"
    """Who decodes video."""


def run(command: TagCommand) -> int:
    """Tag the files; returns 1 if a file failed, else 0. Raises PerceiverdError, and BadParameter for the options."""
    if not DEVICE_PATTERN.fullmatch(command.device):
        raise typer.BadParameter(f"{command.device!r} is not auto, cpu, cuda or cuda:N", param_hint="'--device'")
    formats = _formats(command)
    kinds = frozenset[RecordKind]().union(*(form.records(command.kinds) for form in formats))
    if command.config and "event" not in kinds:
        raise typer.BadParameter("needs --events, or a format with events", param_hint="'--config'")
    raw = _raw(command.raw)
    logging.basicConfig(format="perceiverd: %(message)s", level=logging.WARNING)
    if command.video == "gpu":
        _warn_without_gpu()
    card = load_card(command.model or DEFAULT)
    settings = _settings(command, kinds)
    options = tag_options(command, card, settings, kinds)
    if command.folder:
        return _into_folder(
            command, command.folder, card, options, formats, _checksum(command, card, settings, options, raw)
        )
    form = formats[0]
    with Decoder(card.geometry.media_format, raw, video=command.video) as decoder:
        decoder.start()
        tagger = Tagger(card, command.device, engine=command.engine)
        writing = WriterOptions(kinds, command.output, command.embed_bytes)
        return tag.tag(command.files, tagger, options, form, writing, decoder)


def _warn_without_gpu() -> None:
    """Say once that no GPU decodes, if there is no driver. A codec that a GPU lacks is logged at debug level only."""
    from perceiverd.model.cuda.driver import Driver

    if not Driver.found().is_loaded:
        log_event(logger, logging.WARNING, "gpu-decoder-unusable", reason="no NVIDIA driver is loaded; the CPU decodes")


def _settings(command: TagCommand, kinds: frozenset[RecordKind]) -> Config | None:
    """The configuration for events; None if none are made."""
    if "event" not in kinds:
        return None
    from perceiverd.config import Config, load

    return load(command.config) if command.config else Config()


def tag_options(
    command: TagCommand, card: Card, settings: Config | None, kinds: frozenset[RecordKind]
) -> tag.TagOptions:
    """How files are tagged; `settings` is needed for events. Raises ConfigError for rules that do not fit the model."""
    with_events = settings if "event" in kinds else None
    usual_ns, conceal_ns = card.geometry.window_ns, tag.TOLERANCE.conceal_ns
    if with_events:
        usual_ns = round(with_events.window.hop_s * NS_PER_S)
        conceal_ns = round(with_events.window.conceal_s * NS_PER_S)
    return tag.TagOptions(
        top=command.top,
        hop_ns=usual_ns if command.hop_s is None else round(command.hop_s * NS_PER_S),
        batch=command.batch,
        conceal_ns=conceal_ns if command.conceal_s is None else round(command.conceal_s * NS_PER_S),
        rules=_rules(card, with_events, command.config) if with_events else None,
        use=command.use,
    )


def _into_folder(
    command: TagCommand,
    folder: FolderCommand,
    card: Card,
    options: tag.TagOptions,
    formats: Sequence[Format],
    checksum: str,
) -> int:
    from perceiverd.offline.folders.run import FolderOptions, tag_into
    from perceiverd.offline.joint import jobs_for

    tagger, sorting = Tagger(card, command.device, engine=command.engine), replace(options, sorts=True)
    how = FolderOptions(
        formats=formats,
        settings=checksum,
        kinds=command.kinds,
        selection=folder.selection,
        jobs=folder.jobs or jobs_for(tagger, max(1, len(os.sched_getaffinity(0)) // JOB_CORES)),
        skip_done=folder.skip_done,
        embed_bytes=command.embed_bytes,
        raw=_raw(command.raw),
        video=command.video,
    )
    try:
        report = tag_into(folder.out, command.files, tagger, sorting, how)
    except KeyboardInterrupt:
        print("perceiverd: interrupted; the same command continues", file=sys.stderr)
        raise
    print(report.summary())
    for line in report.error_lines(folder.out):
        print(f"perceiverd: {line}", file=sys.stderr)
    return 1 if report.failed else 0


def _checksum(
    command: TagCommand, card: Card, settings: Config | None, options: tag.TagOptions, raw: RawFormat | None
) -> str:
    """Of all that decides what outputs contain."""
    parts = (
        sorted(form.name for form in _formats(command)),
        sorted(command.kinds),
        (options.top, options.hop_ns, options.conceal_ns),
        card.sha256,
        settings.events if settings and options.rules else None,
        options.use,
        raw,
        command.embed_bytes,
    )
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


def _formats(command: TagCommand) -> Sequence[Format]:
    """The formats. Raises BadParameter if they do not fit the other options."""
    try:
        formats = chosen(command.formats)
    except PerceiverdError as error:
        raise typer.BadParameter(str(error), param_hint="'--format'") from None
    if command.folder:
        return formats
    form, *others = formats
    if others:
        raise typer.BadParameter("several formats need --out", param_hint="'--format'")
    if len(command.files) > 1 and not form.joins:
        raise typer.BadParameter(f"{form.name} of several files needs --out", param_hint="'--format'")
    is_for_eyes = form.name != "html" or not sys.stdout.isatty()
    if not command.output and (form.is_binary or not is_for_eyes):
        raise typer.BadParameter(f"{form.name} needs --output or --out", param_hint="'--format'")
    return formats


def moment(text: str | None) -> int | None:
    """The time that `--since` names, in nanoseconds since 1970. Raises BadParameter."""
    if text is None:
        return None
    if ago := re.fullmatch(r"(\d{1,6})([mhdw])", text.strip()):
        return time.time_ns() - int(ago[1]) * AGO_S[ago[2]] * NS_PER_S
    try:
        return round(datetime.fromisoformat(text.strip()).timestamp() * NS_PER_S)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no date such as 2026-11-26 or 2026-11-26T18:00, and no time ago such as 90m, 12h, 7d or 2w",
            param_hint="'--since'",
        ) from None


def record_kinds(*, scores: bool, events: bool, summary: bool) -> frozenset[RecordKind]:
    """The records that these options name."""
    chosen: dict[RecordKind, bool] = {"scores": scores, "event": events, "summary": summary}
    return frozenset(kind for kind, wanted in chosen.items() if wanted)


def _raw(text: str | None) -> RawFormat | None:
    try:
        return RawFormat.parsed(text) if text is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--raw'") from None


def _rules(card: Card, settings: Config, file: Path | None) -> Rules:
    try:
        return resolve(card.labels, card.calibration, settings.events)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def media_options(
    only: Literal["audio", "video"] | None,
    track: str | None,
    channel: int | None,
    gain_db: float,
    highpass_hz: float | None,
) -> MediaOptions:
    """What these options say of the media. Raises BadParameter if they contradict each other."""
    number = int(track) if track is not None and track.isdecimal() else track
    try:
        return MediaOptions(channel=channel, gain_db=gain_db, highpass_hz=highpass_hz, only=only, track=number)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
