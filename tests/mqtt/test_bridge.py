"""`perceiverd bridge mqtt` as a process, between a real publisher and a real mosquitto that is stopped and started."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from perceiverd import mqtt as bridge
from perceiverd.core.errors import ConfigError
from perceiverd.mqtt.bridge import BridgeOptions, find_labels
from perceiverd.mqtt.broker import PASSWORD, QUEUED, Address, Outbox
from perceiverd.mqtt.homeassistant import MqttMessage
from perceiverd.wire.messages import Event
from perceiverd.wire.publisher import Publisher
from tests.support.messages import hello, status
from tests.support.messages import label_event as event

DEADLINE_S = 60
BRIDGE_MQTT = [sys.executable, "-m", "perceiverd", "bridge", "mqtt"]
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Debian package mosquitto")


class Mosquitto:
    """A broker on loopback that forgets everything at a restart."""

    def __init__(self, folder: Path, *settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.config = folder / "mosquitto.conf"
        settings = settings or ("allow_anonymous true",)
        self.config.write_text("\n".join([f"listener {self.port} 127.0.0.1", "persistence false", *settings]) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(self.config)], stderr=subprocess.DEVNULL)

        def answers() -> bool:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except ConnectionRefusedError:
                return False
            return True

        until(answers)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


class Watcher:
    """An MQTT client that records everything from its connection on."""

    def __init__(self, port: int, user: str | None = None, password: str | None = None) -> None:
        self.received: list[tuple[str, str, bool]] = []
        self.latest: dict[str, str] = {}
        """The last payload of each topic."""
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if user:
            self._client.username_pw_set(user, password)
        self._client.on_message = self._record
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", 1)
        self._client.loop_start()

    def _record(self, _: Any, __: Any, message: mqtt.MQTTMessage) -> None:
        payload = message.payload.decode()
        self.received.append((message.topic, payload, message.retain))
        self.latest[message.topic] = payload

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def payloads(self, topic: str) -> list[str]:
        return [payload for received, payload, _ in list(self.received) if received == topic]


class Home:
    """A publisher that repeats a status, a broker, and bridges between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = Mosquitto(folder)
        self.broker.start()
        self.publisher = Publisher("tcp://127.0.0.1:*")
        self.publisher.send(hello("door"))
        self.watchers: list[Watcher] = []
        self.bridges: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.close()
        for process in self.bridges:
            process.kill()
            process.wait()
        self.publisher.close()
        self.broker.stop()

    def bridge(self, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        address = f"mqtt://127.0.0.1:{self.broker.port}"
        words = ["--endpoint", self.publisher.endpoint, *(() if "--broker" in options else ("--broker", address))]
        with self.log.open("a") as log:
            started = subprocess.Popen(
                [*BRIDGE_MQTT, *words, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
            )
        self.bridges.append(started)
        return started

    def watch(self, *login: str) -> Watcher:
        self.watchers.append(Watcher(self.broker.port, *login))
        return self.watchers[-1]

    def publish(self, *events: Event) -> None:
        for each in events:
            self.publisher.send(each)

    def until(self, done: Callable[[], bool]) -> None:
        """Publish heartbeats until `done`."""

        def turn() -> bool:
            self.publisher.handle_subscribers()
            self.publisher.send(status("door"))
            return done()

        until(turn, lambda: self.log.read_text() if self.log.exists() else "")


def until(done: Callable[[], bool], why: Callable[[], str] = str) -> None:
    """Wait until `done`; `why` describes what to look at if that takes too long."""
    end_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < end_s, why()
        time.sleep(0.05)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    try:
        yield made
    finally:
        made.close()


DOG = "perceiverd/door/dog/state"
SENSOR = "homeassistant/binary_sensor/perceiverd-door/dog/config"
BRIDGE, DOOR = "perceiverd/availability", "perceiverd/door/availability"


@needs_mosquitto
def test_events_reach_the_broker(home: Home) -> None:
    """Sensors and states are retained for later clients, and each message of an event is sent once."""
    early = home.watch()
    bridge = home.bridge("--label", "dog")
    home.until(lambda: early.latest.get(DOOR) == "online" and DOG in early.latest)
    home.publish(event("begin", "Dog"))
    home.until(lambda: early.latest.get(DOG) == "ON")
    late = home.watch()
    home.until(lambda: late.latest.get(DOG) == "ON" and BRIDGE in late.latest)
    home.publish(event("end", "Dog", reason="faded"))
    home.until(lambda: late.latest[DOG] == "OFF" and len(late.payloads("perceiverd/door/events")) == 1)
    home.until(lambda: early.latest[DOG] == "OFF" and len(early.payloads("perceiverd/door/events")) == 2)
    assert {retained for topic, _, retained in late.received if topic == SENSOR} == {True}
    assert (early.payloads(DOG), late.payloads(DOG)) == (["OFF", "ON", "OFF"], ["ON", "OFF"])
    assert len(early.payloads(SENSOR)) == len(late.payloads(SENSOR)) == 1
    kinds = [json.loads(payload)["kind"] for payload in early.payloads("perceiverd/door/events")]
    assert kinds == ["begin", "end"]
    bridge.send_signal(signal.SIGTERM)
    assert bridge.wait(DEADLINE_S) == 0
    until(lambda: early.latest[BRIDGE] == "offline")
    assert "Traceback" not in home.log.read_text()


@needs_mosquitto
def test_a_restarted_broker_receives_everything(home: Home) -> None:
    """It receives the current states, one announcement of each sensor, and the messages of events that waited."""
    home.bridge("--label", "Dog", "--label", "Speech")
    before = home.watch()
    home.until(lambda: before.latest.get(DOG) == "OFF")
    home.publish(event("begin", "Dog"))
    home.until(lambda: before.latest[DOG] == "ON")
    assert len(before.payloads(SENSOR)) == 1
    home.broker.stop()
    home.until(lambda: "broker-disconnected" in home.log.read_text())
    home.publish(event("end", "Dog", reason="faded"), event("begin", "Speech"), event("begin", "Cat"))
    home.until(lambda: True)
    home.broker.start()
    after = home.watch()
    topics = ["dog", "speech", "cat"]
    home.until(lambda: [after.latest.get(f"perceiverd/door/{each}/state") for each in topics] == ["OFF", "ON", "ON"])
    home.until(lambda: len(after.payloads("perceiverd/door/events")) >= 3 and BRIDGE in after.latest)
    assert after.latest[BRIDGE] == after.latest[DOOR] == "online"
    for each in topics:
        assert len(after.payloads(f"homeassistant/binary_sensor/perceiverd-door/{each}/config")) == 1
    passed = [json.loads(payload) for payload in after.payloads("perceiverd/door/events")]
    assert [(each["kind"], each["name"]) for each in passed][-3:] == [
        ("end", "Dog"),
        ("begin", "Speech"),
        ("begin", "Cat"),
    ]


@needs_mosquitto
def test_a_killed_bridge_is_offline_and_the_next_one_corrects_its_topics(home: Home) -> None:
    """Its last will marks it offline, and a label whose event ended meanwhile turns off."""
    first, watcher = home.bridge(), home.watch()
    home.until(lambda: watcher.latest.get(DOOR) == "online")
    home.publish(event("begin", "Dog"))
    home.until(lambda: watcher.latest.get(DOG) == "ON")
    first.kill()
    first.wait()
    until(lambda: watcher.latest[BRIDGE] == "offline")
    home.publish(event("end", "Dog", reason="faded"))
    home.bridge()
    home.until(lambda: watcher.latest[BRIDGE] == "online" and watcher.latest[DOG] == "OFF")


@needs_mosquitto
def test_a_stale_daemon_is_unavailable(home: Home) -> None:
    """Its streams are offline until it publishes again; the bridge itself stays online."""
    home.bridge()
    watcher = home.watch()
    home.until(lambda: watcher.latest.get(DOOR) == "online")
    until(lambda: watcher.latest[DOOR] == "offline")
    assert watcher.latest[BRIDGE] == "online"
    home.until(lambda: watcher.latest[DOOR] == "online")


@needs_mosquitto
def test_an_encrypted_link_with_a_password(home: Home, tmp_path: Path) -> None:
    """A wrong password and an untrusted certificate are logged once each, and the log has no password."""
    home.broker.stop()
    (tmp_path / "users").touch(mode=0o600)
    ca = tmp_path / "ca.pem"
    try:
        subprocess.run(["mosquitto_passwd", "-b", tmp_path / "users", "me", "right secret"], check=True)
        subprocess.run(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
            f"-addext subjectAltName=DNS:localhost -keyout {tmp_path}/key.pem -out {ca}".split(),
            check=True,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        pytest.skip(f"needs {error.filename}")
    settings = [f"password_file {tmp_path}/users", f"certfile {ca}", f"keyfile {tmp_path}/key.pem", "user root"]
    home.broker = Mosquitto(tmp_path, *settings)
    home.broker.start()
    options = ["--broker", f"mqtts://me@localhost:{home.broker.port}"]
    wrong = home.bridge(*options, "--ca", str(ca), **{PASSWORD: "wrong secret"})
    home.until(lambda: "Not authorized" in home.log.read_text())
    time.sleep(1)  # it tries again, and logs nothing more
    wrong.send_signal(signal.SIGTERM)
    assert wrong.wait(DEADLINE_S) == 0
    distrusting = home.bridge(*options, **{PASSWORD: "right secret"})
    home.until(lambda: "CERTIFICATE_VERIFY_FAILED" in home.log.read_text())
    distrusting.kill()
    home.bridge(*options, "--ca", str(ca), **{PASSWORD: "right secret"})
    home.until(lambda: "broker-connected broker=localhost" in home.log.read_text())
    log = home.log.read_text()
    assert log.count("broker-refused broker=") == 1
    assert log.count("broker-unreachable broker=") == 1
    assert "secret" not in log


def test_a_bridge_without_broker_and_daemon_waits(tmp_path: Path) -> None:
    """It logs that the broker is missing, feeds systemd's watchdog, and ends at once on SIGTERM."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(DEADLINE_S)
        bridge = subprocess.Popen(
            [*BRIDGE_MQTT, "--endpoint", f"ipc://{tmp_path}/labels", "--broker", "mqtt://127.0.0.1:1"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"},
        )
        try:
            notified = [systemd.recv(100) for _ in range(4)]
            bridge.send_signal(signal.SIGTERM)
            log, _ = bridge.communicate(timeout=DEADLINE_S)
        finally:
            bridge.kill()
    assert notified == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert log.count("broker-unreachable broker=127.0.0.1:1 reason=") == 1
    assert bridge.returncode == 0


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", Address("broker", 1883, None, False)),
        ("mqtts://me@broker/", Address("broker", 8883, "me", True)),
        ("mqtt://m%40e@[::1]:1884", Address("::1", 1884, "m@e", False)),
    ],
)
def test_addresses_are_parsed(url: str, address: Address) -> None:
    """A missing port is the usual one of the scheme."""
    assert Address.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "broker",
        "http://broker",
        "mqtt://",
        "mqtt://b:0",
        "mqtt://b:x",
        "mqtt://b/a",
        "mqtt://u:secret@b",
        "mqtt://u:secret@[b",
    ],
)
def test_an_invalid_address_is_one_line(url: str) -> None:
    """The error does not repeat a password."""
    with pytest.raises(
        ConfigError, match=r"^--broker: .*(expected mqtt://USER@HOST:PORT|set PERCEIVERD_MQTT)"
    ) as caught:
        Address.parse(url)
    assert "secret" not in str(caught.value)


def test_invalid_options_are_one_line() -> None:
    """A topic with a wildcard, and an unknown label with a suggestion."""
    with pytest.raises(ConfigError, match="--prefix: invalid topic 'a/#'"):
        bridge.run(BridgeOptions("ipc://x", "mqtt://b", prefix="a/#"))
    with pytest.raises(ConfigError, match="--label: unknown label 'dogg'; did you mean 'Dog'"):
        find_labels(["dogg"])
    assert [label.name for label in find_labels(["dog", "/m/04rlf"])] == ["Dog", "Music"]


def test_the_outbox_has_the_latest_payloads_and_counts_what_it_drops() -> None:
    """It gives the latest retained payloads first, and then the newest QUEUED other messages in order."""
    box = Outbox()
    box.put(MqttMessage("a", str(i).encode(), False) for i in range(QUEUED + 5))
    box.put([MqttMessage("b", b"old", True), MqttMessage("c", b"", True), MqttMessage("b", b"new", True)])
    assert box.dropped == 5
    assert [box.pop() for _ in range(3)] == [
        MqttMessage("b", b"new", True),
        MqttMessage("c", b"", True),
        MqttMessage("a", b"5", False),
    ]
    box.put_back([MqttMessage("a", b"3", False), MqttMessage("b", b"older", True), MqttMessage("a", b"4", False)])
    assert [message.payload for message in iter(box.pop, None)][:3] == [b"3", b"4", b"6"]
    assert not box
