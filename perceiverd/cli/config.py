"""`perceiverd config`: check a configuration file, and print it as the daemon reads it. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import tomli_w

from perceiverd import config
from perceiverd.cli.console import EXIT_CONFIG, report
from perceiverd.config.json_schema import schema_text
from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.paths import SERVICE_ENDPOINT
from perceiverd.daemon import reload, snapshots
from perceiverd.model.card import load_card
from perceiverd.sources.decode.files import check_file
from perceiverd.sources.specs import File
from perceiverd.wire import endpoint, keys


def check(file: Path) -> int:
    """Print whether the daemon accepts this file; returns 0 or 78.

    Faults outside the file (keys, folders, secrets, media files) are printed as notes: the service has another user
    and another environment than this shell.
    """
    try:
        settings = config.load(file)
        model = load_card(settings.model.name)
        streams = reload.rules_of(settings, model)
    except PerceiverdError as error:
        report(error if str(error).startswith(f"{file}: ") else ConfigError(f"{file}: {error}"))
        return EXIT_CONFIG
    count = "1 stream" if len(streams) == 1 else f"{len(streams)} streams"
    print(f"ok: {count} ({', '.join(streams)}), model {model.name}")
    for look in _outside(settings):
        try:
            look()
        except PerceiverdError as error:
            print(f"note: {error}")
    return 0


def _outside(settings: config.Config) -> Iterator[Callable[[], object]]:
    """Checks of what the file refers to, by the functions that the daemon calls; each raises PerceiverdError."""
    yield partial(config.secrets_of, settings, os.environ)
    yield partial(snapshots.check, settings, os.environ)
    publish = settings.publish
    if publish.secret_key and publish.client_keys:
        yield partial(keys.read_pair, Path(publish.secret_key))
        yield partial(keys.AllowList, Path(publish.client_keys))
    if publish.endpoint != SERVICE_ENDPOINT:  # systemd makes its folder when the service starts
        yield partial(endpoint.check, publish.endpoint)
    for source in reload.sources_of(reload.enabled(settings)).values():
        if isinstance(source, File):
            yield partial(check_file, Path(source.path))


def show(file: Path | None, *, effective: bool) -> int:
    """Print the options that differ from their defaults, or all if `effective`; returns 0, or 78 for a bad file."""
    try:
        settings = config.load(file) if file else config.Config()
    except ConfigError as error:
        report(error)
        return EXIT_CONFIG
    table = config.table(settings, defaults=effective)
    print(tomli_w.dumps(table) or "# every option has its default\n", end="")
    return 0


def schema() -> None:
    """Print the JSON Schema of the configuration."""
    print(schema_text(), end="")
