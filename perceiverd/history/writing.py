"""Carries out operations on the database, a batch in one transaction. It decides nothing about what is stored.

One process writes, on one thread. A transaction that fails leaves the database as it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Self

import msgspec

from perceiverd.history.operations import (
    AddMinutes,
    AddMissed,
    BeginRecording,
    ChangeState,
    CloseSpan,
    EndRecording,
    EndUnseenEvents,
    NameLabels,
    OpenSpan,
    Operation,
    SeeMachine,
    SeeRun,
    StoreEvent,
    StoreTrace,
)
from perceiverd.history.rows import Details, to_ms, to_pm
from perceiverd.history.traces import packed, unpacked
from perceiverd.wire import Event

OPEN, ENDED, UNSEEN = 0, 1, 2
"""`event.state`."""
JOINED_MS = 60_000
"""Losses that are closer together are one row."""
TEMPORARY = (
    *("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_CORRUPT", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_LOCKED"),
    *("SQLITE_NOMEM", "SQLITE_NOTADB", "SQLITE_PERM", "SQLITE_PROTOCOL", "SQLITE_READONLY"),
)
"""Errors of the machine and of the file; any other lies in what is written."""
_details_decoder = msgspec.json.Decoder(Details)


class HistoryWriter:
    """Writes to one database."""

    def __init__(self, connection: sqlite3.Connection, floor: float) -> None:
        """`floor`: the least score of a label in a minute that is stored."""
        self._connection, self._floor_pm = connection, to_pm(floor)
        self._numbers: dict[tuple[str, ...], int] = {}
        """Numbers of machines, streams, labels and runs that are known to be in the database."""

    @property
    def connection(self) -> sqlite3.Connection:
        return self._connection

    def apply(self, operations: Iterable[Operation]) -> None:
        """Carry out all of these, or none. Raises sqlite3.Error."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for operation in operations:
                self._apply(operation)
            connection.execute("COMMIT")
        except BaseException:
            self._numbers.clear()
            if connection.in_transaction:  # SQLite has rolled back itself after some errors
                connection.execute("ROLLBACK")
            raise

    def sync(self) -> None:
        """Copy the log into the database and wait for the disk. Raises sqlite3.Error."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _apply(self, operation: Operation) -> None:
        match operation:
            case StoreEvent():
                self._event(operation)
            case AddMinutes():
                self._minutes(operation)
            case StoreTrace():
                self._trace(operation)
            case SeeMachine():
                self._see_machine(operation)
            case SeeRun():
                self._see_run(operation)
            case NameLabels():
                for mid, name in operation.names.items():
                    self._label(mid, name)
            case _:
                Spans(self).apply(operation)

    def _see_machine(self, seen: SeeMachine) -> None:
        self._connection.execute(
            "UPDATE machine SET seen_ms = ?, offset_ms = ? WHERE id = ?",
            (seen.at_ms, seen.offset_ms, self.machine(seen.machine)),
        )

    def _see_run(self, seen: SeeRun) -> None:
        machine = self.machine(seen.machine)
        last = self._connection.execute(
            "SELECT id, boot_id, last_ms FROM run WHERE machine = ? ORDER BY last_ms DESC, id DESC LIMIT 1", (machine,)
        ).fetchone()
        if last and last[1] != seen.boot_id:
            self._connection.execute("UPDATE event SET state = ? WHERE state = ? AND run = ?", (UNSEEN, OPEN, last[0]))
            Spans(self).add(machine, None, "daemon restarted", min(last[2], seen.at_ms), seen.at_ms, 0, seen.version)
        self._run(machine, seen)

    def _run(self, machine: int, seen: SeeRun) -> int:
        row = self._connection.execute(
            "INSERT INTO run (machine, boot_id, version, model, sha256, up_since_ms, first_ms, last_ms) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (machine, boot_id) DO UPDATE SET last_ms = excluded.last_ms, "
            "version = iif(excluded.version = '', version, excluded.version), model = excluded.model, "
            "sha256 = excluded.sha256, up_since_ms = min(up_since_ms, excluded.up_since_ms) RETURNING id",
            (
                *(machine, seen.boot_id, seen.version, seen.model, seen.sha256),
                *(seen.up_since_ms, seen.at_ms, seen.at_ms),
            ),
        ).fetchone()
        self._numbers["run", str(machine), seen.boot_id] = row[0]
        return int(row[0])

    def _event(self, operation: StoreEvent) -> None:
        message, machine = operation.message, self.machine(operation.machine)
        stream, label = self.stream(machine, message.stream), self._label(message.mid, message.name)
        run = self._run_of(machine, message)
        row = self._connection.execute(
            "SELECT id, details, state FROM event WHERE run = ? AND stream = ? AND key = ?", (run, stream, message.id)
        ).fetchone()
        ended = message.kind == "end" or (row is not None and row[2] == ENDED)
        details = details_of(message, _details_decoder.decode(row[1]) if row else None)
        measured = (
            *(to_ms(message.end), ENDED if ended else OPEN),
            *(to_pm(message.peak), to_pm(message.mean), msgspec.json.encode(details)),
        )
        if row is None:
            self._connection.execute(
                "INSERT INTO event (end_ms, state, peak_pm, mean_pm, details, stream, run, key, label, start_ms) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*measured, stream, run, message.id, label, to_ms(message.start)),
            )
        elif message.kind == "end" or not ended:
            self._connection.execute(
                "UPDATE event SET end_ms = ?, state = ?, peak_pm = ?, mean_pm = ?, details = ? WHERE id = ?",
                (*measured, row[0]),
            )

    def _run_of(self, machine: int, message: Event) -> int:
        number = self._numbers.get(("run", str(machine), message.boot_id))
        if number is None:
            at_ms = to_ms(message.start)
            model = message.model
            seen = SeeRun("", message.boot_id, "", model.name, model.sha256, at_ms, at_ms)
            number = self._run(machine, seen)
        return number

    def _trace(self, trace: StoreTrace) -> None:
        machine = self.machine(trace.machine)
        row = self._connection.execute(
            "SELECT event.id, windows FROM event JOIN run ON run.id = run LEFT JOIN trace ON event = event.id "
            "WHERE run.machine = ? AND boot_id = ? AND stream = ? AND key = ?",
            (machine, trace.boot_id, self.stream(machine, trace.stream), trace.key),
        ).fetchone()
        if row is None:  # removed meanwhile, or its message was lost
            return
        windows = dict(unpacked(row[1])) if row[1] else {}
        for end_ms, scores in trace.windows:
            windows[end_ms] = {self._label(mid, mid): score for mid, score in scores.items()}
        self._connection.execute(
            "INSERT OR REPLACE INTO trace VALUES (?, ?)", (row[0], packed(sorted(windows.items())))
        )

    def _minutes(self, operation: AddMinutes) -> None:
        machine = self.machine(operation.machine)
        listened, frequent, rare = [], [], []
        for (name, minute), each in operation.minutes.items():
            stream = self.stream(machine, name)
            listened.append((stream, minute, each.windows, each.heard, each.seen, each.dropped))
            for mid, (best, total) in each.labels.items():
                if best >= self._floor_pm:
                    frequent.append((stream, minute, self._label(mid, mid), best, total))
                else:
                    rare.append((total, stream, minute, self._label(mid, mid)))
        self._connection.executemany(
            "INSERT INTO minute VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "windows = windows + excluded.windows, heard = heard + excluded.heard, seen = seen + excluded.seen, "
            "dropped = dropped + excluded.dropped",
            listened,
        )
        self._connection.executemany(
            "INSERT INTO score VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "best_pm = max(best_pm, excluded.best_pm), sum_pm = sum_pm + excluded.sum_pm",
            frequent,
        )
        self._connection.executemany(
            "UPDATE score SET sum_pm = sum_pm + ? WHERE stream = ? AND minute = ? AND label = ?", rare
        )

    def machine(self, name: str) -> int:
        """The number of this daemon."""
        return self._number(("machine", name), "SELECT id FROM machine WHERE name = ?", (name,)) or self._insert(
            ("machine", name), "INSERT INTO machine (name, endpoint) VALUES (?, '')", (name,)
        )

    def stream(self, machine: int, name: str) -> int:
        """The number of this stream."""
        key = ("stream", str(machine), name)
        return self._number(
            key, "SELECT id FROM stream WHERE machine = ? AND name = ?", (machine, name)
        ) or self._insert(key, "INSERT INTO stream (machine, name) VALUES (?, ?)", (machine, name))

    def _label(self, mid: str, name: str) -> int:
        """The number of this label. A name replaces the mid that stood for it while it was unknown."""
        key = ("label", mid, name)
        if (number := self._numbers.get(key)) is None:
            number = self._number(("label", mid, mid), "SELECT id FROM label WHERE mid = ?", (mid,))
            if number is None:
                return self._insert(key, "INSERT INTO label (mid, name) VALUES (?, ?)", (mid, name))
            if name != mid:
                self._connection.execute("UPDATE label SET name = ? WHERE id = ? AND name != ?", (name, number, name))
            self._numbers[key] = number
        return number

    def _number(self, key: tuple[str, ...], query: str, values: tuple[object, ...]) -> int | None:
        if key not in self._numbers:
            if (row := self._connection.execute(query, values).fetchone()) is None:
                return None
            self._numbers[key] = row[0]
        return self._numbers[key]

    def _insert(self, key: tuple[str, ...], statement: str, values: tuple[object, ...]) -> int:
        self._numbers[key] = number = self._connection.execute(statement, values).lastrowid or 0
        return number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class Spans:
    """The rows about time: states of streams, and times without messages."""

    def __init__(self, writer: HistoryWriter) -> None:
        self._writer, self._connection = writer, writer.connection

    def apply(
        self,
        operation: BeginRecording | EndRecording | EndUnseenEvents | ChangeState | OpenSpan | CloseSpan | AddMissed,
    ) -> None:
        machine = self._writer.machine(operation.machine)
        match operation:
            case BeginRecording():
                self._begin(machine, operation)
            case EndRecording():
                self._end_all(machine, operation.at_ms)
            case EndUnseenEvents():
                self._end_unseen(machine, operation)
            case ChangeState():
                self._change(machine, operation)
            case OpenSpan():
                self.close(machine, operation.kind, operation.start_ms)
                self.add(machine, None, operation.kind, operation.start_ms, None, 0, operation.what)
            case CloseSpan():
                self.close(machine, operation.kind, operation.end_ms)
            case AddMissed():
                self._missed(machine, operation)

    def add(
        self, machine: int, stream: int | None, kind: str, start_ms: int, end_ms: int | None, missed: int, what: str
    ) -> None:
        self._connection.execute(
            "INSERT INTO span (machine, stream, kind, start_ms, end_ms, missed, what) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (machine, stream, kind, start_ms, end_ms, missed, what),
        )

    def close(self, machine: int, kind: str, end_ms: int) -> None:
        """End the open spans of this kind, of all streams together."""
        self._connection.execute(
            "UPDATE span SET end_ms = max(start_ms, ?) "
            "WHERE machine = ? AND stream IS NULL AND kind = ? AND end_ms IS NULL",
            (end_ms, machine, kind),
        )

    def _begin(self, machine: int, begin: BeginRecording) -> None:
        seen_ms = self._connection.execute("SELECT seen_ms FROM machine WHERE id = ?", (machine,)).fetchone()[0]
        self._connection.execute(
            "UPDATE machine SET endpoint = ?, seen_ms = coalesce(seen_ms, ?) WHERE id = ?",
            (begin.endpoint, begin.at_ms, machine),
        )
        if seen_ms is None:
            return
        self._end_all(machine, seen_ms)
        self.add(machine, None, "history off", min(seen_ms, begin.at_ms), begin.at_ms, 0, "")

    def _end_all(self, machine: int, end_ms: int) -> None:
        self._connection.execute(
            "UPDATE span SET end_ms = max(start_ms, ?) WHERE machine = ? AND end_ms IS NULL", (end_ms, machine)
        )

    def _end_unseen(self, machine: int, end: EndUnseenEvents) -> None:
        rows = self._connection.execute(
            "SELECT event.id, stream.name, key FROM event INDEXED BY event_open JOIN stream ON stream.id = stream "
            "JOIN run ON run.id = run WHERE state = 0 AND stream.machine = ? AND (boot_id != ? OR start_ms < ?)",
            (machine, end.boot_id, end.begun_before_ms),
        ).fetchall()
        gone = [(UNSEEN, number) for number, stream, key in rows if (stream, key) not in end.open]
        self._connection.executemany("UPDATE event SET state = ? WHERE id = ?", gone)

    def _change(self, machine: int, change: ChangeState) -> None:
        stream = self._writer.stream(machine, change.stream)
        row = self._connection.execute(
            "SELECT id, kind, what FROM span WHERE machine = ? AND stream = ? AND end_ms IS NULL", (machine, stream)
        ).fetchone()
        if row and row[1:] == (change.kind, change.what):
            return
        if row:
            self._connection.execute("UPDATE span SET end_ms = max(start_ms, ?) WHERE id = ?", (change.at_ms, row[0]))
        if change.kind:
            self.add(machine, stream, change.kind, change.at_ms, None, 0, change.what)

    def _missed(self, machine: int, lost: AddMissed) -> None:
        stream = None if lost.stream is None else self._writer.stream(machine, lost.stream)
        row = self._connection.execute(
            "SELECT id FROM span WHERE start_ms >= ? AND machine = ? AND stream IS ? AND kind = ? AND what = ? "
            "AND end_ms >= ? ORDER BY id DESC LIMIT 1",
            (lost.start_ms - 60 * JOINED_MS, machine, stream, lost.kind, lost.what, lost.start_ms - JOINED_MS),
        ).fetchone()
        if row:
            self._connection.execute(
                "UPDATE span SET missed = missed + ?, end_ms = max(end_ms, ?) WHERE id = ?",
                (lost.missed, lost.end_ms, row[0]),
            )
        else:
            self.add(machine, stream, lost.kind, lost.start_ms, lost.end_ms, lost.missed, lost.what)


def is_temporary(error: Exception) -> bool:
    """Whether the same operations may succeed later: the disk is full or failing, or another program has a lock."""
    return getattr(error, "sqlite_errorname", "").startswith(TEMPORARY)


def details_of(message: Event, before: Details | None) -> Details:
    """What is stored of an event after this message, given what was stored before it."""
    why = message.explanation
    began, begin_score = ("", None) if before is None else (before.began, before.begin_score)
    if message.kind == "begin" and not began:
        began, begin_score = why.reason, why.score
    return Details(
        start_s=message.start_s,
        modalities=message.modalities,
        on=why.on,
        off=why.off,
        since=why.since,
        began=began,
        begin_score=begin_score,
        score=why.score,
        windows=why.windows,
        ended=why.reason if message.kind == "end" else "",
        continues=message.continues,
        # The latest message knows: a file that was expected may have been withheld since.
        snapshot=message.snapshot,
        clip=message.clip,
        withheld=message.withheld,
    )
