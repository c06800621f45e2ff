"""`perceiverd config`: check a configuration file, and print it as the daemon reads it. Starts nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import tomli_w

from perceiverd import config
from perceiverd.cli.console import EXIT_CONFIG, EXIT_FAILED, report
from perceiverd.config.json_schema import schema_text
from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.daemon import preconditions, reload
from perceiverd.model.card import load_card


def check(file: Path) -> int:
    """Print whether the daemon accepts this file; returns the status with which `run` would refuse it, or 0.

    Faults outside the file that need not end the service are printed as notes: it has another user and another
    environment than this shell, and it starts without a media file.
    """
    try:
        settings = config.load(file)
        model = load_card(settings.model.name)
        streams = reload.rules_of(settings, model)
    except PerceiverdError as error:
        report(error if str(error).startswith(f"{file}: ") else ConfigError(f"{file}: {error}"))
        return EXIT_CONFIG
    logging.getLogger("perceiverd").addHandler(logging.NullHandler())  # the notes say the same as the log
    notes = list[str]()
    for fault in preconditions.faults(settings, model.geometry.media_format, os.environ):
        if fault.ends_run:
            report(PerceiverdError(fault.message))
            return EXIT_FAILED
        notes.append(fault.message)
    count = "1 stream" if len(streams) == 1 else f"{len(streams)} streams"
    print(f"ok: {count} ({', '.join(streams)}), model {model.name}")
    for note in notes:
        print(f"note: {note}")
    return 0


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
