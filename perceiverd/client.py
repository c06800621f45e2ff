"""Labels for other programs: `with subscribe(endpoint) as messages: for message in messages: ...`.

Needs pyzmq and msgspec, neither torch nor FFmpeg.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Self

import zmq

from perceiverd import messages
from perceiverd.errors import WireError
from perceiverd.messages import Message

RECONNECT_MS, RECONNECT_MAX_MS = 100, 1_000
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 2_000, 6_000
"""A link that is cut without a word is noticed, and made anew, after the time-out."""
HIGH_WATER_MARK = 1000
"""Messages kept while the program is busy; the publisher keeps as many again, what comes on top is lost and counted."""


class Subscription:
    """Messages from one daemon, typed, in order; connects again by itself for as long as it lives.

    It stays on the thread that made it.
    """

    def __init__(self, endpoint: str, topics: Sequence[str] = ("",), timeout_s: float | None = None) -> None:
        """`topics` are prefixes (`messages.scores_topic("door")`); "" is all of them.

        Raises WireError where the endpoint is none. Nobody need be there yet.
        """
        self.endpoint = endpoint
        self.missed = 0
        """Messages lost on the way, by the holes in `seq`."""
        self._timeout_s = timeout_s
        self._next: dict[str, tuple[str, int]] = {}
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        try:
            self._socket.set(zmq.RCVHWM, HIGH_WATER_MARK)
            self._socket.set(zmq.LINGER, 0)
            self._socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
            self._socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
            self._socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            self._socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
            for topic in topics:
                self._socket.set_string(zmq.SUBSCRIBE, topic)
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise WireError(f"cannot connect to {endpoint}: {error}; expected ipc://PATH or tcp://HOST:PORT") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave. Harmless when repeated."""
        self._socket.close()
        self._context.term()

    def __iter__(self) -> Iterator[Message]:
        """Messages as they come, for ever. Raises WireError when none has come for `timeout_s`, or one is not ours."""
        while True:
            message = self.receive(self._timeout_s)
            if message is None:
                raise WireError(nothing_heard(self.endpoint, self._timeout_s or 0))
            yield message

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message, or None where none comes in time. Raises WireError where one is not ours."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_ms = None if end_s is None else max(0, round((end_s - time.monotonic()) * 1000))
            if not self._socket.poll(left_ms):
                return None
            message = messages.decode(self._socket.recv_multipart())
            if self._is_new(message):
                return message

    def _is_new(self, message: Message) -> bool:
        """False for the repetition of a last value, which was meant for another, late subscriber."""
        topic = messages.topic(message)
        boot_id, expected = self._next.get(topic, (message.boot_id, message.seq))
        if boot_id == message.boot_id:
            if message.seq < expected:
                return False
            self.missed += message.seq - expected
        self._next[topic] = (message.boot_id, message.seq + 1)
        return True


def subscribe(endpoint: str, topics: Sequence[str] = ("",), timeout_s: float | None = None) -> Subscription:
    """Subscribe to a daemon's messages; see `Subscription`."""
    return Subscription(endpoint, topics, timeout_s)


def nothing_heard(endpoint: str, silence_s: float) -> str:
    """What to tell a user to whom nobody speaks."""
    return f"nothing heard from {endpoint} for {silence_s:g} s: is perceiverd running?"
