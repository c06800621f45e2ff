"""Kills the history again and again while a daemon publishes: `python -m tests.support.history_kills ENDPOINT FOLDER`.

A watcher receives everything that the daemon publishes. An event that it received while a history ran must be in the
database, unless it came within MARGIN_S of the history's first message or of its kill. The latency of the daemon's
labels is compared with a time without any history.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

from perceiverd.core.errors import HistoryError
from perceiverd.history import HistoryReader
from perceiverd.history.opening import FILE
from perceiverd.wire import Event, Scores, Subscription, subscribe

MARGIN_S = 0.5


@dataclass
class Watcher:
    """What the daemon has published."""

    subscription: Subscription
    latencies_ms: list[float] = field(default_factory=list)
    messages: list[tuple[float, Event]] = field(default_factory=list)
    """Messages of events, with the time at which they came."""

    def watch(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            item = self.subscription.receive(left_s)
            if isinstance(item, Scores):
                self.latencies_ms.append(item.latency_ms)
            elif isinstance(item, Event) and not item.repeated:
                self.messages.append((time.monotonic(), item))


def spread(values: Sequence[float]) -> str:
    """Median and 95th percentile."""
    return f"median {median(values):.0f} ms, 95 % below {quantiles(values, n=20)[-1]:.0f} ms, of {len(values)} windows"


def starts(database: Path) -> int:
    """How often a history has started to record and heard the daemon; -1 if none has."""
    try:
        with HistoryReader(database) as reader:
            rows = reader.spans(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    except (HistoryError, sqlite3.Error):
        return -1
    hears = any(each.kind == "up" and each.end is None for each in rows)
    return sum(each.kind == "history off" for each in rows) if hears else -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--before", type=float, default=60)
    arguments = parser.parse_args()
    database, rng = arguments.folder / FILE, random.Random(4)
    command = [sys.executable, "-m", "perceiverd", "history", "run", "--endpoint", arguments.endpoint]
    command += ["--directory", str(arguments.folder)]
    with subscribe(arguments.endpoint, ("scores/", "events/")) as subscription:
        watcher = Watcher(subscription)
        watcher.watch(10)
        watcher.latencies_ms.clear()
        watcher.watch(arguments.before)
        print("without a history:", spread(watcher.latencies_ms), flush=True)
        watcher.latencies_ms.clear()
        ran: list[tuple[float, float]] = []
        for kill in range(arguments.kills):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                while starts(database) < kill:
                    watcher.watch(0.05)
                begun_s = time.monotonic()
                watcher.watch(rng.uniform(0.2, 3))
                ran.append((begun_s, time.monotonic()))
                process.kill()
            with sqlite3.connect(database) as connection:
                if (found := connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                    print(f"kill {kill}: {found}")
            connection.close()
        print(f"while it was killed {arguments.kills} times:", spread(watcher.latencies_ms), flush=True)
    with HistoryReader(database) as reader:
        stored = {(each.boot_id, each.stream, each.key): each.state for each in reader.every()}
    due = lost = 0
    for at_s, event in watcher.messages:
        if any(begun + MARGIN_S < at_s < end - MARGIN_S for begun, end in ran):
            due += 1
            state = stored.get((event.boot_id, event.stream, event.id))
            lost += state is None or (event.kind == "end" and state != "ended")
    print(f"{len(watcher.messages)} messages of events; {due} while a history ran, {lost} of these not stored")


if __name__ == "__main__":
    main()
