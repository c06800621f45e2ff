"""`perceiverd tag`: from options to the settings of `offline.tag`. Does not read files itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from perceiverd.config import Config, load
from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import DEFAULT, Card, load_card
from perceiverd.model.engine import DEVICE_PATTERN, EngineName
from perceiverd.offline import tag
from perceiverd.offline.decoding import Decoder
from perceiverd.offline.writers.formats import Format, chosen
from perceiverd.offline.writers.writer import RecordKind, WriterOptions
from perceiverd.pipeline.rules import Rules, resolve
from perceiverd.pipeline.tagger import Tagger
from perceiverd.sources.specs import MediaOptions, RawFormat


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
    use: MediaOptions
    conceal_s: float | None = None
    """None for the configuration's `conceal_s`."""
    raw: str | None = None
    """FORMAT,RATE,CHANNELS of audio without a container."""
    embed_bytes: int = 0
    """The largest media file that is put into an HTML page."""


def run(command: TagCommand) -> int:
    """Tag the files; returns 1 if a file failed, else 0. Raises PerceiverdError, and BadParameter for the device."""
    if not DEVICE_PATTERN.fullmatch(command.device):
        raise typer.BadParameter(f"{command.device!r} is not auto, cpu, cuda or cuda:N", param_hint="'--device'")
    form = _format(command)
    kinds = command.kinds or form.kinds
    if command.config and "event" not in kinds:
        raise typer.BadParameter("needs --events, or a format with events", param_hint="'--config'")
    logging.basicConfig(format="perceiverd: %(message)s", level=logging.WARNING)
    card = load_card(command.model or DEFAULT)
    settings = load(command.config) if command.config else Config()
    conceal_s = settings.window.conceal_s if command.conceal_s is None else command.conceal_s
    usual_ns = round(settings.window.hop_s * NS_PER_S) if "event" in kinds else card.geometry.window_ns
    options = tag.TagOptions(
        top=command.top,
        hop_ns=usual_ns if command.hop_s is None else round(command.hop_s * NS_PER_S),
        batch=command.batch,
        conceal_ns=round(conceal_s * NS_PER_S),
        rules=_rules(card, settings, command.config) if "event" in kinds else None,
        sorts=form.sorts,
        use=command.use,
    )
    with Decoder(card.geometry.media_format, _raw(command.raw)) as decoder:
        decoder.start()
        tagger = Tagger(card, command.device, engine=command.engine)
        return tag.tag(
            command.files,
            tagger,
            options,
            lambda out: form.make(out, WriterOptions(kinds, command.output, command.embed_bytes)),
            command.output,
            decoder,
        )


def _format(command: TagCommand) -> Format:
    """The format. Raises BadParameter if it does not fit the other options."""
    try:
        form, *others = chosen(command.formats)
    except PerceiverdError as error:
        raise typer.BadParameter(str(error), param_hint="'--format'") from None
    if others:
        raise typer.BadParameter("one output has one format", param_hint="'--format'")
    return form


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
