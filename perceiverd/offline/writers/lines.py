"""Records as lines: text for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

import msgspec

from perceiverd.offline.writers.writer import FileFacts, Piece, RecordKind, TaggedWindow, Writer
from perceiverd.wire import holes
from perceiverd.wire.messages import Tag
from perceiverd.wire.records import FileEvent, FileHeader, FileScores, FileSummary, Record


def record_of(piece: Piece) -> Record:
    """The record of a piece."""
    match piece:
        case FileFacts(header=header):
            return header
        case TaggedWindow(record=record):
            return record
        case _:
            return piece


def kind_of(record: Record) -> RecordKind:
    """The `type` of a record."""
    match record:
        case FileHeader():
            return "file"
        case FileScores():
            return "scores"
        case FileEvent():
            return "event"
        case FileSummary():
            return "summary"


class RecordWriter(Writer):
    """Writes the chosen kinds of records, each at once: someone may wait for it at the other end of a pipe."""

    def __init__(self, out: IO[str], kinds: frozenset[RecordKind]) -> None:
        self._out, self._kinds = out, kinds

    def write(self, piece: Piece) -> None:
        record = record_of(piece)
        if kind_of(record) in self._kinds:
            self._out.write(self.text(record))
            self._out.flush()

    def text(self, record: Record) -> str:
        """The lines of a record, each with its line end."""
        raise NotImplementedError


class JsonLines(RecordWriter):
    """One line of JSON for each record; its keys are the record's fields, and `type` names the kind of record."""

    def text(self, record: Record) -> str:
        return msgspec.json.encode(record).decode() + "\n"


class TextLines(RecordWriter):
    """One line of text for each record: times in seconds, then labels with scores. The file's name is a line above.

    An event has its highest score.
    """

    def __init__(self, out: IO[str], kinds: frozenset[RecordKind]) -> None:
        super().__init__(out, kinds - {"file"})
        self._file: str | None = None

    def text(self, record: Record) -> str:
        match record:
            case FileHeader():
                return ""
            case FileSummary():
                return f"{_printable(record.file)}  {_labels(record.labels)}\n"
            case FileScores():
                labels = _labels(record.labels)
                if losses := holes.described(record.filled_ms, record.missing):
                    labels += f"  ({losses})"
            case FileEvent():
                labels = f"{record.name} {record.peak:.2f}"
        heading = "" if record.file == self._file else f"{_printable(record.file)}\n"
        self._file = record.file
        return f"{heading}{record.start_s:7.2f}-{record.end_s:<7.2f}  {labels}\n"


def _labels(tags: Sequence[Tag]) -> str:
    return ", ".join(f"{tag.name} {tag.score:.2f}" for tag in tags)


def _printable(name: str) -> str:
    """The name on one line, with escapes for characters that would break the line or control a terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)
