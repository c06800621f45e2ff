"""`perceiverd bridge mqtt` as a process, between a real publisher and a real mosquitto that comes and goes."""

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

from perceiverd.core.errors import ConfigError
from perceiverd.mqtt.bridge import BridgeOptions, find
from perceiverd.mqtt.bridge import mqtt as bridge_mqtt
from perceiverd.mqtt.broker import PASSWORD, QUEUED, Address, Outbox
from perceiverd.mqtt.homeassistant import MqttMessage
from perceiverd.wire.messages import Event
from perceiverd.wire.publisher import Publisher
from tests.mqtt.test_homeassistant import event, hello, status

DEADLINE_S = 60
BRIDGE_MQTT = [sys.executable, "-m", "perceiverd", "bridge", "mqtt"]
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Debian package mosquitto")


class Mosquitto:
    """A broker on loopback that keeps nothing over a restart."""

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
    """Somebody's home: hears everything from the moment at which it connects."""

    def __init__(self, port: int, user: str | None = None, password: str | None = None) -> None:
        self.heard: list[tuple[str, str, bool]] = []
        self.kept: dict[str, str] = {}
        """The last payload of each topic."""
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if user:
            self._client.username_pw_set(user, password)
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", 1)
        self._client.loop_start()

    def _hear(self, _: Any, __: Any, message: mqtt.MQTTMessage) -> None:
        payload = message.payload.decode()
        self.heard.append((message.topic, payload, message.retain))
        self.kept[message.topic] = payload

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def payloads(self, topic: str) -> list[str]:
        return [payload for heard, payload, _ in list(self.heard) if heard == topic]


class Home:
    """A publisher that says the same status again and again, a broker, and bridges between them."""

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
        for bridge in self.bridges:
            bridge.kill()
            bridge.wait()
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

    def say(self, *events: Event) -> None:
        for each in events:
            self.publisher.send(each)

    def until(self, done: Callable[[], bool]) -> None:
        """Goes on with the heartbeat meanwhile."""

        def turn() -> bool:
            self.publisher.handle_subscribers()
            self.publisher.send(status("door"))
            return done()

        until(turn, lambda: self.log.read_text() if self.log.exists() else "")


def until(done: Callable[[], bool], why: Callable[[], str] = str) -> None:
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
def test_a_home_hears_of_events(home: Home) -> None:
    """Sensors, their states and their stream, kept for those who come late; each message of an event passes by once."""
    early = home.watch()
    bridge = home.bridge("--label", "dog")
    home.until(lambda: early.kept.get(DOOR) == "online" and DOG in early.kept)
    home.say(event("begin", "Dog"))
    home.until(lambda: early.kept.get(DOG) == "ON")
    late = home.watch()
    home.until(lambda: late.kept.get(DOG) == "ON" and BRIDGE in late.kept)
    home.say(event("end", "Dog", reason="faded"))
    home.until(lambda: late.kept[DOG] == "OFF" and len(late.payloads("perceiverd/door/events")) == 1)
    assert {retained for topic, _, retained in late.heard if topic == SENSOR} == {True}
    assert (early.payloads(DOG), late.payloads(DOG)) == (["OFF", "ON", "OFF"], ["ON", "OFF"])
    assert len(early.payloads(SENSOR)) == len(late.payloads(SENSOR)) == 1
    kinds = [json.loads(payload)["kind"] for payload in early.payloads("perceiverd/door/events")]
    assert kinds == ["begin", "end"]
    bridge.send_signal(signal.SIGTERM)
    assert bridge.wait(DEADLINE_S) == 0
    until(lambda: early.kept[BRIDGE] == "offline")
    assert "Traceback" not in home.log.read_text()


@needs_mosquitto
def test_a_broker_that_was_away_is_told_everything(home: Home) -> None:
    """What changed meanwhile is as it is now, each sensor is announced once, and the events' messages waited."""
    home.bridge("--label", "Dog", "--label", "Speech")
    before = home.watch()
    home.until(lambda: before.kept.get(DOG) == "OFF")
    home.say(event("begin", "Dog"))
    home.until(lambda: before.kept[DOG] == "ON")
    assert len(before.payloads(SENSOR)) == 1
    home.broker.stop()
    home.until(lambda: "disconnected" in home.log.read_text())
    home.say(event("end", "Dog", reason="faded"), event("begin", "Speech"), event("begin", "Cat"))
    home.until(lambda: True)
    home.broker.start()
    after = home.watch()
    topics = ["dog", "speech", "cat"]
    home.until(lambda: [after.kept.get(f"perceiverd/door/{each}/state") for each in topics] == ["OFF", "ON", "ON"])
    home.until(lambda: len(after.payloads("perceiverd/door/events")) >= 3 and BRIDGE in after.kept)
    assert after.kept[BRIDGE] == after.kept[DOOR] == "online"
    for each in topics:
        assert len(after.payloads(f"homeassistant/binary_sensor/perceiverd-door/{each}/config")) == 1
    passed = [json.loads(payload) for payload in after.payloads("perceiverd/door/events")]
    assert [(each["kind"], each["name"]) for each in passed][-3:] == [
        ("end", "Dog"),
        ("begin", "Speech"),
        ("begin", "Cat"),
    ]


@needs_mosquitto
def test_a_killed_bridge_is_offline_and_its_heir_sets_things_right(home: Home) -> None:
    """By the last will; and a label whose event ended meanwhile does not stay on for ever."""
    first, watcher = home.bridge(), home.watch()
    home.until(lambda: watcher.kept.get(DOOR) == "online")
    home.say(event("begin", "Dog"))
    home.until(lambda: watcher.kept.get(DOG) == "ON")
    first.kill()
    first.wait()
    until(lambda: watcher.kept[BRIDGE] == "offline")
    home.say(event("end", "Dog", reason="faded"))
    home.bridge()
    home.until(lambda: watcher.kept[BRIDGE] == "online" and watcher.kept[DOG] == "OFF")


@needs_mosquitto
def test_a_silent_daemon_is_unavailable(home: Home) -> None:
    """Its streams are offline until it is heard again; the bridge itself stays online."""
    home.bridge()
    watcher = home.watch()
    home.until(lambda: watcher.kept.get(DOOR) == "online")
    until(lambda: watcher.kept[DOOR] == "offline")
    assert watcher.kept[BRIDGE] == "online"
    home.until(lambda: watcher.kept[DOOR] == "online")


@needs_mosquitto
def test_the_password_opens_an_encrypted_link_and_is_told_to_nobody(home: Home, tmp_path: Path) -> None:
    """A wrong one is told in a line, once; so is a broker whose certificate nobody vouches for."""
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
    time.sleep(1)  # it goes on trying, and says no more
    wrong.send_signal(signal.SIGTERM)
    assert wrong.wait(DEADLINE_S) == 0
    stranger = home.bridge(*options, **{PASSWORD: "right secret"})
    home.until(lambda: "CERTIFICATE_VERIFY_FAILED" in home.log.read_text())
    stranger.kill()
    home.bridge(*options, "--ca", str(ca), **{PASSWORD: "right secret"})
    home.until(lambda: "connected broker=localhost" in home.log.read_text())
    log = home.log.read_text()
    assert log.count("refused broker=") == 1
    assert log.count("unreachable broker=") == 1
    assert "secret" not in log


def test_a_bridge_without_broker_and_daemon_waits(tmp_path: Path) -> None:
    """It says what is missing, tells systemd that it works, and ends at once when it is told to."""
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
            told = [systemd.recv(100) for _ in range(4)]
            bridge.send_signal(signal.SIGTERM)
            log, _ = bridge.communicate(timeout=DEADLINE_S)
        finally:
            bridge.kill()
    assert told == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert log.count("unreachable broker=127.0.0.1:1 reason=") == 1
    assert bridge.returncode == 0


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", Address("broker", 1883, None, False)),
        ("mqtts://me@broker/", Address("broker", 8883, "me", True)),
        ("mqtt://m%40e@[::1]:1884", Address("::1", 1884, "m@e", False)),
    ],
)
def test_addresses_are_read(url: str, address: Address) -> None:
    """With the ports that are usual where none is given."""
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
def test_addresses_that_are_none_are_one_line(url: str) -> None:
    """Without the password that may be in it."""
    with pytest.raises(
        ConfigError, match=r"^--broker .*(expected mqtt://USER@HOST:PORT|set PERCEIVERD_MQTT)"
    ) as caught:
        Address.parse(url)
    assert "secret" not in str(caught.value)


def test_options_that_cannot_be_meant_are_one_line() -> None:
    """Topics with wildcards, and labels that are none, with the one that may be meant."""
    with pytest.raises(ConfigError, match="--prefix 'a/#' is no topic"):
        bridge_mqtt(BridgeOptions("ipc://x", "mqtt://b", prefix="a/#"))
    with pytest.raises(ConfigError, match="--label 'dogg' is no label of AudioSet; did you mean 'Dog'"):
        find(["dogg"])
    assert [label.name for label in find(["dog", "/m/04rlf"])] == ["Dog", "Music"]


def test_the_outbox_keeps_what_is_true_and_counts_what_it_drops() -> None:
    """The newest value of what is kept, first; of passing notes the newest QUEUED, in order."""
    box = Outbox()
    box.put(MqttMessage("a", str(i).encode(), False) for i in range(QUEUED + 5))
    box.put([MqttMessage("b", b"old", True), MqttMessage("c", b"", True), MqttMessage("b", b"new", True)])
    assert box.dropped == 5
    assert [box.take() for _ in range(3)] == [
        MqttMessage("b", b"new", True),
        MqttMessage("c", b"", True),
        MqttMessage("a", b"5", False),
    ]
    box.put_back([MqttMessage("a", b"3", False), MqttMessage("b", b"older", True), MqttMessage("a", b"4", False)])
    assert [note.payload for note in iter(box.take, None)][:3] == [b"3", b"4", b"6"]
    assert not box
