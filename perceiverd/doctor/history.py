"""Checks of the event history, if the machine has one. They change nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from perceiverd.core.errors import HistoryError
from perceiverd.core.paths import SERVICE_HISTORY
from perceiverd.doctor.checks import Finding
from perceiverd.history import HistoryReader, MachineRow
from perceiverd.history.clock_offset import MARKED_MS
from perceiverd.history.retention import size_of
from perceiverd.history.service import RESERVE_BYTES

SILENT_S = 60.0
"""If the history has received nothing from a daemon for longer than this, the daemon is silent."""


def history(path: Path = SERVICE_HISTORY) -> Iterator[Finding]:
    """Whether the history can be read, has space left, and hears its daemons; nothing if there is no history."""
    try:
        if not path.exists():
            return
        free_bytes = os.statvfs(path.parent)
        with HistoryReader(path) as reader:
            machines, count = reader.machines(), len(reader.streams())
    except PermissionError:
        return  # another user's: only root and members of its group may look
    except (HistoryError, OSError, sqlite3.Error) as error:
        yield Finding("history", "fault", str(error), "restore a backup, or move the file away and restart the history")
        return
    free = free_bytes.f_bavail * free_bytes.f_frsize
    if free < RESERVE_BYTES:
        what = f"{path}: only {free >> 20} MB are free on this disk, so nothing is stored"
        yield Finding(
            "history", "fault", what, "free some space, or set store.directory in /etc/perceiverd/history.toml"
        )
    for machine in machines:
        yield from _of_machine(machine)
    yield Finding("history", "ok", f"{path}: {count} streams, {size_of(path) / 1e6:.0f} MB")


def _of_machine(machine: MachineRow) -> Iterator[Finding]:
    silent_s = SILENT_S + 1 if machine.seen is None else (datetime.now(UTC) - machine.seen).total_seconds()
    if silent_s > SILENT_S:
        since = "yet" if machine.seen is None else f"since {machine.seen:%Y-%m-%d %H:%M:%S} UTC"
        what = f"no message of the daemon '{machine.name}' ({machine.endpoint}) has been stored {since}"
        yield Finding("history", "warning", what, "check that the daemon and perceiverd-history run")
    if machine.offset_s is not None and abs(machine.offset_s) > MARKED_MS / 1000:
        what = f"the clock of '{machine.name}' differs by {machine.offset_s:+.1f} s from the clock of this machine"
        yield Finding(
            "history", "warning", what, "switch on time synchronisation (timedatectl set-ntp true) on both machines"
        )
