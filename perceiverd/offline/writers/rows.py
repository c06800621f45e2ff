"""Records as rows of one table, for spreadsheets and data frames: a row for each label of a window, and for each event.

The columns are the same whatever is written, so that tables of different runs can be joined.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO, Any

from perceiverd.offline.writers.lines import kind_of, record_of
from perceiverd.offline.writers.writer import Piece, RecordKind, Writer
from perceiverd.wire.records import FileEvent, FileHeader, FileScores, FileSummary, Record

COLUMNS = ("type", "file", "start_s", "end_s", "mid", "index", "name", "score", "peak", "mean", "modalities", "id")
"""`score` is that of a window, `peak` and `mean` are those of an event, and the `mean` of a summary is that of all
windows. The others are as in the records; `modalities` are joined by `+`."""


def rows_of(record: Record) -> Iterator[dict[str, Any]]:
    """The rows of a record, with all of COLUMNS. What a record does not have is None. A header has no row."""
    match record:
        case FileHeader():
            return
        case FileScores(labels=labels):
            span = {"start_s": record.start_s, "end_s": record.end_s, "modalities": "+".join(record.modalities)}
            each = [{"mid": tag.mid, "index": tag.index, "name": tag.name, "score": tag.score} for tag in labels]
        case FileSummary(labels=labels):
            span = {"start_s": 0.0, "end_s": record.end_s}
            each = [{"mid": tag.mid, "index": tag.index, "name": tag.name, "mean": tag.score} for tag in labels]
        case FileEvent():
            span = {"start_s": record.start_s, "end_s": record.end_s, "modalities": "+".join(record.modalities)}
            label = {"mid": record.mid, "index": record.index, "name": record.name}
            each = [label | {"peak": record.peak, "mean": record.mean, "id": record.id}]
    empty = dict.fromkeys(COLUMNS) | {"type": kind_of(record), "file": record.file} | span
    yield from (empty | row for row in each)


class CsvTable(Writer):
    """CSV as RFC 4180 has it, with a line of column names. Lines end with a line feed."""

    def __init__(self, out: IO[str], kinds: frozenset[RecordKind]) -> None:
        self._out, self._kinds = out, kinds
        self._rows = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        self._rows.writeheader()

    def write(self, piece: Piece) -> None:
        record = record_of(piece)
        if kind_of(record) in self._kinds:
            self._rows.writerows(rows_of(record))
            self._out.flush()
