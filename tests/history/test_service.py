"""`perceiverd history run` as a process, between real publishers; killed, stopped, and with a full disk."""

import json
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from perceiverd.cli.app import app
from perceiverd.core.errors import HistoryError
from perceiverd.history import HistoryReader, SpanRow, StoredEvent
from perceiverd.history.opening import FILE
from perceiverd.wire.auth import Authenticator
from perceiverd.wire.keys import create_pair
from perceiverd.wire.publisher import Publisher
from tests.support import messages
from tests.support.history import at
from tests.support.messages import LOOPBACK, hello

DEADLINE_S = 60
HISTORY = [sys.executable, "-m", "perceiverd", "history"]


class Daemon:
    """A publisher that sends heartbeats, and events with numbers as their keys."""

    def __init__(self, stream: str = "door") -> None:
        self.stream, self.publisher, self.sent = stream, Publisher(LOOPBACK), 0
        self.publisher.send(hello(stream))
        self.slowest_s = 0.0
        self._beat_s = 0.0

    def send_event(self) -> str:
        """An event that begins and ends at once; returns its key."""
        self.sent += 1
        for kind in ("begin", "end"):
            made = messages.label_event(kind, "Dog", stream=self.stream, id_=str(self.sent))
            before_s = time.monotonic()
            self.publisher.send(msgspec.structs.replace(made, start=at(self.sent), end=at(self.sent + 1)))
            self.slowest_s = max(self.slowest_s, time.monotonic() - before_s)
        return str(self.sent)

    def beat(self) -> None:
        """Attend to subscribers; a heartbeat and scores every tenth of a second."""
        self.publisher.handle_subscribers()
        if time.monotonic() >= self._beat_s:
            self._beat_s = time.monotonic() + 0.1
            self.publisher.send(messages.status(self.stream))
            self.publisher.send(messages.scores(self.stream))


class House:
    """Daemons, and a history that records them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "history", folder / "log"
        self.daemons = [Daemon()]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def database(self) -> Path:
        return self.folder / FILE

    def start(self, *options: str, limit_bytes: int | None = None) -> None:
        addresses = [f"m{i}={each.publisher.endpoint}" for i, each in enumerate(self.daemons)]
        endpoints = [word for address in addresses for word in ("--endpoint", address)]

        def limit() -> None:
            if limit_bytes:  # a disk that is full: no file of the process may grow beyond this
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))

        with self.log.open("a") as log:
            words = [*HISTORY, "run", "--directory", str(self.folder), *endpoints, *options]
            self.process = subprocess.Popen(words, stdout=log, stderr=log, preexec_fn=limit)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        self.until(lambda: self.process is not None and self.process.poll() is not None)
        return self.process.returncode

    def until(self, done: Callable[[], bool]) -> None:
        """Run the daemons until `done`."""
        end_s = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < end_s, self.log.read_text() if self.log.exists() else "no log"
            for daemon in self.daemons:
                daemon.beat()
            time.sleep(0.002)

    def run_for(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end_s)

    def recording(self, starts_before: int = 0) -> bool:
        """Whether the history of now, the one after so many others, has received a heartbeat."""
        try:
            starts = len(self.spans("history off"))
        except HistoryError:  # the tables are not made yet
            return False
        return starts >= starts_before and any(each.end is None for each in self.spans("up"))

    def has(self, key: str) -> bool:
        return key in self.keys()

    def stored(self) -> list[StoredEvent]:
        if not self.database.exists():
            return []
        with HistoryReader(self.database) as reader:
            return list(reader.every())

    def keys(self) -> set[str]:
        return {each.key for each in self.stored()}

    def spans(self, *kinds: str) -> list[SpanRow]:
        with HistoryReader(self.database) as reader:
            return list(reader.spans(at(-1e9), at(1e9), kinds=kinds))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.kill()
    for daemon in made.daemons:
        daemon.publisher.close()


def intact(database: Path) -> bool:
    """Whether SQLite finds no fault in the file."""
    with sqlite3.connect(database) as connection:
        fine = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        fine = fine and connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    return fine


@pytest.mark.long
def test_kills_lose_nothing_that_was_received(house: House) -> None:
    """Killed at random moments: what was stored stays, what comes later is stored, and the file is intact."""
    rng, stored = random.Random(1), set[str]()
    for kills in range(3):
        house.start()
        house.until(partial(house.recording, kills))
        first = house.daemons[0].send_event()
        house.until(partial(house.has, first))
        until_s = time.monotonic() + rng.uniform(0.2, 1)
        while time.monotonic() < until_s:
            house.daemons[0].send_event()
            house.run_for(0.02)
        stored |= house.keys()
        house.kill()
        assert stored - house.keys() == set()
    house.start()
    house.until(partial(house.recording, 3))
    later = {house.daemons[0].send_event() for _ in range(100)}
    house.until(lambda: later <= house.keys())
    assert house.stop() == 0
    assert intact(house.database)
    assert len(house.stored()) == len(house.keys())


def test_two_daemons_are_recorded_and_one_is_silent(house: House) -> None:
    """The silence of one is a row of its own and stalls nothing."""
    house.daemons.append(Daemon("yard"))
    house.start()
    house.until(house.recording)
    silent, loud = house.daemons
    house.daemons = [loud]
    house.until(lambda: bool(house.spans("daemon silent")))
    key = loud.send_event()
    house.until(lambda: [(each.machine, each.stream, each.key) for each in house.stored()] == [("m1", "yard", key)])
    assert [(each.machine, each.end) for each in house.spans("daemon silent")] == [("m0", None)]
    silent.publisher.close()


def test_a_daemon_that_encrypts_is_recorded(house: House, tmp_path: Path) -> None:
    """The configuration has its public key and our own secret key, below the folder of the file."""
    clients = tmp_path / "clients"
    clients.mkdir()
    create_pair("daemon", tmp_path)
    create_pair("history", tmp_path)
    (tmp_path / "history.key").rename(clients / "history.key")
    (daemon,) = house.daemons
    daemon.publisher.close()
    daemon.publisher = Publisher(LOOPBACK, authenticator=Authenticator(tmp_path / "daemon.key_secret", clients))
    daemon.publisher.send(hello("door"))
    settings = tmp_path / "history.toml"
    keys = 'server_key = "daemon.key"\nsecret_key = "history.key_secret"\n'
    settings.write_text(f'[daemons.barn]\nendpoint = "{daemon.publisher.endpoint}"\n{keys}')
    house.daemons = []
    house.start("--config", str(settings))
    house.daemons = [daemon]
    house.until(house.recording)
    daemon.send_event()
    house.until(lambda: [each.machine for each in house.stored()] == ["barn"])


def test_a_full_disk_loses_nothing_at_first(house: House) -> None:
    """What cannot be written waits in memory; the database stays intact, and a new process goes on with it."""
    house.start()
    house.until(house.recording)
    house.daemons[0].send_event()
    house.until(lambda: len(house.stored()) == 1)
    assert house.stop() == 0
    house.start(limit_bytes=house.database.stat().st_size + 8192)
    house.until(partial(house.recording, 1))
    keys = {house.daemons[0].send_event() for _ in range(300)}
    house.until(lambda: "history-write-failed" in house.log.read_text())
    assert house.process
    assert house.process.poll() is None
    resource.prlimit(house.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    house.until(lambda: keys <= house.keys())
    assert "history-write-recovered lost=0" in house.log.read_text()
    assert house.stop() == 0
    assert intact(house.database)


def test_a_second_history_is_refused(house: House) -> None:
    """Two writers in one folder would count everything twice."""
    house.start()
    house.until(lambda: house.database.exists())
    words = [*HISTORY, "run", "--directory", str(house.folder), "--endpoint", "ipc:///nowhere"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 1
    assert done.stderr.endswith("another `perceiverd history run` writes here; stop that one\n")


def test_losses_are_rows(house: House) -> None:
    """A history that is stopped for a while misses messages, and says how many."""
    house.start()
    house.until(house.recording)
    assert house.process
    house.process.send_signal(signal.SIGSTOP)
    for _ in range(4000):
        house.daemons[0].send_event()
        house.daemons[0].publisher.handle_subscribers()
    house.process.send_signal(signal.SIGCONT)
    house.until(lambda: any(each.what == "events" for each in house.spans("messages missed")))

    def accounted() -> int:
        stored = sum(2 if each.details.began else 1 for each in house.stored() if each.state == "ended")
        stored += sum(each.state != "ended" for each in house.stored())
        return stored + sum(each.missed for each in house.spans("messages missed") if each.what == "events")

    house.until(lambda: accounted() >= 8000)  # on a busy machine, it takes a while to store all that came
    house.run_for(1.5)
    assert accounted() == 8000


def test_metrics_are_served(house: House, tmp_path: Path) -> None:
    """Counts of messages, losses and sizes, and whether each daemon is heard."""
    settings = tmp_path / "history.toml"
    settings.write_text('[metrics]\nendpoint = "127.0.0.1:*"\n')
    house.start("--config", str(settings))
    house.until(house.recording)
    house.daemons[0].send_event()
    house.until(lambda: [event.state for event in house.stored()] == ["ended"])
    port = house.log.read_text().partition("metrics-listening host=127.0.0.1 port=")[2].split()[0]

    def metrics() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as page:
            text: str = page.read().decode()
            return text

    house.until(lambda: "perceiverd_history_events_stored_total 2.0" in metrics())  # counted after they are stored
    text = metrics()
    assert 'perceiverd_history_daemon_up{machine="m0"} 1.0' in text
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=DEADLINE_S) as page:
        assert page.read() == b"ok\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--endpoint", "tcp://x"], "--endpoint: endpoint must be ipc://PATH or tcp://HOST:PORT, not 'tcp://x'"),
        (["--endpoint", "a b=ipc:///x"], "--endpoint: invalid name 'a b'; use up to 64 letters, digits, _, . and -"),
        (
            ["--endpoint", "ipc:///x", "--endpoint", "ipc:///y"],
            "--endpoint: two daemons have the name 'local'; give them names: NAME=ipc:///y",
        ),
        ([], "there is no folder for the history; give --directory, or set store.directory in the configuration"),
        (["--directory", "/"], "/: every user can read this folder; run: chmod o= /"),
    ],
)
def test_wrong_options_are_one_line(words: list[str], expected: str) -> None:
    """With the status of a wrong configuration, after which systemd does not restart the service."""
    done = CliRunner().invoke(app, ["history", "run", *words], env={"STATE_DIRECTORY": ""})
    assert (done.exit_code, done.stderr) == (78, f"perceiverd: {expected}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[store]\nmax_gb = 3", "$.store.max_gb: unknown option; did you mean 'max_mb'?"),
        ("[daemons.barn]\nendpiont = 'ipc:///x'", "$.daemons.barn.endpiont: unknown option; did you mean 'endpoint'?"),
        ("[daemons.barn]\nendpoint = 'ipc:///x'\nserver_key = 'k'", "server_key and secret_key belong together"),
        ("[daemon.barn]\n", "$.daemon: unknown option; did you mean 'daemons'?"),
        ("daemons = 3", "$.daemons: expected tables [daemons.NAME]"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    """It names the place and suggests a repair."""
    settings = tmp_path / "history.toml"
    settings.write_text(text)
    done = CliRunner().invoke(app, ["history", "run", "--config", str(settings)])
    assert done.exit_code == 78
    assert done.stderr.startswith(f"perceiverd: {settings}: ") and expected in done.stderr
    assert done.stderr.count("\n") == 1


def test_commands_print_what_is_stored(house: House) -> None:
    """list, show, stats, export and backup, of a real history."""
    house.start()
    house.until(house.recording)
    house.daemons[0].send_event()
    house.until(lambda: len(house.stored()) == 1)

    def command(*words: str) -> str:
        done = CliRunner().invoke(app, ["history", *words, "--database", str(house.database)])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "m0/door" in command("list") and "Dog" in command("list", "--label", "animal")
    assert command("list", "--label", "Music", "--after", "2026-01-01", "--format", "jsonl") == ""
    assert "faded" not in command("show", "1")
    (line,) = command("export").splitlines()
    assert json.loads(line)["label"] == "Dog"
    assert command("export", "--format", "csv").splitlines()[0].startswith("id,machine,stream,mid,label,start,end")
    assert command("export", "states", "--format", "csv").startswith("machine,stream,kind,start,end,missed,what\n")
    assert command("stats").startswith("1 events from 2026-01-31")
    assert "checked" in command("backup", str(house.folder / "copy"))
