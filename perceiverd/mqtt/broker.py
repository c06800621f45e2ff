"""The link to an MQTT broker: connects, tells it what is waiting, and connects again for as long as it lives.

It belongs to one thread. What the broker should keep is told as it is now, not as it was on the way there; passing
notes wait in a queue with an end, and are counted where they find no room. A broker that was away is told all anew.
"""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from perceiverd.core.errors import ConfigError
from perceiverd.mqtt.homeassistant import OFFLINE, ONLINE, MqttMessage, TopicState

logger = logging.getLogger(__name__)

PASSWORD = "PERCEIVERD_MQTT_PASSWORD"
"""The environment variable that holds the password."""
PORTS = {"mqtt": 1883, "mqtts": 8883}
QUEUED = 1000
"""Passing notes that wait for a broker that is away or slow; the oldest go first."""
UNACKNOWLEDGED = 20
"""Notes on their way at once."""
CONNECT_S = 5.0
"""Until a connection stands, and again until the broker has answered on it."""
KEEPALIVE_S = 20
"""A broker that is frozen, or cut off without a word, is noticed after one and a half of it; so are we."""
BACKOFF_FIRST_S, BACKOFF_CAP_S = 0.25, 30.0
FAREWELL_S = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is, and who we are there; without the password."""

    host: str
    port: int
    user: str | None
    encrypted: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """`mqtt://user@host:1883`, `mqtts://host`. Raises ConfigError, which repeats no password."""
        try:
            parts = urlsplit(url)
            host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
        except ValueError:
            raise ConfigError("--broker is no address; expected mqtt://USER@HOST:PORT or mqtts://...") from None
        if password is not None:
            raise ConfigError(f"--broker holds a password, which every user of this machine could see; set {PASSWORD}")
        if parts.scheme not in PORTS or not host or parts.path not in ("", "/") or parts.query or port == 0:
            raise ConfigError(f"--broker {url} is no broker; expected mqtt://USER@HOST:PORT or mqtts://...")
        return cls(host, port or PORTS[parts.scheme], unquote(user) if user else None, parts.scheme == "mqtts")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Outbox:
    """What the broker is yet to be told."""

    def __init__(self) -> None:
        self.dropped = 0
        """Passing notes that found no room."""
        self._kept: dict[str, bytes] = {}
        self._passing: deque[MqttMessage] = deque()

    def put(self, notes: Iterable[MqttMessage]) -> None:
        for note in notes:
            if note.kept:
                self._kept[note.topic] = note.payload
                continue
            self._passing.append(note)
            if len(self._passing) > QUEUED:
                self._passing.popleft()
                self.dropped += 1

    def put_back(self, notes: Iterable[MqttMessage]) -> None:
        """These were on their way when the link broke: passing ones are first in line again."""
        self._passing.extendleft(reversed([note for note in notes if not note.kept]))

    def take(self) -> MqttMessage | None:
        """The next one; what is to be kept goes first."""
        for topic in self._kept:
            return MqttMessage(topic, self._kept.pop(topic), kept=True)
        return self._passing.popleft() if self._passing else None

    def __bool__(self) -> bool:
        return bool(self._kept or self._passing)


class Broker:
    """A context manager: at its end the broker is told that we are gone."""

    def __init__(
        self, address: Address, password: str | None, prefix: str, mirror: TopicState, ca: Path | None = None
    ) -> None:
        """Tells what the mirror shows, all of it to every new connection.

        Raises ConfigError where the authority's certificate can't be used.
        """
        self.outbox = Outbox()
        self.connected = False
        self._address, self._password, self._prefix, self._mirror = address, password, prefix, mirror
        self._tls = _context(ca) if address.encrypted else None
        self._client: mqtt.Client | None = None
        self._unacknowledged: dict[int, MqttMessage] = {}
        self._retry_s, self._tries, self._deadline_s = 0.0, 0, 0.0
        self._told = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Say good-bye: what waits is sent, for FAREWELL_S at most, then that we are offline."""
        end_s = time.monotonic() + FAREWELL_S
        if self.connected:
            self.outbox.put([MqttMessage(self._mirror.availability, OFFLINE, kept=True)])
        while self.connected and (self.outbox or self._unacknowledged) and time.monotonic() < end_s:
            self.turn(0.05)
        if self._client and self.connected:
            self._client.disconnect()
            self._client.loop(0.1)

    def turn(self, wait_s: float) -> None:
        """Connect where that is due, send what there is room for, hear the broker; takes little longer than `wait_s`.

        Connecting may take CONNECT_S, and as long as the resolver takes for a name.
        """
        if self._client is None:
            if time.monotonic() >= self._retry_s:
                self._connect()
            else:
                time.sleep(min(wait_s, max(0.0, self._retry_s - time.monotonic())))
            return
        self._send()
        # Once more after what came in has made room, so that a burst doesn't wait for the next turn.
        code = self._client.loop(wait_s)
        if code != mqtt.MQTT_ERR_SUCCESS:
            self._lost(mqtt.error_string(code))
        elif not self.connected and time.monotonic() >= self._deadline_s:
            self._lost("no answer")
        else:
            self._send()

    def _connect(self) -> None:
        # The same name as before: where the broker still holds the old link, it ends it, and our last will with it.
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self._prefix.replace("/", "-"))
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(UNACKNOWLEDGED)
        if self._address.user is not None:
            client.username_pw_set(self._address.user, self._password)
        if self._tls:
            client.tls_set_context(self._tls)
        client.will_set(self._mirror.availability, OFFLINE, qos=1, retain=True)
        client.on_connect, client.on_publish, client.on_message = self._on_connect, self._on_publish, self._on_message
        self._client, self._deadline_s = client, time.monotonic() + 2 * CONNECT_S
        try:
            client.connect(self._address.host, self._address.port, KEEPALIVE_S)
        except OSError as error:  # of TLS, and of resolving the name, too
            self._lost(str(error))

    def _send(self) -> None:
        while self.connected and self._client and len(self._unacknowledged) < UNACKNOWLEDGED:
            if (note := self.outbox.take()) is None:
                return
            sent = self._client.publish(note.topic, note.payload, qos=1, retain=note.kept)
            self._unacknowledged[sent.mid] = note

    def _on_connect(self, client: mqtt.Client, __: Any, ___: Any, code: ReasonCode, ____: Any) -> None:
        if code.is_failure:  # the broker hangs up; `turn` will find out
            self._deadline_s = 0.0
            self._tell(f"refused broker={self._address} reason={str(code)!r}")
            return
        logger.info("connected broker=%s user=%s", self._address, self._address.user)
        self.connected, self._tries, self._told = True, 0, ""
        # What it has kept from an earlier life of ours, which may no longer be so.
        client.subscribe([(topic, 0) for topic in self._mirror.recalled_from])
        # It may have been away and have forgotten everything.
        self.outbox.put([MqttMessage(self._mirror.availability, ONLINE, kept=True)])
        self.outbox.put(MqttMessage(topic, payload, kept=True) for topic, payload in self._mirror.kept.items())

    def _on_publish(self, _: Any, __: Any, number: int, ___: Any, ____: Any) -> None:
        self._unacknowledged.pop(number, None)

    def _on_message(self, _: Any, __: Any, message: mqtt.MQTTMessage) -> None:
        if message.retain:  # our own notes come back too, without this mark
            self.outbox.put(self._mirror.recall(message.topic))

    def _lost(self, why: str) -> None:
        if self.connected:
            logger.warning("disconnected broker=%s reason=%r", self._address, why)
        elif self._deadline_s:  # a refusal has been told already
            self._tell(f"unreachable broker={self._address} reason={why!r}")
        # paho would repeat what was on its way, old values after new ones; a new client does not.
        self._client, self.connected = None, False
        self.outbox.put_back(self._unacknowledged.values())
        self._unacknowledged = {}
        wait_s = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** min(self._tries, 30)) * random.uniform(0.5, 1)
        self._tries += 1
        self._retry_s = time.monotonic() + wait_s

    def _tell(self, line: str) -> None:
        """Once for each fault, not at each try for months."""
        if line != self._told:
            logger.warning("%s", line)
        self._told = line


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigError(f"{ca}: cannot be used as the authority's certificate: {error.strerror}") from error
