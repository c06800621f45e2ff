"""The link to an MQTT broker: connects, sends what is waiting, and reconnects without limit.

It is used on one thread. Retained messages are sent with their latest payload only. Other messages wait in a bounded
queue, and are counted if it is full. After a reconnection every retained message is sent again.
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
from perceiverd.core.logs import log_event
from perceiverd.mqtt.homeassistant import OFFLINE, ONLINE, MqttMessage, TopicState

logger = logging.getLogger("perceiverd.mqtt")

PASSWORD = "PERCEIVERD_MQTT_PASSWORD"
"""The environment variable that holds the password."""
PORTS = {"mqtt": 1883, "mqtts": 8883}
"""The usual port of each scheme."""
FORM = "mqtt://USER@HOST:PORT or mqtts://USER@HOST:PORT"
QUEUED = 1000
"""Messages that may wait for a broker that is away or slow, not counting retained ones. The oldest are dropped."""
UNACKNOWLEDGED = 20
"""Messages sent before the broker has acknowledged the first of them."""
CONNECT_S = 5.0
"""Time limit for a connection, and again for the broker's answer on it."""
KEEPALIVE_S = 20
"""Both sides notice a frozen or unreachable peer after one and a half times this long."""
BACKOFF_FIRST_S, BACKOFF_CAP_S = 0.25, 30.0
"""The wait before a new attempt doubles from the first to the cap."""
FAREWELL_S = 2.0
"""How long the last messages may take at the end."""


@dataclass(frozen=True, slots=True)
class Address:
    """The broker's host and port, and the user name there, without the password."""

    host: str
    port: int
    user: str | None
    encrypted: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """From `mqtt://user@host:1883` or `mqtts://host`. Raises ConfigError, without a password that may be in it."""
        try:
            parts = urlsplit(url)
            host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
        except ValueError:
            raise ConfigError(f"--broker: invalid address; expected {FORM}") from None
        if password is not None:
            raise ConfigError(f"--broker: every user of this machine can see a password in an option; set {PASSWORD}")
        if parts.scheme not in PORTS or not host or parts.path not in ("", "/") or parts.query or port == 0:
            raise ConfigError(f"--broker: invalid address {url!r}; expected {FORM}")
        return cls(host, port or PORTS[parts.scheme], unquote(user) if user else None, parts.scheme == "mqtts")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Outbox:
    """The messages that wait to be sent."""

    def __init__(self) -> None:
        self.dropped = 0
        """Messages dropped because the queue was full."""
        self._retained: dict[str, bytes] = {}
        self._queue: deque[MqttMessage] = deque()

    def put(self, messages: Iterable[MqttMessage]) -> None:
        for message in messages:
            if message.retain:
                self._retained[message.topic] = message.payload
                continue
            self._queue.append(message)
            if len(self._queue) > QUEUED:
                self._queue.popleft()
                self.dropped += 1

    def put_back(self, messages: Iterable[MqttMessage]) -> None:
        """Queue unacknowledged messages of a lost link again, in front. Retained ones are left out."""
        self._queue.extendleft(reversed([message for message in messages if not message.retain]))

    def pop(self) -> MqttMessage | None:
        """The next message, retained ones first; None if nothing waits."""
        for topic in self._retained:
            return MqttMessage(topic, self._retained.pop(topic), retain=True)
        return self._queue.popleft() if self._queue else None

    def __bool__(self) -> bool:
        return bool(self._retained or self._queue)


class Broker:
    """The link to the broker. A context manager: at its end the bridge is marked offline."""

    def __init__(
        self, address: Address, password: str | None, prefix: str, state: TopicState, ca: Path | None = None
    ) -> None:
        """Sends all that `state` retains on every new connection.

        `ca` is the certificate of the authority, None for those that the system trusts. Raises ConfigError if it cannot
        be used.
        """
        self.outbox = Outbox()
        self.connected = False
        self._address, self._password, self._prefix, self._state = address, password, prefix, state
        self._tls = _context(ca) if address.encrypted else None
        self._client: mqtt.Client | None = None
        self._unacknowledged: dict[int, MqttMessage] = {}
        self._retry_s, self._attempts, self._deadline_s = 0.0, 0, 0.0
        self._last_failure = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Send what waits, for FAREWELL_S at most, and then that the bridge is offline."""
        end_s = time.monotonic() + FAREWELL_S
        if self.connected:
            self.outbox.put([MqttMessage(self._state.availability, OFFLINE, retain=True)])
        while self.connected and (self.outbox or self._unacknowledged) and time.monotonic() < end_s:
            self.run_once(0.05)
        if self._client and self.connected:
            self._client.disconnect()
            self._client.loop(0.1)

    def run_once(self, wait_s: float) -> None:
        """Connect if it is time to, send what the broker accepts, and read from it. Takes about `wait_s` at most.

        An attempt to connect may take CONNECT_S, and the resolver's time for a name.
        """
        if self._client is None:
            if time.monotonic() >= self._retry_s:
                self._connect()
            else:
                time.sleep(min(wait_s, max(0.0, self._retry_s - time.monotonic())))
            return
        self._send()
        code = self._client.loop(wait_s)
        if code != mqtt.MQTT_ERR_SUCCESS:
            self._disconnected(mqtt.error_string(code))
        elif not self.connected and time.monotonic() >= self._deadline_s:
            self._disconnected("no answer")
        else:
            self._send()  # acknowledgements have made room, so that a burst need not wait for the next call

    def _connect(self) -> None:
        # The client id is always the same. If the broker still holds an old link, it ends that one with its last will.
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self._prefix.replace("/", "-"))
        client.connect_timeout = CONNECT_S
        client.max_inflight_messages_set(UNACKNOWLEDGED)
        if self._address.user is not None:
            client.username_pw_set(self._address.user, self._password)
        if self._tls:
            client.tls_set_context(self._tls)
        client.will_set(self._state.availability, OFFLINE, qos=1, retain=True)
        client.on_connect, client.on_publish, client.on_message = self._on_connect, self._on_publish, self._on_message
        self._client, self._deadline_s = client, time.monotonic() + 2 * CONNECT_S
        try:
            client.connect(self._address.host, self._address.port, KEEPALIVE_S)
        except OSError as error:  # also from TLS and from resolving the name
            self._disconnected(str(error))

    def _send(self) -> None:
        while self.connected and self._client and len(self._unacknowledged) < UNACKNOWLEDGED:
            if (message := self.outbox.pop()) is None:
                return
            sent = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
            self._unacknowledged[sent.mid] = message

    def _on_connect(self, client: mqtt.Client, __: Any, ___: Any, code: ReasonCode, ____: Any) -> None:
        if code.is_failure:  # the broker will close the link, and `run_once` notices it
            self._deadline_s = 0.0
            reason = str(code)
            if self._is_new_failure(reason):
                log_event(logger, logging.WARNING, "broker-refused", broker=str(self._address), reason=reason)
            return
        log_event(logger, logging.INFO, "broker-connected", broker=str(self._address), user=self._address.user)
        self.connected, self._attempts, self._last_failure = True, 0, ""
        # The broker may have retained messages of an earlier run that are no longer true.
        client.subscribe([(topic, 0) for topic in self._state.restored_topics])
        # A broker that was restarted may have lost everything.
        self.outbox.put([MqttMessage(self._state.availability, ONLINE, retain=True)])
        self.outbox.put(MqttMessage(topic, payload, retain=True) for topic, payload in self._state.retained.items())

    def _on_publish(self, _: Any, __: Any, number: int, ___: Any, ____: Any) -> None:
        self._unacknowledged.pop(number, None)

    def _on_message(self, _: Any, __: Any, message: mqtt.MQTTMessage) -> None:
        if message.retain:  # our own messages arrive here too, without this flag
            self.outbox.put(self._state.restore(message.topic))

    def _disconnected(self, reason: str) -> None:
        if self.connected:
            log_event(logger, logging.WARNING, "broker-disconnected", broker=str(self._address), reason=reason)
        elif self._deadline_s and self._is_new_failure(reason):  # without a deadline, the refusal was logged already
            log_event(logger, logging.WARNING, "broker-unreachable", broker=str(self._address), reason=reason)
        # A new client, because paho would send unacknowledged messages again: old payloads after new ones.
        self._client, self.connected = None, False
        self.outbox.put_back(self._unacknowledged.values())
        self._unacknowledged = {}
        wait_s = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** min(self._attempts, 30)) * random.uniform(0.5, 1)
        self._attempts += 1
        self._retry_s = time.monotonic() + wait_s

    def _is_new_failure(self, reason: str) -> bool:
        """Whether this failure differs from the last one, so that months of attempts make one line."""
        is_new, self._last_failure = reason != self._last_failure, reason
        return is_new


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigError(f"--ca: cannot use {ca} as the authority's certificate: {error.strerror}") from error
