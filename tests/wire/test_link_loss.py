"""A link that is cut and mended, strangers that knock by the thousand, and daemons that are killed: real ones."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import jsonschema
import pytest
import zmq

from perceiverd.wire import publisher, schema
from perceiverd.wire.client import Restarted, subscribe
from perceiverd.wire.messages import Hello, Scores, Status
from perceiverd.wire.publisher import Publisher
from tests.support.messages import DEADLINE_S, LOOPBACK, scores, subscribed, until
from tests.support.program import Start

SPEAKER = """
import sys, time
from tests.support.messages import hello, status
from perceiverd.wire.publisher import Publisher
import msgspec
with Publisher(sys.argv[1]) as publisher:
    publisher.send(msgspec.structs.replace(hello(), status_interval_s=0.2))
    while True:
        publisher.attend()
        publisher.send(status())
        time.sleep(0.1)
"""
LISTENER = """
import sys
from perceiverd.wire import client
client.RENEW_S = 1.0
for item in client.subscribe(sys.argv[1]):
    print(type(item).__name__, getattr(item, "missed", getattr(item, "seconds", "")), flush=True)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def two_machines() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them; 10.99.0.1 is in the first."""
    here, there = f"pd{os.getpid()}a", f"pd{os.getpid()}b"
    with ExitStack() as undo:
        try:
            for name in (here, there):
                ip("netns", "add", name)
                undo.callback(ip, "netns", "del", name)
            ip("-n", here, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", there)
            for name, address in ((here, "10.99.0.1/30"), (there, "10.99.0.2/30")):
                ip("-n", name, "addr", "add", address, "dev", "cable")
                ip("-n", name, "link", "set", "cable", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield here, there


def heard(lines: IO[str], wanted: str) -> str:
    """The next line of this kind."""
    end_s = time.monotonic() + DEADLINE_S
    for line in lines:
        if line.startswith(wanted):
            return line
        assert time.monotonic() < end_s, f"no {wanted}"
    raise AssertionError("it ended")


def test_a_cable_that_is_pulled_and_put_back(two_machines: tuple[str, str]) -> None:
    """The client says that it hears nothing, then how much it missed, and goes on; to the same daemon."""
    here, there = two_machines
    endpoint, environment = "tcp://10.99.0.1:5599", os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with ExitStack() as opened:

        def run(where: str, program: str) -> "subprocess.Popen[str]":
            command = ["ip", "netns", "exec", where, sys.executable, "-c", program, endpoint]
            process = opened.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path.cwd())
            )
            opened.callback(process.kill)
            return process

        run(here, SPEAKER)
        lines = run(there, LISTENER).stdout
        assert lines
        heard(lines, "Status")
        ip("-n", there, "link", "set", "cable", "down")
        while float(heard(lines, "Stale").split()[1]) < 3:  # a shorter cut costs no message: TCP sends again
            pass
        ip("-n", there, "link", "set", "cable", "up")
        assert int(heard(lines, "Gap").split()[1]) > 0
        assert heard(lines, "S").startswith(("Status", "Stale"))
        heard(lines, "Status")


PAUSING = """
import sys, time
from perceiverd.wire import client
client.HIGH_WATER_MARK = 1
subscription = client.subscribe(sys.argv[1])
for number in range(40):
    subscription.hear()
    if number % 10 == 0:
        time.sleep(1)
print(subscription.missed)
"""


def test_a_reader_that_pauses_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off while its queues were full, it reads what it had, subscribes anew and goes on; ZeroMQ does not end it."""
    monkeypatch.setattr(publisher, "HEARTBEAT_MS", 100)
    monkeypatch.setattr(publisher, "HEARTBEAT_TIMEOUT_MS", 300)
    with Publisher(LOOPBACK, high_water_mark=5) as speaker:
        command = [sys.executable, "-c", PAUSING, speaker.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            while reader.poll() is None:
                speaker.attend()
                speaker.send(scores(padding=300_000))
                time.sleep(0.005)
            assert reader.stdout
            assert reader.returncode == 0
            assert int(reader.stdout.read()) > 0


KNOCKING = """
import os, socket, sys
held = []
for number in range(int(sys.argv[2])):
    held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60))
    if number % 3 == 0:
        held[-1].sendall(os.urandom(100))
    if len(held) > 200:
        held.pop(0).close()
"""


def test_strangers_that_knock_by_the_thousand() -> None:
    """They are let go of without a trace; who is there misses nothing meanwhile, and who comes is let in."""
    with Publisher(LOOPBACK) as speaker, subscribed(speaker) as reader:
        port = speaker.endpoint.rpartition(":")[2]
        before = len([*Path("/proc/self/fd").iterdir()])
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before + 300
        with subprocess.Popen([sys.executable, "-c", KNOCKING, port, "2000"]) as knocking:
            while knocking.poll() is None:
                speaker.attend()
                speaker.send(scores())
                assert isinstance(reader.receive(DEADLINE_S), Scores)
        assert knocking.returncode == 0
        assert reader.missed == 0
        # Random bytes can be ZeroMQ's first protocol, whose subscribers take everything; they leave as they came.
        until(speaker, lambda: speaker.subscriptions == 1)
        with subscribed(speaker) as late:
            speaker.send(scores())
            assert isinstance(late.receive(DEADLINE_S), Scores)
        end_s = time.monotonic() + DEADLINE_S
        while len([*Path("/proc/self/fd").iterdir()]) > before + 5:
            assert time.monotonic() < end_s
            time.sleep(0.05)


@pytest.mark.timeout(300)  # torch is loaded three times
def test_a_daemon_that_is_killed_and_started_again(tiny_model: Path, tmp_path: Path, start: Start) -> None:
    """The running client tells of the new daemon and goes on; what both say, to plain subscribers too, is valid."""
    config, log, endpoint = tmp_path / "perceiverd.toml", tmp_path / "log", f"ipc://{tmp_path}/labels"
    config.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        publish = {{ endpoint = "{endpoint}", status_interval_s = 0.2 }}
        streams.a.sources = [{{ kind = "synthetic" }}]
    """)
    validator = jsonschema.Draft202012Validator(json.loads(schema.FILE.read_text(encoding="utf-8")))
    daemon = start("run", "--config", str(config), log=log)
    with (
        zmq.Context() as context,
        context.socket(zmq.SUB) as plain,
        subscribe(endpoint, ("", "explain/a/"), timeout_s=120) as subscription,
    ):
        plain.connect(endpoint)
        plain.subscribe(b"")
        items = iter(subscription)
        first = next(item.boot_id for item in items if isinstance(item, Scores))
        daemon.kill()
        daemon.wait()
        daemon = start("run", "--config", str(config), log=log)
        told = next(item for item in items if isinstance(item, Restarted))
        assert told.before == first != told.boot_id
        assert {next(item.boot_id for item in items if isinstance(item, kind)) for kind in (Hello, Status, Scores)} == {
            told.boot_id
        }
        kinds: set[str] = set()
        while plain.poll(200) and not kinds >= {"hello", "scores", "status", "explain"}:
            said = json.loads(plain.recv_multipart()[1])
            validator.validate(said)
            kinds.add(said["type"])
        assert kinds >= {"hello", "scores", "status"}
        plain.close(linger=0)
    daemon.terminate()
    assert daemon.wait(DEADLINE_S) == 0
