"""What a configuration needs to run, and what another one changes: at once, or only at the next start."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from perceiverd import config
from perceiverd.config import Config, StreamConfig
from perceiverd.core.errors import ConfigError
from perceiverd.core.logs import log_event
from perceiverd.daemon import snapshots
from perceiverd.daemon.settings import StreamSettings
from perceiverd.daemon.speech import speech_indices
from perceiverd.daemon.stream import StreamState
from perceiverd.model.card import Card, load_card
from perceiverd.pipeline.rules import Rules, resolve
from perceiverd.sources.process.arrivals import Key
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.snapshots.requests import SnapshotOptions
from perceiverd.sources.specs import Source
from perceiverd.wire.messages import Event

logger = logging.getLogger("perceiverd.daemon")

LIVE = frozenset({"streams", "window", "stalls", "events", "publish.top", "publish.status_interval_s"})
"""Sections and options that take effect at once. All others need a restart."""


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """The step from one configuration to the next. Streams that are not enabled count as missing."""

    config: Config
    """The new one, with the old values of what needs a restart."""
    waiting: tuple[str, ...]
    """Options that differ and need a restart, such as `publish.endpoint`."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """Streams with other sources than before."""
    new_rules: tuple[str, ...]
    """Streams that stay, with other options for events."""

    @classmethod
    def between(cls, old: Config, new: Config) -> ConfigDiff:
        """Raises ConfigError if no stream is left."""
        merged, waiting = _merged(old, new)
        before, after = enabled(old), enabled(new)
        stay = [name for name in after if name in before]
        return cls(
            config=merged,
            waiting=waiting,
            added=tuple(name for name in after if name not in before),
            removed=tuple(name for name in before if name not in after),
            changed=tuple(name for name in stay if after[name].sources != before[name].sources),
            new_rules=tuple(
                name for name in stay if (new.events, after[name].events) != (old.events, before[name].events)
            ),
        )


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a configuration refers to: the rules of its events, its secrets, its folder of snapshots."""

    rules: Mapping[str, Rules]
    """Of each enabled stream, in the order of the configuration."""
    sources: Mapping[Key, Source]
    """Of all enabled streams."""
    secrets: Mapping[str, str]
    snapshots: Mapping[str, SnapshotOptions]
    """Of the streams that keep some."""
    settings: Mapping[str, StreamSettings]
    """Of each enabled stream."""

    @classmethod
    def of(cls, config_: Config, card: Card, environment: Mapping[str, str]) -> Resolved:
        """Makes the folder of snapshots. Raises ConfigError if anything is missing, or does not fit the model."""
        rules, secrets = rules_of(config_, card), config.secrets_of(config_, environment)
        options = snapshots.options_of(config_, environment)
        snapshots.prepare(options)
        if options and not config_.snapshots.keep_speech:
            speech_indices(card.labels)  # a model without labels of speech is refused here, not at the first event
        settings = {name: StreamSettings.of(config_, name, options.get(name)) for name in rules}
        return cls(rules, sources_of(enabled(config_)), secrets, options, settings)

    def supervisor(self, card: Card, environment: Mapping[str, str]) -> Supervisor:
        """The supervisor of the sources; its context starts them."""
        # systemd's directory of the unit is closed to other users, and systemd removes it with the unit.
        runtime_dir = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        return Supervisor(
            self.sources,
            card.geometry.media_format,
            secrets=self.secrets,
            snapshots=self.snapshots,
            runtime_dir=Path(runtime_dir) if runtime_dir else None,
        )


def enabled(config: Config) -> dict[str, StreamConfig]:
    """The streams that are enabled. Raises ConfigError if there is none."""
    streams = {name: stream for name, stream in config.streams.items() if stream.enabled}
    if not streams:
        raise ConfigError("$.streams: no stream is enabled; add a table [streams.NAME]")
    return streams


def sources_of(streams: Mapping[str, StreamConfig]) -> dict[Key, Source]:
    """The sources of these streams, by stream and position."""
    return {(name, i): source for name, stream in streams.items() for i, source in enumerate(stream.sources)}


def rules_of(config: Config, card: Card) -> dict[str, Rules]:
    """The rules of events in each enabled stream. Raises ConfigError if an option does not fit the model."""
    return {
        name: resolve(card.labels, card.calibration, config.events, stream.events, name)
        for name, stream in enabled(config).items()
    }


def read(path: Path | None, in_force: Config, endpoint: str | None = None) -> ConfigDiff:
    """What this file changes; `endpoint`, if given, replaces the file's.

    Raises ConfigError or ModelError if the daemon would not start with it, ConfigError if there is no file.
    """
    if path is None:
        raise ConfigError("there is no file to read again")
    new = config.load(path, endpoint)
    if new.model != in_force.model:
        rules_of(new, load_card(new.model.name))  # not used now, but the next start would fail with it
    return ConfigDiff.between(in_force, new)


def exchange(
    diff: ConfigDiff, resolved: Resolved, streams: Mapping[str, StreamState], supervisor: Supervisor
) -> list[Event]:
    """Run the sources of the new configuration, and change the streams that stay; the ends of open events."""
    gone = supervisor.exchange(resolved.sources, resolved.secrets, resolved.snapshots)
    ends = [event for name in (*diff.removed, *diff.changed) for event in streams[name].end_events("reload")]
    for name, position in gone:
        if name in resolved.rules:
            streams[name].exchanged(position)
    for name in diff.new_rules:
        ends += streams[name].change_rules(resolved.rules[name])
    for name, settings in resolved.settings.items():
        if name in streams:
            streams[name].configure(settings)
    return ends


def log(diff: ConfigDiff, *, unchanged: int) -> None:
    """Log what a reload changed; `unchanged` counts streams."""
    log_event(
        logger,
        logging.INFO,
        "config-reloaded",
        added=diff.added,
        removed=diff.removed,
        changed=diff.changed,
        unchanged=unchanged,
    )
    if diff.waiting:
        log_event(logger, logging.WARNING, "restart-needed", options=diff.waiting)


def _merged(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    waiting: list[str] = []
    sections: dict[str, Any] = {}
    for name in Config.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if name in LIVE or before == after:
            sections[name] = after
        else:
            kept = {
                field: getattr(before, field)
                for field in before.__struct_fields__
                if f"{name}.{field}" not in LIVE and getattr(before, field) != getattr(after, field)
            }
            waiting += [f"{name}.{field}" for field in kept]
            sections[name] = msgspec.structs.replace(after, **kept)
    return Config(**sections), tuple(waiting)
