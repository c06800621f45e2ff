"""What of a new configuration can come into force while the daemon runs, and what has to wait for its next start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from perceiverd import config
from perceiverd.config import Config, StreamConfig
from perceiverd.core.errors import ConfigError
from perceiverd.model.card import Card, load_card
from perceiverd.pipeline.rules import Rules, resolve
from perceiverd.sources.process.arrivals import Key
from perceiverd.sources.specs import Source

LIVE = frozenset({"streams", "window", "stalls", "events", "publish.top", "publish.status_interval_s"})
"""Sections and options that the daemon looks at anew; whatever is not here needs a restart."""


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    """From one configuration to the next. Streams that are not enabled count as not there."""

    settings: Config
    """The new one, but for what needs a restart."""
    waiting: tuple[str, ...]
    """Options that differ and need a restart: `publish.endpoint`."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """Streams with other sources than before."""
    reruled: tuple[str, ...]
    """Streams, of those that stay, with other options for events."""

    @classmethod
    def between(cls, old: Config, new: Config) -> ConfigDiff:
        """Raises ConfigError where no stream is left."""
        settings, waiting = _merged(old, new)
        before, after = watched(old), watched(new)
        stay = [name for name in after if name in before]
        return cls(
            settings=settings,
            waiting=waiting,
            added=tuple(name for name in after if name not in before),
            removed=tuple(name for name in before if name not in after),
            changed=tuple(name for name in stay if after[name].sources != before[name].sources),
            reruled=tuple(
                name for name in stay if (new.events, after[name].events) != (old.events, before[name].events)
            ),
        )


def watched(settings: Config) -> dict[str, StreamConfig]:
    """The streams that are enabled. Raises ConfigError where none is."""
    streams = {name: stream for name, stream in settings.streams.items() if stream.enabled}
    if not streams:
        raise ConfigError("$.streams: no stream is enabled; add a table [streams.NAME]")
    return streams


def switched_off(settings: Config) -> dict[str, StreamConfig]:
    """The streams that are configured and not enabled."""
    return {name: stream for name, stream in settings.streams.items() if not stream.enabled}


def sources_of(streams: Mapping[str, StreamConfig]) -> dict[Key, Source]:
    """The sources of these streams, as the runner wants them."""
    return {(name, i): source for name, stream in streams.items() for i, source in enumerate(stream.sources)}


def rules_of(settings: Config, card: Card) -> dict[str, Rules]:
    """What makes an event in each watched stream. Raises ConfigError where an option can't be for this model."""
    return {
        name: resolve(card.labels, card.calibration, settings.events, stream.events, name)
        for name, stream in watched(settings).items()
    }


def read(path: Path, in_force: Config, endpoint: str | None = None) -> ConfigDiff:
    """What this file changes, where `endpoint`, if it is given, stands in the place of its own.

    Raises ConfigError or ModelError where the daemon would not start with it.
    """
    new = config.load(path, endpoint)
    if new.model != in_force.model:
        rules_of(new, load_card(new.model.name))  # not now, but it would be in the way of the next start
    return ConfigDiff.between(in_force, new)


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
