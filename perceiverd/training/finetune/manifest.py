"""One's own labelled clips: which stretch of which file holds what, read from a CSV of ours or of AudioSet's.

A manifest knows names, times and labels; it opens no clip. Whatever is wrong in it is told with its line.
"""

from __future__ import annotations

import csv
import difflib
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import Label, ontology

log = logging.getLogger(__name__)

ManifestFormat = Literal["auto", "perceiverd", "audioset"]

COLUMNS = ("file", "start_s", "end_s", "labels")
"""Of our own form; the times may be left out or empty, and then a clip is the whole file."""
SEPARATOR = "|"
"""Between the labels of a clip: AudioSet's names hold commas."""
OWN = "user/"
"""What the mid of a class that AudioSet lacks begins with."""
NEAR = 0.8
"""A name that is so like one of AudioSet's is rather a slip than a class of one's own (difflib's ratio)."""
LONGEST_NAME = 100
TOLD = 20
"""Of many faults so many are told, each in a line."""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One clip."""

    number: int
    """Its line in the CSV, counted from 1; 0 for a file that no CSV names."""
    file: Path
    start_s: float
    end_s: float | None
    """None: to the file's end."""
    labels: tuple[str, ...]
    """mids; empty for a clip of which nothing is known but that none of one's own classes is in it."""
    cut: bool = False
    """Whether the file may be the stretch itself, cut out already: then it is taken whole where it is short."""


@dataclass(frozen=True)
class Manifest:
    """The clips of one CSV whose files are there."""

    path: Path
    lines: tuple[ManifestRow, ...]
    new: tuple[Label, ...]
    """The classes that are not among the labels it was read with; their indices go on from there."""
    missing: int = 0
    """Clips that are listed and whose file isn't there."""

    @property
    def named(self) -> tuple[str, ...]:
        """The mids of all labels that some clip has, each once, in the order in which they come."""
        return tuple(dict.fromkeys(mid for line in self.lines for mid in line.labels))


def read(
    path: Path,
    known: Sequence[Label],
    *,
    form: ManifestFormat = "auto",
    media: Path | None = None,
    skip: float = 0.0,
    tells: bool = True,
) -> Manifest:
    """The manifest in a CSV, with labels looked up among `known` (a model's); paths are taken from the CSV's folder.

    AudioSet's form needs `media`, the folder in which the clips lie (and its folders): `ID.ext` or `ID_START.ext`.
    Raises ConfigError where a line can't be understood, or where more than the share `skip` of the files is missing.
    Each fault has a line of the log, where it `tells`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the manifest: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file ({error})") from error
    labels = _Labels(known)
    # csv counts lines itself, over quoted line breaks too.
    rows = text.splitlines(keepends=True)
    if form == "auto":
        form = "audioset" if _looks_like_audioset(rows) else "perceiverd"
    if form == "audioset" and media is None:
        raise ConfigError(f"{path}: is in AudioSet's form, which names no files; say with --media where the clips are")
    faults = _Faults(path, tells=tells)
    parsed = (
        _audioset(rows, labels, faults, media) if form == "audioset" and media else _own(path, rows, labels, faults)
    )
    lines = list(parsed)
    faults.refuse()
    if not lines:
        raise ConfigError(f"{path}: no clip in it; each line names a file and its labels")
    there = [line for line in lines if line.file.is_file()]
    _check_missing(path, lines, there, skip, tells=tells)
    return Manifest(path, tuple(there), labels.new, len(lines) - len(there))


def files_in(folder: Path) -> tuple[ManifestRow, ...]:
    """Every file below a folder as a clip of which nothing is known. Raises ConfigError where there is none."""
    files = sorted(Path(at) / name for at, _, names in os.walk(folder) for name in names if not name.startswith("."))
    if not files:
        raise ConfigError(f"{folder}: no file in it")
    return tuple(ManifestRow(0, file, 0.0, None, ()) for file in files)


class _Faults:
    """What is wrong with the lines of one CSV."""

    def __init__(self, path: Path, *, tells: bool) -> None:
        self._path, self._tells = path, tells
        self._told: list[str] = []

    def add(self, number: int, what: str) -> None:
        self._told.append(f"{self._path}: line {number}: {what}")

    def refuse(self) -> None:
        """Raises ConfigError where anything was wrong; each fault has its line."""
        if not self._told:
            return
        if len(self._told) == 1:
            raise ConfigError(self._told[0])
        if self._tells:
            log_faults(self._told)
        raise ConfigError(f"{self._path}: {len(self._told)} lines can't be used as they are; correct them")


class _Labels:
    """Labels by mid and by name; what nobody knows becomes a new class."""

    def __init__(self, known: Sequence[Label]) -> None:
        self._count = len(known)
        self._mids = {label.mid: label for label in known}
        self._names = {label.name.casefold(): label for label in known}
        self._new: dict[str, Label] = {}

    @property
    def new(self) -> tuple[Label, ...]:
        return tuple(self._new.values())

    def mid_of(self, word: str, *, own: bool) -> str:
        """The mid of a label given by mid or name; `own`: whether it may be new. Raises ValueError in words."""
        word = " ".join(word.split())
        found = self._mids.get(word) or self._names.get(word.casefold())
        if found:
            return found.mid
        if not own or word.startswith("/"):
            raise ValueError(f"{word!r} is no label of AudioSet's 527")
        if word.startswith(OWN):
            return self._grown(word, word.removeprefix(OWN).replace("-", " "))
        if near := difflib.get_close_matches(word.casefold(), self._names, n=1, cutoff=NEAR):
            meant = self._names[near[0]].name
            raise ValueError(f"label {word!r}: did you mean {meant!r}? For a class of your own write {_own_mid(word)}")
        return self._grown(_own_mid(word), word)

    def _grown(self, mid: str, name: str) -> str:
        if not name or len(name) > LONGEST_NAME or '"' in name or not name.isprintable() or mid == OWN:
            raise ValueError(f"label {name!r}: a name is up to {LONGEST_NAME} letters, without quotes")
        if mid in self._mids:  # an own class of the model that was started from, under another spelling
            return mid
        self._new.setdefault(mid, Label(self._count + len(self._new), mid, name))
        return mid


def _own_mid(name: str) -> str:
    return OWN + re.sub(r"\W+", "-", name.casefold()).strip("-")


def _looks_like_audioset(rows: Sequence[str]) -> bool:
    """AudioSet's lists begin with comments, and their lines with an id and two times."""
    first = next((row for row in rows if row.strip()), "")
    return first.startswith("#") or bool(re.match(r"[\w-]{11}, *\d+\.\d+, *\d+\.\d+,", first))


def _own(path: Path, rows: Sequence[str], labels: _Labels, faults: _Faults) -> Iterator[ManifestRow]:
    header = rows[0] if rows else ""
    delimiter = next((sign for sign in (",", ";", "\t") if sign in header), ",")  # spreadsheets differ by country
    table = csv.reader(rows, delimiter=delimiter, skipinitialspace=True)
    columns = [name.strip() for name in next(table, [])]
    for name in columns:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(COLUMNS)}"
            raise ConfigError(f"{path}: line 1: no column {name!r}; {hint}")
    for name in ("file", "labels"):
        if columns.count(name) != 1:
            raise ConfigError(f"{path}: line 1: one column `{name}` is needed; the first line names the columns")
    for row in table:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(columns):
            faults.add(table.line_num, f"{len(row)} cells for {len(columns)} columns")
            continue
        cells = {name: cell.strip() for name, cell in zip(columns, row, strict=True)}
        try:
            yield _own_line(path, table.line_num, cells, labels)
        except ValueError as error:
            faults.add(table.line_num, str(error))


def _own_line(path: Path, number: int, cells: Mapping[str, str], labels: _Labels) -> ManifestRow:
    if not cells["file"]:
        raise ValueError("no file is named")
    start_s, end_s = _times(cells.get("start_s", ""), cells.get("end_s", ""))
    words = [word for word in cells["labels"].split(SEPARATOR) if word.strip()]
    mids = dict.fromkeys(labels.mid_of(word, own=True) for word in words)
    return ManifestRow(number, path.parent / cells["file"], start_s, end_s, tuple(mids))


def _audioset(rows: Sequence[str], labels: _Labels, faults: _Faults, media: Path) -> Iterator[ManifestRow]:
    if not media.is_dir():
        raise ConfigError(f"{media}: no such folder of media")
    shelf = _stems(media)
    table = csv.reader(rows, skipinitialspace=True)
    for row in table:
        if not row or row[0].lstrip().startswith("#"):
            continue
        if len(row) != 4:
            faults.add(table.line_num, f"{len(row)} cells; expected YTID, start_seconds, end_seconds, positive_labels")
            continue
        try:
            start_s, end_s = _times(row[1], row[2])
            mids = dict.fromkeys(labels.mid_of(word, own=False) for word in row[3].split(",") if word.strip())
        except ValueError as error:
            faults.add(table.line_num, str(error))
            continue
        assert end_s is not None or not row[2].strip()
        yield _found(table.line_num, shelf, media, row[0].strip(), start_s, end_s, tuple(mids))


def _found(
    number: int,
    shelf: Mapping[str, Path],
    media: Path,
    ytid: str,
    start_s: float,
    end_s: float | None,
    mids: tuple[str, ...],
) -> ManifestRow:
    """The line with its file: one that bears the start is the clip itself, one with the id alone may be."""
    starts = {f"{start_s:g}", f"{start_s:.1f}", f"{start_s:.3f}", f"{start_s * 1000:.0f}", f"{start_s:06.0f}"}
    ends = {"", *(f"_{end}" for end in _spellings(end_s))}
    for name in (ytid, f"Y{ytid}"):
        for start in sorted(starts):
            for end in sorted(ends):
                if file := shelf.get(f"{name}_{start}{end}"):
                    return ManifestRow(number, file, 0.0, None, mids)
        if file := shelf.get(name):
            return ManifestRow(number, file, start_s, end_s, mids, cut=True)
    return ManifestRow(number, media / f"{ytid}.*", start_s, end_s, mids)


def _spellings(time_s: float | None) -> tuple[str, ...]:
    return () if time_s is None else (f"{time_s:g}", f"{time_s:.1f}", f"{time_s:.3f}", f"{time_s * 1000:.0f}")


def _stems(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its name without ending; looked up once, for lists have millions of lines."""
    return {
        Path(name).stem: Path(at) / name
        for at, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    }


def _times(start: str, end: str) -> tuple[float, float | None]:
    """Raises ValueError in words."""
    times = []
    for cell in (start, end):
        try:
            times.append(float(cell) if cell.strip() else None)
        except ValueError:
            raise ValueError(f"{cell.strip()!r} is no number of seconds") from None
    start_s, end_s = times[0] or 0.0, times[1]
    if not (0 <= start_s < math.inf) or (end_s is not None and not start_s < end_s < math.inf):
        raise ValueError(f"a clip from {start_s:g} s to {'its end' if end_s is None else f'{end_s:g} s'} holds nothing")
    return start_s, end_s


def _check_missing(
    path: Path, lines: Sequence[ManifestRow], there: Sequence[ManifestRow], skip: float, *, tells: bool
) -> None:
    here = {line.number for line in there}
    missing = [line for line in lines if line.number not in here]
    if not missing:
        return
    told = [f"{path}: line {line.number}: there is no file {line.file}" for line in missing]
    refused = len(missing) > skip * len(lines)
    if refused and len(missing) == 1:
        raise ConfigError(told[0])
    if tells:
        log_faults(told)
    if refused:
        raise ConfigError(
            f"{path}: the files of {len(missing)} of {len(lines)} clips are missing; --skip says how many may"
        )


def log_faults(lines: Sequence[str]) -> None:
    """Each in a line of the log, the first of many."""
    for line in lines[:TOLD]:
        log.warning("%s", line)
    if len(lines) > TOLD:
        log.warning("and %d more", len(lines) - TOLD)


def above(mid: str) -> frozenset[str]:
    """The mids above this one in AudioSet's hierarchy; none above a class of one's own."""
    return ontology().ancestors(mid) if mid in ontology().parents else frozenset()
