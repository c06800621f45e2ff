"""The socket that publishes messages. It binds, numbers and sends them; `messages` knows what is in them.

It is used on one thread, never waits, and queues at most `high_water_mark` messages for each subscriber. What a slow
subscriber cannot take is dropped for that subscriber alone, which notices a gap in `seq` and reports it
(`loss_reports`).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from itertools import islice
from typing import Self

import msgspec
import zmq

from perceiverd.core.errors import WireError
from perceiverd.core.logs import LogLimit, log_event
from perceiverd.wire import codec, messages
from perceiverd.wire.auth import Authenticator
from perceiverd.wire.endpoint import Binding
from perceiverd.wire.loss_reports import LossReport, SubscriberRegistry
from perceiverd.wire.messages import Delivery, Explain, Message, Scores, Status
from perceiverd.wire.retained import cache_key, clears

logger = logging.getLogger("perceiverd.wire")

LINGER_MS = 300
"""How long closing waits for messages that were just sent."""
LONGEST_SUBSCRIPTION, LONGEST_ENCRYPTED = 192, 512
"""Bytes. ZeroMQ disconnects a peer that sends more. Our subscriptions have less than 130, CURVE's handshake 300."""
MOST_SUBSCRIPTIONS = 20_000
"""No honest use needs more, and ZeroMQ keeps them while their peers stay. Beyond it all subscribers are disconnected;
honest ones reconnect."""
NOTICES_A_CALL = 1000
"""Subscriptions read in one call. ZeroMQ itself processes all that have arrived, so each must be short."""
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 5_000, 15_000
"""A subscriber that is frozen or unreachable is disconnected after the time-out, and its queue is freed."""
HANDSHAKE_MS = 10_000
"""A peer that has connected and not subscribed by then is disconnected. The daemon's loop answers far sooner."""
BACKLOG = 512
"""Connections that may wait to be accepted."""
LOSING_LISTED = 10
"""Subscribers listed in a status and in a log line, those with the largest losses."""
REBIND_S = 5.0
"""How long to try to bind again. ZeroMQ frees the endpoint on a thread of its own."""


class Publisher:
    """An XPUB socket, bound when it is created. A context manager: its end sends what is left and closes."""

    def __init__(self, endpoint: str, high_water_mark: int = 1000, authenticator: Authenticator | None = None) -> None:
        """With an authenticator, messages are encrypted and only clients that it admits may subscribe.

        Without one, everyone who can connect may subscribe. Raises WireError if the endpoint cannot be bound.
        """
        self.boot_id = uuid.uuid4().hex
        self.overflows = 0
        """How often a subscriber's queue was found full."""
        self.registry = SubscriberRegistry(self.boot_id)
        """The subscribers that report what they miss."""
        self._high_water_mark, self._authenticator = high_water_mark, authenticator
        self._subscriptions: Counter[bytes] = Counter()
        self._sent: Counter[str] = Counter()
        self._last: dict[tuple[str, str], Message] = {}
        self._losses_limit, self._losses_logged = LogLimit(), (0, 0)
        self._context = zmq.Context()
        self._binding, self._configured = Binding(endpoint), endpoint
        try:
            if authenticator:
                authenticator.open(self._context)
            self._socket = self._open()
            self._binding.bind(self._socket)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Send what is left, for LINGER_MS at most, and close. May be called twice."""
        self._socket.close()
        if self._authenticator:
            self._authenticator.close()
        self._context.term()
        self._binding.clean_up()

    @property
    def endpoint(self) -> str:
        """Where it is bound, with the real port if the configuration left it open."""
        return self._binding.endpoint

    @property
    def subscriptions(self) -> int:
        """Subscriptions to messages in force, as the peers claim. A lying peer can distort only this number."""
        return self._subscriptions.total()

    @property
    def refused(self) -> int:
        """How often a client was refused because its key is not on the list."""
        return self._authenticator.refused if self._authenticator else 0

    def is_requested(self, topic: str) -> bool:
        """Whether someone has subscribed to this kind of message for this topic.

        A subscription to everything does not count, so that it does not cause work for costly messages.
        """
        kind = topic.partition("/")[0].encode() + b"/"
        whole = topic.encode()
        return any(prefix.startswith(kind) and whole.startswith(prefix) for prefix in self._subscriptions)

    def send(self, message: Message) -> Message:
        """Number the message within its topic and publish it. Returns it as published."""
        topic = messages.topic(message)
        message = msgspec.structs.replace(message, boot_id=self.boot_id, seq=self._sent[topic])
        if isinstance(message, Status):
            message = msgspec.structs.replace(message, delivery=self._delivery(message.stream))
        self._sent[topic] += 1
        self._keep(message)
        self._distribute(message)
        return message

    def forget(self, stream: str) -> None:
        """Repeat no message of this stream any more, because it was removed. If it returns, its `seq` continues."""
        self._last = {key: message for key, message in self._last.items() if not key[0].endswith(f"/{stream}/")}

    def handle_subscribers(self) -> None:
        """Admit clients, read who subscribed and unsubscribed, and repeat the last values of new subscriptions.

        Earlier subscribers receive the repetition too, with `repeated` set and its original `seq`.
        """
        if self._authenticator:
            self._authenticator.answer()
            if self._authenticator.key_removed():
                log_event(logger, logging.WARNING, "client-key-removed")
                self._disconnect_all()
        prefixes = self._read_notices()
        if self.subscriptions > MOST_SUBSCRIPTIONS:
            log_event(
                logger,
                logging.ERROR,
                "subscriptions-exceeded",
                subscriptions=self.subscriptions,
                limit=MOST_SUBSCRIPTIONS,
            )
            self._disconnect_all()
            prefixes = []
        self._repeat(prefixes)
        self._log_losses()

    def _keep(self, message: Message) -> None:
        """Keep a message to repeat it to new subscribers, if it is a last value."""
        key = cache_key(message)
        if key is None:
            return
        if clears(message):
            self._last.pop(key, None)
        else:
            self._last[key] = message

    def _repeat(self, prefixes: list[bytes]) -> None:
        for (topic, _), message in self._last.items():
            if any(topic.encode().startswith(prefix) for prefix in prefixes):
                assert not isinstance(message, Scores | Explain)
                self._distribute(msgspec.structs.replace(message, repeated=True))

    def _delivery(self, stream: str) -> Delivery:
        topics = {topic: count for topic, count in self._sent.items() if topic.endswith(f"/{stream}/")}
        return Delivery(
            subscribers=len(self.registry),
            missed=self.registry.missed,
            losing=self._losing(),
            overflows=self.overflows,
            sent={topic.partition("/")[0]: count for topic, count in topics.items()},
        )

    def _losing(self) -> dict[str, int]:
        return dict(islice(self.registry.losing.items(), LOSING_LISTED))

    def _distribute(self, message: Message) -> None:
        parts = codec.encode(message)
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            # The queue of one or more subscribers has just become full; ZeroMQ does not report whose. From now on it
            # may drop messages for them. It then skips them, without a report, until they have read half their queue.
            self.overflows += 1
            self._socket.set(zmq.XPUB_NODROP, 0)
            self._socket.send_multipart(parts, zmq.NOBLOCK)
            self._socket.set(zmq.XPUB_NODROP, 1)

    def _read_notices(self) -> list[bytes]:
        """Read who subscribed and unsubscribed. Returns the prefixes of new subscriptions."""
        prefixes: dict[bytes, None] = {}
        for _ in range(NOTICES_A_CALL):
            try:
                notice = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            match notice:
                case [bytes(frame)] if frame[:1] == b"\x01":
                    self._subscribed(frame[1:])
                    prefixes[frame[1:]] = None
                case [bytes(frame)] if frame[:1] == b"\x00":
                    self._unsubscribed(frame[1:])
                case _:
                    pass  # a peer may send anything; we ignore it
        return list(prefixes)

    def _subscribed(self, prefix: bytes) -> None:
        if report := LossReport.parse(prefix):
            self.registry.add(report)
        else:
            self._subscriptions[prefix] += 1

    def _unsubscribed(self, prefix: bytes) -> None:
        if report := LossReport.parse(prefix):
            self.registry.withdraw(report)
        elif self._subscriptions[prefix] > 1:
            self._subscriptions[prefix] -= 1
        else:
            del self._subscriptions[prefix]

    def _open(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.XPUB)
        socket.set(zmq.SNDHWM, self._high_water_mark)
        socket.set(zmq.IPV6, int("[" in self._configured))
        socket.set(zmq.LINGER, LINGER_MS)
        socket.set(zmq.MAXMSGSIZE, LONGEST_ENCRYPTED if self._authenticator else LONGEST_SUBSCRIPTION)
        socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.set(zmq.BACKLOG, BACKLOG)
        # ZeroMQ passes on every subscription, not only the first to a topic: each new subscriber needs the last values.
        socket.set(zmq.XPUB_VERBOSER, 1)
        # Sending fails if a queue is full, so that we can count it; `_distribute` then sends again without this option.
        socket.set(zmq.XPUB_NODROP, 1)
        if self._authenticator:
            self._authenticator.protect(socket)
        return socket

    def _disconnect_all(self) -> None:
        """Disconnect all subscribers, because ZeroMQ cannot disconnect one. Admitted ones reconnect within a second.

        Raises WireError if another program takes the endpoint meanwhile; systemd then restarts the daemon.
        """
        log_event(logger, logging.WARNING, "subscribers-cut", subscribers=len(self.registry))
        self._socket.unbind(self.endpoint)
        self._socket.close(linger=0)
        self._socket = self._open()
        self._subscriptions.clear()
        self.registry.disconnect_all()
        end_s = time.monotonic() + REBIND_S
        while True:
            try:
                return self._binding.bind(self._socket)
            except WireError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.005)

    def _log_losses(self) -> None:
        """Log the losses if they have grown since the last line."""
        losses = (self.registry.missed, self.overflows)
        if losses == self._losses_logged or self._losses_limit.admit(time.monotonic_ns()) is None:
            return
        self._losses_logged = losses
        losing = [f"{name}:{count}" for name, count in self._losing().items()]
        log_event(
            logger,
            logging.WARNING,
            "messages-missed",
            count=self.registry.missed,
            overflows=self.overflows,
            losing=losing,
        )
