"""Helpers of tests of the history: a store in a folder, and messages whose times are on one scale."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from perceiverd.core.labels import ontology
from perceiverd.history import HistoryReader
from perceiverd.history.opening import FILE, open_writer
from perceiverd.history.recording import DaemonRecorder, Now
from perceiverd.history.rows import to_ms
from perceiverd.history.writing import HistoryWriter
from perceiverd.wire import Event, Item, Scores, Status, Tag
from tests.support import messages

START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
FLOOR = 0.05


def at(seconds: float) -> datetime:
    """This many seconds after START."""
    return START + timedelta(seconds=seconds)


def now(seconds: float) -> Now:
    """The same moment on both clocks of the history's machine."""
    return Now(to_ms(at(seconds)), round(seconds * 1000))


def event(
    kind: Literal["begin", "update", "end"],
    name: str,
    start_s: float,
    end_s: float,
    *,
    stream: str = "door",
    key: str = "",
    peak: float = 0.75,
    reason: str = "",
    boot_id: str = "boot",
) -> Event:
    """A message of an event; its key is `NAME-START` unless it is given."""
    made = messages.label_event(
        *(kind, name),
        stream=stream,
        id_=key or f"{name}-{start_s:g}",
        peak=peak,
        boot_id=boot_id,
        reason=reason or {"begin": "confirmed", "update": "goes on", "end": "faded"}[kind],
    )
    return msgspec.structs.replace(made, start=at(start_s), end=at(end_s), duration_s=end_s - start_s)


def scores(end_s: float, *tags: tuple[str, float], stream: str = "door", boot_id: str = "boot") -> Scores:
    """A window of a second with these labels, given by name."""
    found = tuple(Tag(ontology().find(name).mid, ontology().find(name).index, name, score) for name, score in tags)
    made = messages.scores(stream, boot_id=boot_id)
    return msgspec.structs.replace(made, start=at(end_s - 1), end=at(end_s), labels=found)


def status(time_s: float, *states: str, stream: str = "door", boot_id: str = "boot") -> Status:
    """A heartbeat at this time by the daemon's clock."""
    return msgspec.structs.replace(messages.status(stream, *states, boot_id=boot_id), time=at(time_s), up_since=START)


class Store:
    """A history in a folder, written by the recorder of one daemon."""

    def __init__(self, folder: Path, machine: str = "house") -> None:
        self.path = folder / FILE
        self.writer = HistoryWriter(open_writer(self.path)[0], FLOOR)
        self.recorder = DaemonRecorder(machine, "ipc:///x", FLOOR)

    def begin(self, seconds: float = 0) -> None:
        self.writer.apply(self.recorder.begin(now(seconds)))

    def receive(self, seconds: float, *items: Item) -> None:
        """Receive these at this time, and write what follows from them."""
        for item in items:
            self.writer.apply(self.recorder.receive(item, now(seconds)))

    def turn(self, seconds: float) -> None:
        self.writer.apply(self.recorder.turn(now(seconds)))

    def end(self, seconds: float) -> None:
        self.writer.apply(self.recorder.end(now(seconds)))

    def reader(self) -> HistoryReader:
        return HistoryReader(self.path)

    def kinds(self) -> list[tuple[str | None, str, float, float | None]]:
        """Stream, kind, and begin and end in seconds after START, of all spans."""
        with self.reader() as reader:
            rows = reader.spans(at(-1e6), at(1e6))
        return [(row.stream, row.kind, _s(row.start), None if row.end is None else _s(row.end)) for row in rows]


def _s(time: datetime) -> float:
    return (time - START).total_seconds()
