"""Labelled clips of a user: which stretch of which file has which labels, from a CSV of our form or of AudioSet's.

A manifest knows names, times and labels; it opens no clip. Every error names the line of the CSV.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perceiverd.core.errors import ConfigError, did_you_mean
from perceiverd.core.labels import Label
from perceiverd.core.logs import log_event
from perceiverd.evaluation.label_lookup import LabelLookup

if TYPE_CHECKING:
    from _csv import Reader  # csv.reader is a function; its result has no public name

logger = logging.getLogger("perceiverd.evaluation")

ManifestFormat = Literal["auto", "perceiverd", "audioset"]

COLUMNS = ("file", "start_s", "end_s", "labels", "recording")
"""Of our own format. The times may be missing or empty; then a clip is the whole file. Files with the same `recording`
are cut from one."""
SEPARATOR = "|"
"""Between the labels of a clip. AudioSet's names have commas."""
MAX_LOGGED = 20
"""The most faults that are logged one by one."""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One clip."""

    number: int
    """Its line in the CSV, counted from 1; 0 for a file without a CSV."""
    file: Path
    start_s: float
    end_s: float | None
    """None: to the end of the file."""
    labels: tuple[str, ...]
    """mids. Empty: the clip has none of the user's own classes; nothing else is known about it."""
    cut: bool = False
    """Whether the file may be the stretch itself, cut out already. If the file is short enough, all of it is used."""
    recording: str = ""
    """The recording that the file was cut from; empty: the file is a recording of its own."""


@dataclass(frozen=True)
class Manifest:
    """The clips of one CSV whose files exist."""

    path: Path
    rows: tuple[ManifestRow, ...]
    new: tuple[Label, ...]
    """The classes that are not among the known labels; their indices follow those of the known labels."""
    absent: tuple[ManifestRow, ...] = ()
    """The clips whose file does not exist."""
    audioset: bool = False
    """Whether it is in AudioSet's format."""

    @property
    def missing(self) -> int:
        """How many clips have no file."""
        return len(self.absent)

    @property
    def mids(self) -> tuple[str, ...]:
        """The mids of all labels in the manifest, each once, in the order of their first use."""
        return tuple(dict.fromkeys(mid for row in self.rows for mid in row.labels))


def read(
    path: Path,
    known: Sequence[Label],
    *,
    manifest_format: ManifestFormat = "auto",
    media: Path | None = None,
    skip: float = 0.0,
    logs: bool = True,
    own_classes: bool = True,
) -> Manifest:
    """Read a CSV. Labels are looked up among `known` (a model's); relative paths start at the CSV's folder.

    With `own_classes` an unknown name that is like none of the known ones is a class of the user's own.

    AudioSet's format needs `media`, the folder that has the clips as `ID.ext` or `ID_START.ext`, also in subfolders.
    Raises ConfigError if a line is wrong, or if more than the share `skip` of the files is missing. Each fault is
    logged if `logs`.
    """
    lines = _lines(path)
    if manifest_format == "auto":
        manifest_format = "audioset" if _looks_like_audioset(lines) else "perceiverd"
    labels, faults = LabelLookup(known), _Faults(path, logs=logs)
    if manifest_format == "perceiverd":
        rows = list(_own_rows(path, lines, labels, faults, own_classes))
    elif media is None:
        raise ConfigError(f"{path}: AudioSet's format names no files; give the clips' folder with --media")
    else:
        rows = list(_audioset_rows(path, lines, labels, faults, media))
    faults.refuse()
    if not rows:
        raise ConfigError(f"{path}: has no clip; each line needs a file and its labels")
    there = {file for file in {row.file for row in rows} if _is_file(file)}
    absent = [row for row in rows if row.file not in there]
    _check_missing(path, len(rows), absent, skip, logs=logs)
    found = tuple(row for row in rows if row.file in there)
    return Manifest(path, found, labels.new, tuple(absent), audioset=manifest_format == "audioset")


def _lines(path: Path) -> list[str]:
    try:
        # csv counts lines itself, across quoted line breaks too.
        return path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the manifest: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file ({error})") from error


def files_in(folder: Path) -> tuple[ManifestRow, ...]:
    """Every file below a folder as a clip without labels; hidden files are left out. Raises ConfigError if empty."""
    files = sorted(_files_below(folder))
    if not files:
        raise ConfigError(f"{folder}: has no file")
    return tuple(ManifestRow(0, file, 0.0, None, ()) for file in files)


def _files_below(folder: Path) -> Iterator[Path]:
    return (Path(at) / name for at, _, names in os.walk(folder) for name in names if not name.startswith("."))


class _Faults:
    """What is wrong with the lines of one CSV."""

    def __init__(self, path: Path, *, logs: bool) -> None:
        self._path, self._logs = path, logs
        self._found: list[str] = []

    def add(self, number: int, what: str) -> None:
        self._found.append(f"{self._path}: line {number}: {what}")

    def refuse(self) -> None:
        """Raises ConfigError if there is any fault. Several faults are logged one by one first."""
        if not self._found:
            return
        if len(self._found) == 1:
            raise ConfigError(self._found[0])
        if self._logs:
            log_faults(self._found)
        first = self._found[0].removeprefix(f"{self._path}: ")
        raise ConfigError(f"{self._path}: {len(self._found)} lines are wrong; the first is {first}")


# ------------------------------------------------------------------------------------------ our own format
def _own_rows(
    path: Path, lines: Sequence[str], labels: LabelLookup, faults: _Faults, own_classes: bool
) -> Iterator[ManifestRow]:
    header = lines[0] if lines else ""
    delimiter = next((sign for sign in (",", ";", "\t") if sign in header), ",")  # spreadsheets differ by country
    table = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    rows = _cells(path, table)
    columns = [name.strip() for name in next(rows, [])]
    _check_columns(path, columns)
    for cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            hint = "; put a cell that has a comma into quotes" if len(cells) > len(columns) else ""
            faults.add(table.line_num, f"{len(cells)} cells for {len(columns)} columns{hint}")
            continue
        by_name = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
        try:
            yield _own_row(path, table.line_num, by_name, labels, own_classes)
        except ValueError as error:
            faults.add(table.line_num, str(error))


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for name in columns:
        if name not in COLUMNS:
            raise ConfigError(f"{path}: line 1: unknown column {name!r}; {did_you_mean(name, COLUMNS)}")
    for name in ("file", "labels"):
        if columns.count(name) != 1:
            raise ConfigError(f"{path}: line 1: needs one column '{name}'; the first line names the columns")


def _own_row(path: Path, number: int, cells: Mapping[str, str], labels: LabelLookup, own_classes: bool) -> ManifestRow:
    if not cells["file"]:
        raise ValueError("the file is missing")
    start_s, end_s = _times(cells.get("start_s", ""), cells.get("end_s", ""))
    words = [word for word in cells["labels"].split(SEPARATOR) if word.strip()]
    mids = dict.fromkeys(labels.mid_of(word, may_add=own_classes) for word in words)
    recording = cells.get("recording", "")
    return ManifestRow(number, path.parent / cells["file"], start_s, end_s, tuple(mids), recording=recording)


# ------------------------------------------------------------------------------------------ AudioSet's format
def _looks_like_audioset(lines: Sequence[str]) -> bool:
    """AudioSet's lists start with comments, and their lines with an id and two times."""
    first = next((line for line in lines if line.strip()), "")
    return first.startswith("#") or bool(re.match(r"[\w-]{11}, *\d+\.\d+, *\d+\.\d+,", first))


def _audioset_rows(
    path: Path, lines: Sequence[str], labels: LabelLookup, faults: _Faults, media: Path
) -> Iterator[ManifestRow]:
    if not media.is_dir():
        raise ConfigError(f"{media}: no such folder of media")
    # Listed once, because AudioSet's lists have up to two million lines.
    by_stem = {file.stem: file for file in _files_below(media)}
    table = csv.reader(lines, skipinitialspace=True)
    for cells in _cells(path, table):
        if not cells or cells[0].lstrip().startswith("#"):
            continue
        if len(cells) != 4:
            expected = "YTID, start_seconds, end_seconds, positive_labels"
            faults.add(table.line_num, f"{len(cells)} cells; expected {expected}")
            continue
        try:
            start_s, end_s = _times(cells[1], cells[2])
            words = [word for word in cells[3].split(",") if word.strip()]
            mids = dict.fromkeys(labels.mid_of(word, may_add=False) for word in words)
        except ValueError as error:
            faults.add(table.line_num, str(error))
            continue
        ytid = cells[0].strip()
        listed = ManifestRow(table.line_num, media / f"{ytid}.*", start_s, end_s, tuple(mids))
        yield _with_file(listed, ytid, by_stem)


def _with_file(row: ManifestRow, ytid: str, by_stem: Mapping[str, Path]) -> ManifestRow:
    """The row with its file. A file named by id and start is the clip itself; one named by id alone may be."""
    number, start_s, end_s, mids = row.number, row.start_s, row.end_s, row.labels
    starts = {*_spellings(start_s), f"{start_s:06.0f}"}
    ends = {"", *(f"_{end}" for end in _spellings(end_s))}
    for name in (ytid, f"Y{ytid}"):
        for start in sorted(starts):
            for end in sorted(ends):
                if file := by_stem.get(f"{name}_{start}{end}"):
                    return ManifestRow(number, file, 0.0, None, mids)
        if file := by_stem.get(name):
            return ManifestRow(number, file, start_s, end_s, mids, cut=True)
    return row


def _spellings(time_s: float | None) -> tuple[str, ...]:
    return () if time_s is None else (f"{time_s:g}", f"{time_s:.1f}", f"{time_s:.3f}", f"{time_s * 1000:.0f}")


# ------------------------------------------------------------------------------------------ both
def _cells(path: Path, table: Reader) -> Iterator[list[str]]:
    """The cells of each line. Raises ConfigError if a quote that is never closed makes a cell too long."""
    try:
        yield from table
    except csv.Error as error:
        raise ConfigError(f"{path}: line {table.line_num}: {error}; is a closing quote missing?") from None


def _is_file(path: Path) -> bool:
    """Whether this file exists; False too for a name that no file can have, and in a folder that cannot be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def _times(start: str, end: str) -> tuple[float, float | None]:
    """Start and end in seconds. Raises ValueError with a message for the user."""
    start_s, end_s = _seconds(start) or 0.0, _seconds(end)
    if not (0 <= start_s < math.inf) or (end_s is not None and not start_s < end_s < math.inf):
        to = "its end" if end_s is None else f"{end_s:g} s"
        raise ValueError(f"a clip from {start_s:g} s to {to} is empty; the start is at least 0, the end is later")
    return start_s, end_s


def _seconds(cell: str) -> float | None:
    try:
        return float(cell) if cell.strip() else None
    except ValueError:
        raise ValueError(f"{cell.strip()!r} is not a number of seconds") from None


def _check_missing(path: Path, count: int, absent: Sequence[ManifestRow], skip: float, *, logs: bool) -> None:
    faults = [f"{path}: line {row.number}: no such file: {row.file}" for row in absent]
    refused = len(faults) > skip * count
    if refused and len(faults) == 1:
        raise ConfigError(faults[0])
    if logs:
        log_faults(faults)
    if refused:
        raise ConfigError(
            f"{path}: the files of {len(faults)} of {count} clips are missing; --skip sets how many may be"
        )


def log_faults(faults: Sequence[str]) -> None:
    """Log each fault of a clip, up to MAX_LOGGED of them."""
    for fault in faults[:MAX_LOGGED]:
        log_event(logger, logging.WARNING, "clip-unusable", detail=fault)
    if len(faults) > MAX_LOGGED:
        log_event(logger, logging.WARNING, "faults-omitted", count=len(faults) - MAX_LOGGED)
