"""`perceiverd history run`: receives from all daemons and writes, for months. One loop on one thread.

Each turn receives what has arrived, writes it in one transaction, and does a step of the retention. What cannot be
written waits, up to a bound, and is counted beyond it. No daemon waits for this program: it is a subscriber.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from perceiverd.config import MetricsConfig
from perceiverd.core import logs
from perceiverd.core.errors import ConfigError, HistoryError
from perceiverd.core.http import Server
from perceiverd.core.logs import LogLimit, log_event, log_limited
from perceiverd.core.signals import stopping
from perceiverd.core.systemd import Notifier, watchdog_ns
from perceiverd.history.link import DaemonLink, moment
from perceiverd.history.metrics import ServiceCounts, pages
from perceiverd.history.opening import FILE, open_writer
from perceiverd.history.operations import Operation, StoreEvent
from perceiverd.history.pending import Pending
from perceiverd.history.recording import Now
from perceiverd.history.retention import Retention, size_of
from perceiverd.history.schema import VERSION
from perceiverd.history.settings import DaemonConfig, StoreConfig
from perceiverd.history.writing import HistoryWriter, is_temporary

logger = logging.getLogger("perceiverd.history")

IDLE_S = 0.05
"""How long a turn waits for a message if none has arrived from any daemon."""
TURN_MS = 1000
MIGRATION_S = 1800.0
"""How long systemd waits for the start: an update of the database took 15 s for a million events on a busy machine."""
RETENTION_S = 600.0
SYNC_S = 30.0
"""After a power cut at most this much is missing."""
RETRY_FIRST_S, RETRY_CAP_S = 1.0, 30.0
"""After a failed write the next attempt waits; the wait doubles from the first to the cap."""
RESERVE_BYTES = 100_000_000
"""This much stays free on the disk for other programs, and for the removal of old rows."""


class HistoryService:
    """The loop."""

    def __init__(self, path: Path, writer: HistoryWriter, store: StoreConfig, links: list[DaemonLink]) -> None:
        self.should_exit = False
        self.counts = ServiceCounts()
        self.links = links
        self._path, self._writer = path, writer
        self._retention = Retention(writer.connection, store.events_days, store.scores_days, store.max_mb * 1_000_000)
        self._retention_steps: Iterator[None] | None = None
        self._retention_s = time.monotonic()
        self._pending = Pending()
        self._last_turn_ms = 0
        self._synced_s = self._retry_at_s = 0.0
        self._retry_s = RETRY_FIRST_S
        self._failure_limit, self._refusal_limit = LogLimit(), LogLimit()
        self._notifier = Notifier.from_environment()
        self._watchdog_s = (watchdog_ns() or 0) / 1e9
        self._next_alive_s = 0.0

    def run(self) -> None:
        """Until a signal arrives."""
        with stopping(logger, self._stop):
            for link in self.links:
                self._add(list(link.recorder.begin(moment())))
            self._notifier.ready()  # without any daemon: they may come later, or leave and return
            while not self.should_exit:
                self._turn()
            self._notifier.stopping()
            log_event(logger, logging.INFO, "history-stopping")
            for link in self.links:
                self._add(list(link.recorder.end(moment())))
            self._retry_at_s = 0.0
            self._write()

    def _turn(self) -> None:
        received = [self._add(link.receive()) for link in self.links]
        if not any(received) and self.links:
            self._add(self.links[0].receive(1, IDLE_S))
        now = moment()
        if not 0 <= now.monotonic_ms - self._last_turn_ms < TURN_MS:
            self._last_turn_ms = now.monotonic_ms
            self._each_second(now)
        if self._pending:
            self._write()
        self._maintain()
        self.counts.turned_s = now_s = time.monotonic()
        if self._watchdog_s and now_s >= self._next_alive_s:
            self._next_alive_s = now_s + self._watchdog_s / 4
            self._notifier.alive()

    def _each_second(self, now: Now) -> None:
        for link in self.links:
            self._add(list(link.recorder.turn(now)))
        self.counts.size_bytes = size_of(self._path)
        with contextlib.suppress(OSError):  # the next write says what is wrong with the folder
            self.counts.free_bytes = self._free_bytes()
        silent = [link.recorder.machine for link in self.links if link.recorder.silent]
        heard = len(self.links) - len(silent)
        text = f"{heard} of {len(self.links)} daemons reached; {self.counts.size_bytes / 1e6:.0f} MB"
        if silent:
            text += f"; nothing from {', '.join(silent)}"
        self._notifier.status(f"{text}; nothing is stored: {self.counts.failing}" if self.counts.failing else text)

    def _add(self, operations: list[Operation]) -> bool:
        self.counts.lost += self._pending.add(operations, moment().utc_ms)
        self.counts.waiting = len(self._pending)
        return bool(operations)

    def _write(self) -> None:
        """Write what waits, unless the last attempt failed just now."""
        if time.monotonic() < self._retry_at_s:
            return
        operations = self._pending.all()
        try:
            self._check_space()
            self._apply(operations)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return
        self.counts.written += len(operations)
        self.counts.events += sum(isinstance(each, StoreEvent) for each in operations)
        self._recovered()

    def _apply(self, operations: Sequence[Operation]) -> None:
        """Write these in one transaction. What SQLite refuses for its content is dropped, so that it blocks nothing."""
        try:
            self._writer.apply(operations)
        except (sqlite3.Error, OverflowError) as error:
            if is_temporary(error):
                raise
            if len(operations) > 1:  # halves, so that the culprit is found in a few steps
                middle = len(operations) // 2
                self._apply(operations[:middle])
                self._apply(operations[middle:])
                return
            self.counts.refused += 1
            what = type(operations[0]).__name__
            log_limited(
                logger,
                logging.ERROR,
                "history-row-refused",
                self._refusal_limit,
                time.monotonic_ns(),
                what=what,
                reason=str(error),
            )

    def _check_space(self) -> None:
        if self._free_bytes() < RESERVE_BYTES:
            raise OSError(errno.ENOSPC, f"less than {RESERVE_BYTES // 1_000_000} MB are free")

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def _failed(self, error: sqlite3.Error | OSError) -> None:
        self.counts.failures += 1
        self.counts.failing = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        self._retry_at_s = time.monotonic() + self._retry_s
        self._retry_s = min(RETRY_CAP_S, self._retry_s * 2)
        log_limited(
            logger,
            logging.ERROR,
            "history-write-failed",
            self._failure_limit,
            time.monotonic_ns(),
            reason=self.counts.failing,
            waiting=len(self._pending),
            lost=self.counts.lost,
        )

    def _recovered(self) -> None:
        lost = self._pending.written(self.counts.failing, moment().utc_ms)
        if self.counts.failing:
            log_event(logger, logging.INFO, "history-write-recovered", lost=self.counts.lost)
        self.counts.failing, self._retry_s = "", RETRY_FIRST_S
        self._add(lost)

    def _maintain(self) -> None:
        """Do one step of the retention, or wait for the disk, if either is due."""
        now_s = time.monotonic()
        try:
            if self._retention_steps is not None:
                if next(self._retention_steps, self) is self:
                    self._retention_steps = None
                self.counts.removed = self._retention.removed
            elif now_s >= self._retention_s:
                self._retention_s = now_s + RETENTION_S
                self._retention_steps = self._retention.steps(moment().utc_ms)
            elif now_s >= self._synced_s + SYNC_S:
                self._synced_s = now_s
                self._writer.sync()
        except sqlite3.Error as error:
            self._retention_steps = None
            self._failed(error)

    def _stop(self) -> None:
        self.should_exit = True


def run(directory: Path, store: StoreConfig, daemons: Mapping[str, DaemonConfig], metrics: MetricsConfig) -> int:
    """Record these daemons in this folder until a signal arrives; returns 0.

    Raises ConfigError, HistoryError or WireError, one line each.
    """
    logs.to_stdout()
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o027))  # members of the folder's group may read
        _prepare(directory)
        stack.enter_context(_locked(directory))
        Notifier.from_environment().extend(MIGRATION_S)
        connection, before = open_writer(directory / FILE)
        writer = stack.enter_context(HistoryWriter(connection, store.least_score))
        if 0 < before < VERSION:
            log_event(logger, logging.INFO, "history-migrated", before=before, version=VERSION)
        links = []
        for name, daemon in daemons.items():
            links.append(DaemonLink(name, daemon, store.least_score))
            stack.callback(links[-1].close)
        service = HistoryService(directory / FILE, writer, store, links)
        if metrics.address is not None:
            server = stack.enter_context(
                Server(*metrics.address, pages(service.counts, [link.recorder for link in links]))
            )
            log_event(logger, logging.INFO, "metrics-listening", host=metrics.address[0], port=server.port)
        log_event(logger, logging.INFO, "history-started", database=str(directory / FILE), daemons=list(daemons))
        service.run()
    return 0


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory}: cannot make the folder: {error.strerror}; give another --directory") from error
    if directory.stat().st_mode & 0o007:
        raise ConfigError(f"{directory}: every user can read this folder; run: chmod o= {directory}")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the folder for this process. Raises HistoryError if another has it, ConfigError if it cannot be written."""
    # Not the database itself: closing any descriptor of it would drop SQLite's own locks (POSIX).
    path = directory / "lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ConfigError(
            f"{directory}: cannot write to the folder: {error.strerror}; give another --directory"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HistoryError(f"{directory}: another `perceiverd history run` writes here; stop that one") from None
        yield
    finally:
        os.close(lock)
