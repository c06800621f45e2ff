"""Cut links, thousands of foreign connections and killed daemons, all of them real."""

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

from perceiverd.wire import Hello, Restarted, Scores, Status, publisher, schema, subscribe
from perceiverd.wire.publisher import Publisher
from tests.support.messages import DEADLINE_S, LOOPBACK, scores, subscribed, until
from tests.support.program import Start

PUBLISHING = """
import sys, time
from tests.support.messages import hello, status
from perceiverd.wire.publisher import Publisher
with Publisher(sys.argv[1]) as publisher:
    publisher.send(hello(status_interval_s=0.2))
    while True:
        publisher.handle_subscribers()
        publisher.send(status())
        time.sleep(0.1)
"""
SUBSCRIBING = """
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


def next_line(lines: IO[str], wanted: str) -> str:
    """The next line that starts so."""
    end_s = time.monotonic() + DEADLINE_S
    for line in lines:
        if line.startswith(wanted):
            return line
        assert time.monotonic() < end_s, f"no {wanted} within {DEADLINE_S} s"
    raise AssertionError("the program ended")


def test_a_pulled_cable_is_noticed_and_survived(two_machines: tuple[str, str]) -> None:
    """The client reports that nothing is received, then its losses, and receives again, from the same daemon."""
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

        run(here, PUBLISHING)
        lines = run(there, SUBSCRIBING).stdout
        assert lines
        next_line(lines, "Status")
        ip("-n", there, "link", "set", "cable", "down")
        assert float(next_line(lines, "Stale").split()[1]) >= 3  # after a shorter cut TCP loses no message
        ip("-n", there, "link", "set", "cable", "up")
        assert int(next_line(lines, "Gap").split()[1]) > 0
        assert next_line(lines, "S").startswith(("Status", "Stale"))
        next_line(lines, "Status")


PAUSING = """
import sys, time
from perceiverd.wire import client
client.HIGH_WATER_MARK = 1
subscription = client.subscribe(sys.argv[1])
for number in range(40):
    subscription.receive()
    if number % 10 == 0:
        time.sleep(1)
print(subscription.missed)
"""


def test_a_reader_that_pauses_reconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was disconnected while its queues were full. It reads what it has and reconnects; ZeroMQ does not abort it."""
    monkeypatch.setattr(publisher, "HEARTBEAT_MS", 100)
    monkeypatch.setattr(publisher, "HEARTBEAT_TIMEOUT_MS", 300)
    with Publisher(LOOPBACK, high_water_mark=5) as publishing:
        command = [sys.executable, "-c", PAUSING, publishing.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            while reader.poll() is None:
                publishing.handle_subscribers()
                publishing.send(scores(padding=300_000))
                time.sleep(0.005)
            assert reader.stdout
            assert reader.returncode == 0
            assert int(reader.stdout.read()) > 0


CONNECTING = """
import os, socket, sys
held = []
for number in range(int(sys.argv[2])):
    held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60))
    if number % 3 == 0:
        held[-1].sendall(os.urandom(100))
    if len(held) > 200:
        held.pop(0).close()
"""


def test_thousands_of_foreign_connections_do_no_harm() -> None:
    """They leave no open files. A subscriber misses nothing meanwhile, and a new one is admitted."""
    with Publisher(LOOPBACK) as publishing, subscribed(publishing) as reader:
        port = publishing.endpoint.rpartition(":")[2]
        before = len([*Path("/proc/self/fd").iterdir()])
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before + 300
        with subprocess.Popen([sys.executable, "-c", CONNECTING, port, "2000"]) as connecting:
            while connecting.poll() is None:
                publishing.handle_subscribers()
                publishing.send(scores())
                assert isinstance(reader.receive_message(DEADLINE_S), Scores)
        assert connecting.returncode == 0
        assert reader.missed == 0
        # Random bytes can be valid in the first version of ZeroMQ's protocol, whose subscribers receive everything.
        until(publishing, lambda: publishing.subscriptions == 1)
        with subscribed(publishing) as late:
            publishing.send(scores())
            assert isinstance(late.receive_message(DEADLINE_S), Scores)
        end_s = time.monotonic() + DEADLINE_S
        while len([*Path("/proc/self/fd").iterdir()]) > before + 5:
            assert time.monotonic() < end_s
            time.sleep(0.05)


@pytest.mark.timeout(300)  # torch is loaded three times
def test_a_killed_and_restarted_daemon(tiny_model: Path, tmp_path: Path, start: Start) -> None:
    """The client reports the restart and receives again. All messages are valid, also for a plain subscriber."""
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
        restarted = next(item for item in items if isinstance(item, Restarted))
        assert restarted.before == first != restarted.boot_id
        assert {next(item.boot_id for item in items if isinstance(item, kind)) for kind in (Hello, Status, Scores)} == {
            restarted.boot_id
        }
        kinds: set[str] = set()
        while not kinds >= {"hello", "scores", "status"}:
            assert plain.poll(DEADLINE_S * 1000), kinds
            received = json.loads(plain.recv_multipart()[1])
            validator.validate(received)
            kinds.add(received["type"])
        plain.close(linger=0)
    daemon.terminate()
    assert daemon.wait(DEADLINE_S) == 0
