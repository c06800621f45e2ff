"""The tables of a soak: tagged windows, faults and resources, as CSV files that can be read while they grow."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar


@dataclass(frozen=True)
class TaggedWindow:
    """One message of scores; times are seconds since the start."""

    at_s: float
    stream: str
    end_s: float
    latency_ms: float
    modalities: str
    dropped: int


@dataclass(frozen=True)
class Fault:
    """A fault that lasted from `at_s` to `until_s`."""

    at_s: float
    until_s: float
    stream: str
    kind: str


@dataclass(frozen=True)
class Sample:
    """The resources of the processes at one moment; memory is resident megabytes."""

    at_s: float
    daemon_mb: float
    daemon_fds: int
    daemon_threads: int
    workers: int
    workers_mb: float
    workers_fds: int
    load: float
    tagged: int
    dropped: int
    restarts: str
    """By stream and reason, as JSON."""


Row = TypeVar("Row", TaggedWindow, Fault, Sample)


class Table:
    """A CSV file that grows by whole lines."""

    def __init__(self, path: Path, kind: type[Any]) -> None:
        self._file = path.open("w", newline="", buffering=1)
        self._writer = csv.DictWriter(self._file, [field.name for field in fields(kind)])
        self._writer.writeheader()

    def add(self, row: TaggedWindow | Fault | Sample) -> None:
        values = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(row).items()}
        self._writer.writerow(values)


def read(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of such a file, without a last line that is only half written."""
    types: dict[str, Callable[[str], Any]] = {"float": float, "int": int, "str": str}
    rows = []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                rows.append(kind(**{each.name: types[str(each.type)](line[each.name]) for each in fields(kind)}))
    return rows
