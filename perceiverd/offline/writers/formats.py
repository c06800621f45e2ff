"""The formats of `perceiverd tag` by name. A new format is an entry here and a module beside this one.

Knows no file and no model. It loads a format's module when a writer is made: some need a library of an extra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from perceiverd.core.errors import PerceiverdError, did_you_mean
from perceiverd.offline.writers.writer import ALL_KINDS, RecordKind, Writer, WriterOptions


@dataclass(frozen=True, slots=True)
class Format:
    """One format."""

    name: str
    suffix: str
    """What follows the media's name in the name of its output: `film.mp4` becomes `film.mp4.vtt`."""
    meaning: str
    """For help texts: `lines of JSON`."""
    make: Callable[[IO[Any], WriterOptions], Writer]
    """A writer into an output that the caller has opened."""
    kinds: frozenset[RecordKind]
    """The records it writes, if the user does not choose."""
    chooses: bool = False
    """Whether the user may choose other kinds."""
    joins: bool = False
    """Whether one output can hold several files, one after the other."""
    sorts: bool = False
    """Whether it needs events in order of start. They come later then: each waits for those that began before it."""
    is_binary: bool = False
    """Whether `make` gets an output of bytes, not of text."""
    finish: Callable[[Path], None] | None = None
    """Called with the folder when all files of a run have their outputs there: to write a page over all of them."""
    extra: tuple[str, str] | None = None
    """The library it needs and the extra that installs it."""

    def records(self, wanted: frozenset[RecordKind]) -> frozenset[RecordKind]:
        """The records it writes if the user has chosen these, or none."""
        return wanted if self.chooses and wanted else self.kinds


def _text(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.writers.lines import TextLines

    return TextLines(out, options.kinds)


def _jsonl(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.writers.lines import JsonLines

    return JsonLines(out, options.kinds)


def _csv(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.writers.rows import CsvTable

    return CsvTable(out, options.kinds)


def _vtt(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.writers.captions import WebVtt

    return WebVtt(out)


def _srt(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.writers.captions import SubRip

    return SubRip(out)


def _audacity(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.writers.labels import AudacityLabels

    return AudacityLabels(out)


def _raven(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.writers.labels import RavenSelections

    return RavenSelections(out)


def _rttm(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.writers.labels import Rttm

    return Rttm(out)


def _parquet(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.writers.parquet import ScoresParquet

    return ScoresParquet(out)


def _html(out: IO[Any], options: WriterOptions) -> Writer:
    from perceiverd.offline.timeline.writer import TimelineWriter

    return TimelineWriter(out, options.target and options.target.parent, options.embed_bytes)


def _html_index(folder: Path) -> None:
    from perceiverd.offline.timeline.index import write_index

    write_index(folder)


_EVENTS: frozenset[RecordKind] = frozenset({"event"})
_SCORES: frozenset[RecordKind] = frozenset({"scores"})
_ALL = (
    Format("text", ".txt", "text for people", _text, _SCORES, chooses=True, joins=True),
    Format("jsonl", ".jsonl", "lines of JSON", _jsonl, ALL_KINDS, chooses=True, joins=True),
    Format("csv", ".csv", "a table of windows and events", _csv, _SCORES | _EVENTS, chooses=True, joins=True),
    Format("vtt", ".vtt", "WebVTT captions", _vtt, _EVENTS, sorts=True),
    Format("srt", ".srt", "SubRip captions", _srt, _EVENTS, sorts=True),
    Format("audacity", ".audacity.txt", "Audacity labels", _audacity, _EVENTS, sorts=True),
    Format("raven", ".selections.txt", "Raven selection table", _raven, _EVENTS, sorts=True),
    Format("rttm", ".rttm", "RTTM", _rttm, _EVENTS, joins=True, sorts=True),
    Format("html", ".html", "a page with player and timeline", _html, _EVENTS, finish=_html_index),
    Format(
        "parquet", ".parquet", "Parquet of all scores", _parquet, _SCORES, is_binary=True, extra=("pyarrow", "parquet")
    ),
)
FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}


def chosen(names: str) -> Sequence[Format]:
    """The formats of a list such as `vtt,jsonl`, each once. Raises PerceiverdError if one is unknown."""
    words = list(dict.fromkeys(word.strip() for word in names.split(",") if word.strip()))
    for word in words:
        if word not in FORMATS:
            raise PerceiverdError(f"unknown format {word!r}; {did_you_mean(word, FORMATS)}")
        if (needs := FORMATS[word].extra) and find_spec(needs[0]) is None:
            raise PerceiverdError(f"{word} needs {needs[0]}: pip install 'perceiverd[{needs[1]}]'")
    if not words:
        raise PerceiverdError(f"no format; choose from {', '.join(FORMATS)}")
    return [FORMATS[word] for word in words]
