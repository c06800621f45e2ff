"""Reports of measurements as a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from perceiverd.core.errors import ConfigError


def check(path: Path) -> None:
    """Raise ConfigError if this file cannot be written. An existing file stays as it is."""
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the report: {error.strerror}") from error


def write(reports: Sequence[msgspec.Struct], path: Path) -> None:
    """Write the reports as JSON. Raises ConfigError."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(reports)) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the report: {error.strerror}") from error
