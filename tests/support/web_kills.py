"""Kills page and history again and again while a daemon publishes: `python -m tests.support.web_kills ENDPOINT FOLDER`.

A browser follows the page while it runs. A watcher receives everything that the daemon publishes: an event that it
received while a history ran must be in the database, unless it came within MARGIN_S of the history's first message or
of its kill. The latency of the daemon's labels is compared with that during the same kills of programs that subscribe
to nothing: starting a program a hundred times takes CPU time from the daemon, too. The rounds of both alternate.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import random
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from perceiverd.history import HistoryReader
from perceiverd.history.opening import FILE
from perceiverd.wire import subscribe
from tests.support.history_kills import MARGIN_S, Watcher, spread, starts

PROGRAM = ["nice", "-n", "10", sys.executable, "-m", "perceiverd"]
"""A start costs a second of CPU time, which a service of the machine would not take from the daemon a hundred times."""
READY_S = 60.0


@dataclass
class Victim:
    """One of the two programs."""

    name: str
    words: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0
    began_s: float = 0.0
    ran: list[tuple[float, float]] = field(default_factory=list)
    """When it ran and was ready, on the monotonic clock."""

    def start(self) -> None:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.words, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.process
        self.ran.append((self.began_s, time.monotonic()))
        self.process.kill()
        self.process.wait()
        self.kills += 1


def follow(log: Path) -> contextlib.closing[http.client.HTTPConnection]:
    """A browser that follows the page whose log this is; it need not read."""
    port = int(log.read_text().partition("page=http://127.0.0.1:")[2].partition("/")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/api/1/live")
    connection.getresponse()
    return contextlib.closing(connection)


def is_damaged(database: Path) -> bool:
    """Whether SQLite finds a fault in the file."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return bool(connection.execute("PRAGMA quick_check").fetchone()[0] != "ok")


def pair(endpoint: str, folder: Path) -> tuple[Victim, Victim]:
    """A history and a page of the daemon at this endpoint."""
    folder.mkdir(mode=0o750, exist_ok=True)
    source = ["--endpoint", f"m={endpoint}"]
    history = [*PROGRAM, "history", "run", "--directory", str(folder), *source]
    page = [*PROGRAM, "web", "--listen", "127.0.0.1:*", "--history", str(folder), *source]
    return Victim("history", history, folder / "h.log"), Victim("page", page, folder / "w.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--each", type=int, default=10, help="kills in one round")
    arguments = parser.parse_args()
    database, rng = arguments.folder / FILE, random.Random(5)
    history, page = pair(arguments.endpoint, arguments.folder)
    elsewhere = pair("ipc:///nowhere", arguments.folder / "elsewhere")
    damaged = 0
    with subscribe(arguments.endpoint, ("scores/", "events/")) as subscription, contextlib.ExitStack() as stack:
        watcher = Watcher(subscription)
        watcher.watch(5)
        latencies_ms: dict[str, list[float]] = {"elsewhere": [], "at the daemon": []}

        def begin(victim: Victim) -> None:
            victim.start()
            end_s = time.monotonic() + READY_S
            while f"{'web' if victim.name == 'page' else 'history'}-started" not in victim.log.read_text() or (
                victim is history and starts(database) < history.kills
            ):
                assert time.monotonic() < end_s, victim.log.read_text()
                watcher.watch(0.05)
            victim.began_s = time.monotonic()
            if victim is page:
                stack.enter_context(follow(page.log))

        def kill(victim: Victim) -> None:
            nonlocal damaged
            victim.kill()
            if victim.name == "history":
                damaged += is_damaged(victim.log.with_name(FILE))

        for _ in range(-(-arguments.kills // arguments.each)):
            for where, victims in (("elsewhere", elsewhere), ("at the daemon", (history, page))):
                for victim in victims:
                    begin(victim)
                watcher.latencies_ms.clear()
                for _ in range(arguments.each):
                    watcher.watch(rng.uniform(0.2, 2))
                    victim = rng.choice(victims)
                    kill(victim)
                    begin(victim)
                latencies_ms[where] += watcher.latencies_ms
                watcher.watch(1)
                for victim in victims:
                    kill(victim)
        print(f"{page.kills} kills of the page, {history.kills} of the history; latency of labels while it was killed")
        for where, found in latencies_ms.items():
            print(f"  {where}: {spread(found)}", flush=True)
        missed = subscription.missed
    with HistoryReader(database) as reader:
        stored = {(each.boot_id, each.stream, each.key): each.state for each in reader.every()}
    due = lost = 0
    for at_s, event in watcher.messages:
        if any(begun + MARGIN_S < at_s < end - MARGIN_S for begun, end in history.ran):
            due += 1
            state = stored.get((event.boot_id, event.stream, event.id))
            lost += state is None or (event.kind == "end" and state != "ended")
    print(f"{len(watcher.messages)} messages of events, {missed} missed by the watcher;", end=" ")
    print(f"{due} came while a history ran, {lost} of these are not stored; {damaged} times the database was damaged")


if __name__ == "__main__":
    main()
