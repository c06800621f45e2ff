"""The commands of `perceiverd history` that read: list, show, stats, export, backup. The package queries."""

from __future__ import annotations

import csv
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TextIO

import msgspec

from perceiverd.cli import history_text as text
from perceiverd.cli.terminal import Glyphs
from perceiverd.cli.times import parse_time
from perceiverd.core.errors import HistoryError
from perceiverd.history import EventFilter, HistoryReader, SpanRow, StoredEvent, find_labels
from perceiverd.history.backup import back_up

Form = Literal["text", "jsonl", "csv"]
What = Literal["events", "states"]
EVENT_COLUMNS = (
    *("id", "machine", "stream", "mid", "label", "start", "end", "duration_s", "state", "peak", "mean"),
    *(
        "began",
        "ended",
        "on",
        "off",
        "windows",
        "modalities",
        "key",
        "boot_id",
        "continues",
        "snapshot",
        "clip",
        "withheld",
    ),
)
SPAN_COLUMNS = ("machine", "stream", "kind", "start", "end", "missed", "what")
EVER = timedelta(days=100 * 365)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options that choose events."""

    streams: Sequence[str] = ()
    labels: Sequence[str] = ()
    after: str | None = None
    before: str | None = None
    least_score: float = 0.0

    def filter(self, reader: HistoryReader, now: datetime) -> EventFilter:
        """Raises ConfigError for an unknown label or an unreadable time, HistoryError for an unknown stream."""
        known = {name for each in reader.streams() for name in (each.full_name, each.name)}
        for stream in self.streams:
            if stream not in known:
                raise HistoryError(text.unknown_stream(stream, known))
        return EventFilter(
            streams=tuple(self.streams),
            mids=find_labels(self.labels, reader.labels()) if self.labels else None,
            after=None if self.after is None else parse_time(self.after, "--after", now),
            before=None if self.before is None else parse_time(self.before, "--before", now),
            least_peak=self.least_score,
        )


@contextmanager
def opened(database: Path) -> Iterator[HistoryReader]:
    """The history in this file. A file that cannot be read becomes HistoryError."""
    try:
        with HistoryReader(database) as reader:
            yield reader
    except sqlite3.Error as error:
        raise HistoryError(f"{database}: cannot read the history: {error}") from error


def list_events(database: Path, wanted: Wanted, limit: int, form: Form) -> None:
    """Print the newest events; as text, also the times in which nothing was recorded."""
    now = datetime.now().astimezone()
    with opened(database) as reader:
        chosen = wanted.filter(reader, now)
        page = reader.events(chosen, limit)
        if form != "text":
            write_records(page.events, form, sys.stdout)
            return
        start = page.events[-1].start if page.next and page.events else chosen.after or now - EVER
        spans = reader.spans(start, chosen.before or now, wanted.streams)
        for line in text.listing(page.events, [each for each in spans if each.start >= start or each.end is None]):
            print(line)
        if page.next:
            print("... and older events; --limit N shows more, `perceiverd history export` all", file=sys.stderr)


def show(database: Path, number: int, form: Form) -> None:
    """Print one event with the scores around it. Raises HistoryError if there is none."""
    with opened(database) as reader:
        if (event := reader.event(number)) is None:
            raise HistoryError(f"{database}: has no event {number}; `perceiverd history list` shows their numbers")
        trace = reader.trace(number)
        if form == "jsonl":
            print(msgspec.json.encode({**record(event), "scores": trace}).decode())
            return
        for line in text.event(event, trace, Glyphs.of(sys.stdout.encoding)):
            print(line)


def stats(database: Path, wanted: Wanted, json: bool, top: int) -> None:
    """Print counts by label, stream, hour and weekday."""
    now = datetime.now().astimezone()
    with opened(database) as reader:
        found = reader.statistics(wanted.filter(reader, now), text.zone())
        if json:
            print(msgspec.json.encode(found).decode())
            return
        for line in text.statistics(found, Glyphs.of(sys.stdout.encoding), top):
            print(line)


def export(database: Path, wanted: Wanted, what: What, form: Form, into: Path | None) -> None:
    """Write all that is wanted, the oldest first, to a file or standard output. Raises HistoryError."""
    now = datetime.now().astimezone()
    with opened(database) as reader:
        chosen = wanted.filter(reader, now)
        rows: Iterable[StoredEvent] | Iterable[SpanRow]
        if what == "events":
            rows = reader.every(chosen)
        else:
            rows = reader.spans(chosen.after or now - EVER, chosen.before or now + EVER, wanted.streams)
        if into is None:
            write_records(rows, form, sys.stdout, what)
            return
        try:
            with into.open("w", encoding="utf-8", newline="") as file:
                write_records(rows, form, file, what)
        except OSError as error:
            raise HistoryError(f"{into}: cannot write: {error.strerror}; give another --output") from error


def backup(database: Path, into: Path) -> None:
    """Copy the history into a new file while it is written. Raises HistoryError."""
    size = back_up(database, into)
    print(f"{into}: {size / 1e6:.1f} MB, checked")


def write_records(
    rows: Iterable[StoredEvent] | Iterable[SpanRow], form: Form, file: TextIO, what: What = "events"
) -> None:
    """Write a line for each row."""
    records: Iterable[dict[str, Any]] = map(record, rows)
    if form == "jsonl":
        file.writelines(msgspec.json.encode(each).decode() + "\n" for each in records)
        return
    writer = csv.DictWriter(file, EVENT_COLUMNS if what == "events" else SPAN_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for each in records:
        writer.writerow({key: _cell(value) for key, value in each.items()})


def record(row: StoredEvent | SpanRow) -> dict[str, Any]:
    """A row with the names of EVENT_COLUMNS or SPAN_COLUMNS."""
    found: dict[str, Any] = msgspec.to_builtins(row)
    if isinstance(row, SpanRow):
        return found
    details = row.details
    del found["details"]
    found["label"] = found.pop("name")
    found |= {"duration_s": round(row.duration_s, 3), "began": details.began, "ended": details.ended}
    found |= {"on": details.on, "off": details.off, "windows": details.windows, "modalities": details.modalities}
    found |= {"continues": details.continues, "snapshot": details.snapshot}
    found |= {"clip": details.clip, "withheld": details.withheld}
    return {name: found[name] for name in EVENT_COLUMNS}


def _cell(value: Any) -> Any:
    """A value for CSV. A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, list | tuple):
        value = "+".join(value)
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
