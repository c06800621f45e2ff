"""The socket on which labels go out. It binds, numbers and sends; what is said is the business of `messages`.

It lives on the thread that made it, never waits, and never holds more than `high_water_mark` messages for a
subscriber: what a slow one can't take is dropped for that one alone, which sees it as a gap in `seq` and reports it
(`report`).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from typing import Self

import msgspec
import zmq

from perceiverd.core.errors import WireError
from perceiverd.wire import messages
from perceiverd.wire.auth import Authenticator
from perceiverd.wire.endpoint import Binding
from perceiverd.wire.loss_reports import LossReport, SubscriberRegistry
from perceiverd.wire.messages import Delivery, Explain, Message, Scores, Status

logger = logging.getLogger(__name__)

LINGER_MS = 300
"""How long closing waits for what was just sent."""
LONGEST_SUBSCRIPTION, LONGEST_ENCRYPTED = 192, 512
"""Bytes; a peer that sends more is cut off by ZeroMQ. Ours are shorter than 130; a handshake of CURVE's takes 300."""
MOST_SUBSCRIPTIONS = 20_000
"""More in all are no use that anyone has of a daemon, but ZeroMQ keeps them while their peers stay: everyone is
cut off, and those who mean well come back."""
NOTICES_A_CALL = 1000
"""Subscriptions looked at in one call. ZeroMQ itself goes through all that has arrived; that is why they are short."""
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 5_000, 15_000
"""A subscriber that is frozen or cut off is let go of after the time-out, with all that was kept for it."""
HANDSHAKE_MS = 10_000
"""Who has connected and not become a subscriber by then is cut off. The daemon's loop answers far sooner."""
BACKLOG = 512
"""Connections that may wait to be accepted."""
LOSING_TOLD = 10
LOSSES_LOGGED_EVERY_S = 60.0
REBIND_S = 5.0
"""What the socket is given to take its place again; ZeroMQ gives it up on a thread of its own."""


class Publisher:
    """An XPUB socket, bound as soon as it is made; a context manager, whose end sends what is left and closes."""

    def __init__(self, endpoint: str, high_water_mark: int = 1000, door: Authenticator | None = None) -> None:
        """With a door, only those may subscribe whom it lets in, encrypted; without, everyone who can connect.

        Raises WireError, one line, where the endpoint can't be bound, ConfigError where the door's keys can't be read.
        """
        self.boot_id = uuid.uuid4().hex
        self.overflows = 0
        """How often a subscriber's queue was found full."""
        self.register = SubscriberRegistry(self.boot_id)
        """The subscribers that tell what they miss."""
        self._high_water_mark, self._door = high_water_mark, door
        self._subscriptions: Counter[bytes] = Counter()
        self._sent: Counter[str] = Counter()
        self._last: dict[tuple[str, str], Message] = {}
        self._logged_s, self._logged = time.monotonic(), (0, 0)
        self._context = zmq.Context()
        self._binding, self._configured = Binding(endpoint), endpoint
        try:
            if door:
                door.open(self._context)
            self._socket = self._opened()
            self._binding.bind(self._socket)
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Send what is left, for LINGER_MS at most, and close. Harmless when repeated."""
        self._socket.close()
        if self._door:
            self._door.close()
        self._context.term()
        self._binding.clean_up()

    @property
    def endpoint(self) -> str:
        """Where it is bound; the port is filled in where the config left it open."""
        return self._binding.endpoint

    @property
    def subscriptions(self) -> int:
        """Subscriptions to messages in force, as peers tell them; a peer that lies is only believed here."""
        return self._subscriptions.total()

    @property
    def refused(self) -> int:
        """Times that a client's key was not on the list."""
        return self._door.refused if self._door else 0

    def heard(self, topic: str) -> bool:
        """Whether somebody has asked for messages of this kind under this topic.

        A subscription to everything asks for no kind: what costs something to say is not said for its sake.
        """
        kind = topic.partition("/")[0].encode() + b"/"
        whole = topic.encode()
        return any(prefix.startswith(kind) and whole.startswith(prefix) for prefix in self._subscriptions)

    def send(self, message: Message) -> Message:
        """Publish the message, numbered within its topic; returns it as it was sent."""
        topic = messages.topic(message)
        message = msgspec.structs.replace(message, boot_id=self.boot_id, seq=self._sent[topic])
        if isinstance(message, Status):
            message = msgspec.structs.replace(message, delivery=self._delivery(message.stream))
        self._sent[topic] += 1
        self._keep(message)
        self._distribute(message)
        return message

    def forget(self, stream: str) -> None:
        """Repeat nothing of this stream any more: nobody watches it. Its `seq` goes on should it come back."""
        self._last = {key: message for key, message in self._last.items() if not key[0].endswith(f"/{stream}/")}

    def attend(self) -> None:
        """Let in who may come in, hear who came and who left, and repeat last values for what was newly subscribed to.

        Those who were there already get the repetition too, under the same `seq` and marked as one.
        """
        if self._door:
            self._door.answer()
            if self._door.someone_was_struck_off():
                logger.warning("key-struck-off")
                self._cut_all()
        asked = self._notices()
        if self.subscriptions > MOST_SUBSCRIPTIONS:
            logger.error("too-many-subscriptions count=%d: all subscribers are cut off", self.subscriptions)
            self._cut_all()
            asked = []
        for (topic, _), message in self._last.items():
            if any(topic.encode().startswith(prefix) for prefix in asked):
                assert not isinstance(message, Scores | Explain)
                self._distribute(msgspec.structs.replace(message, repeated=True))
        self._log_losses()

    def _keep(self, message: Message) -> None:
        key = messages.cache_key(message)
        if key is None:
            return
        if messages.clears(message):
            self._last.pop(key, None)
        else:
            self._last[key] = message

    def _delivery(self, stream: str) -> Delivery:
        topics = {topic: count for topic, count in self._sent.items() if topic.endswith(f"/{stream}/")}
        return Delivery(
            subscribers=len(self.register),
            missed=self.register.missed,
            losing=dict(list(self.register.losing.items())[:LOSING_TOLD]),
            overflows=self.overflows,
            sent={topic.partition("/")[0]: count for topic, count in topics.items()},
        )

    def _distribute(self, message: Message) -> None:
        parts = messages.encode(message)
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            # Somebody's queue has just become full: one subscriber's or several', which ZeroMQ doesn't tell. Now it
            # may drop the message for them; then it leaves them out, in silence, until they have read half of it.
            self.overflows += 1
            self._socket.set(zmq.XPUB_NODROP, 0)
            self._socket.send_multipart(parts, zmq.NOBLOCK)
            self._socket.set(zmq.XPUB_NODROP, 1)

    def _notices(self) -> list[bytes]:
        """Take in who came and who left; the prefixes that were newly subscribed to."""
        asked: dict[bytes, None] = {}
        for _ in range(NOTICES_A_CALL):
            try:
                notice = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            match notice:
                case [bytes(frame)] if frame[:1] in (b"\x00", b"\x01"):
                    self._note(frame[1:], came=frame[:1] == b"\x01")
                    if frame[:1] == b"\x01":
                        asked[frame[1:]] = None
                case _:
                    pass  # a peer may send anything; it is nothing to us
        return list(asked)

    def _note(self, prefix: bytes, came: bool) -> None:
        if report := LossReport.read(prefix):
            if came:
                self.register.come(report)
            else:
                self.register.leave(report)
        elif came:
            self._subscriptions[prefix] += 1
        elif self._subscriptions[prefix] > 1:
            self._subscriptions[prefix] -= 1
        else:
            del self._subscriptions[prefix]

    def _opened(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.XPUB)
        socket.set(zmq.SNDHWM, self._high_water_mark)
        socket.set(zmq.IPV6, int("[" in self._configured))
        socket.set(zmq.LINGER, LINGER_MS)
        socket.set(zmq.MAXMSGSIZE, LONGEST_ENCRYPTED if self._door else LONGEST_SUBSCRIPTION)
        socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.set(zmq.BACKLOG, BACKLOG)
        # Every subscription is told, not only the first of a topic: each new subscriber gets the last values.
        socket.set(zmq.XPUB_VERBOSER, 1)
        # Sending fails where a queue is full, so that we hear of it; who sends then sends again without this.
        socket.set(zmq.XPUB_NODROP, 1)
        if self._door:
            self._door.guard(socket)
        return socket

    def _cut_all(self) -> None:
        """Cut all connections: ZeroMQ can't cut one. Those who still may connect again by themselves, within a second.

        Raises WireError where the place is taken meanwhile; systemd starts the daemon again then.
        """
        logger.warning("subscribers-cut subscribers=%d", len(self.register))
        self._socket.unbind(self.endpoint)
        self._socket.close(linger=0)
        self._socket = self._opened()
        self._subscriptions.clear()
        self.register.all_leave()
        end_s = time.monotonic() + REBIND_S
        while True:
            try:
                return self._binding.bind(self._socket)
            except WireError:
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.005)

    def _log_losses(self) -> None:
        """A line a minute at most, where there is something new to tell."""
        now_s, losses = time.monotonic(), (self.register.missed, self.overflows)
        if losses == self._logged or now_s - self._logged_s < LOSSES_LOGGED_EVERY_S:
            return
        self._logged_s, self._logged = now_s, losses
        losing = ",".join(f"{name}:{count}" for name, count in list(self.register.losing.items())[:LOSING_TOLD])
        logger.warning("messages-missed count=%d overflows=%d losing=%s", *losses, losing or "-")
