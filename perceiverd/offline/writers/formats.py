"""The formats of `perceiverd tag` by name. A new format is an entry here and a module beside this one.

Knows no file and no model. It loads a format's module when a writer is made: some need a library of an extra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from perceiverd.core.errors import PerceiverdError, did_you_mean
from perceiverd.offline.writers.writer import ALL_KINDS, RecordKind, Writer


@dataclass(frozen=True, slots=True)
class Format:
    """One format."""

    name: str
    suffix: str
    """What follows the media's name in the name of its output: `film.mp4` becomes `film.mp4.vtt`."""
    meaning: str
    """For help texts: `lines of JSON`."""
    make: Callable[[IO[Any], frozenset[RecordKind]], Writer]
    """A writer into an output that the caller has opened, for these kinds of records if the format has a choice."""
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


def _text(out: IO[Any], kinds: frozenset[RecordKind]) -> Writer:
    from perceiverd.offline.writers.lines import TextLines

    return TextLines(out, kinds)


def _jsonl(out: IO[Any], kinds: frozenset[RecordKind]) -> Writer:
    from perceiverd.offline.writers.lines import JsonLines

    return JsonLines(out, kinds)


def _csv(out: IO[Any], kinds: frozenset[RecordKind]) -> Writer:
    from perceiverd.offline.writers.rows import CsvTable

    return CsvTable(out, kinds)


_SCORES: frozenset[RecordKind] = frozenset({"scores"})
_ALL = (
    Format("text", ".txt", "text for people", _text, _SCORES, chooses=True, joins=True),
    Format("jsonl", ".jsonl", "lines of JSON", _jsonl, ALL_KINDS, chooses=True, joins=True),
    Format("csv", ".csv", "a table", _csv, frozenset({"scores", "event"}), chooses=True, joins=True),
)
FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}


def chosen(names: str) -> Sequence[Format]:
    """The formats of a list such as `vtt,jsonl`, each once. Raises PerceiverdError if one is unknown."""
    words = list(dict.fromkeys(word.strip() for word in names.split(",") if word.strip()))
    for word in words:
        if word not in FORMATS:
            raise PerceiverdError(f"unknown format {word!r}; {did_you_mean(word, FORMATS)}")
    if not words:
        raise PerceiverdError(f"no format; choose from {', '.join(FORMATS)}")
    return [FORMATS[word] for word in words]
