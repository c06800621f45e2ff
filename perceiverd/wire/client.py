"""Labels for other programs: `with subscribe(endpoint) as subscription: for item in subscription: ...`, or `async for`.

What comes are messages, and among them what a program should know of its line to the daemon: a `Gap` where messages
were lost, `Restarted` where another daemon speaks now, `Stale` while nobody does.
Needs pyzmq and msgspec, neither torch nor FFmpeg.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import secrets
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import zmq

from perceiverd.core.errors import ConfigError, WireError
from perceiverd.wire import messages
from perceiverd.wire.gaps import Gap, GapDetector, Item, Restarted
from perceiverd.wire.keys import read_pair, read_public
from perceiverd.wire.loss_reports import LossReport
from perceiverd.wire.messages import Hello, Message

__all__ = ["Curve", "Gap", "Item", "Restarted", "Stale", "Subscription", "curve_of", "nothing_heard", "subscribe"]

RECONNECT_MS, RECONNECT_MAX_MS = 100, 1_000
HIGH_WATER_MARK = 1000
"""Messages kept while the program is busy; the publisher keeps as many again, what comes on top is lost and told."""
INTERVALS = 3
"""So many intervals of the daemon's heartbeat without a word are silence."""
INTERVAL_S = 1.0
"""The interval, until a daemon has said what it is."""
RENEW_S = 10.0
"""After so much silence the socket is made anew. ZeroMQ connects again by itself where it sees that the link is gone,
but doesn't see it where a cable was pulled, and doesn't try again after a refusal: without this, a key that is put on
the list would need a restart of its client."""
TEND_EVERY_S = 1.0
"""How often that is looked at, and the publisher told of losses where there are new ones."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The keys for a daemon that encrypts."""

    server: bytes
    """The daemon's public key, in Z85."""
    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Curve(server={self.server!r}, public={self.public!r})"

    @classmethod
    def read(cls, server_key: Path, secret_key: Path) -> Self:
        """From the daemon's public file and one's own secret file. Raises ConfigError."""
        pair = read_pair(secret_key)
        return cls(read_public(server_key), pair.public, pair.secret)


@dataclass(frozen=True, slots=True)
class Stale:
    """Nothing at all has come, not even a heartbeat: the daemon is down, or hangs, or the link is cut."""

    seconds: float
    """For so long by now; it is said again as long as it lasts."""


class Subscription:
    """What one daemon says, typed, in order; connects again by itself for as long as it lives.

    It stays on the thread that made it.
    """

    def __init__(
        self,
        endpoint: str,
        topics: Sequence[str] = ("",),
        timeout_s: float | None = None,
        curve: Curve | None = None,
    ) -> None:
        """`topics` are prefixes (`messages.scores_topic("door")`); "" is all of them.

        Greetings and heartbeats are heard in any case, by which silence is told from calm, but given only where they
        are among `topics`. Raises WireError where the endpoint is none. Nobody need be there yet.
        """
        self.endpoint = endpoint
        self.name = f"{_program()}-{os.getpid()}-{secrets.token_hex(4)}"
        """By which the daemon tells this subscriber from others."""
        self._topics, self._curve, self._timeout_s = tuple(topics), curve, timeout_s
        self._heard_topics = _with_heartbeats(topics)
        self._ledger = GapDetector(lambda topic: topic.startswith(self._heard_topics))
        self._items: deque[Item] = deque()
        self._interval_s = INTERVAL_S
        self._report: LossReport | None = None
        self._heard_s = self._told_s = self._opened_s = self._reported_s = time.monotonic()
        self._context = zmq.Context()
        try:
            self._socket = self._opened()
        except WireError:
            self._context.destroy(linger=0)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave. Harmless when repeated."""
        self._socket.close()
        self._context.term()

    @property
    def missed(self) -> int:
        """Messages that were lost on the way so far: the sum of all gaps."""
        return self._ledger.missed

    def __iter__(self) -> Iterator[Item | Stale]:
        """Items as they come, for ever. Raises WireError when none has come for `timeout_s`, or one is not ours."""
        asked_s = time.monotonic()
        while True:
            item = self.hear(self._patience_s(asked_s)) or self._silence()
            if item:
                yield item
            if item and not isinstance(item, Stale):
                asked_s = time.monotonic()

    async def __aiter__(self) -> AsyncIterator[Item | Stale]:
        """The same for asyncio: other tasks go on while this one waits."""
        asked_s = time.monotonic()
        while True:
            await asyncio.sleep(0)  # a line that never pauses must not keep the other tasks waiting
            item = await self._hear_async(self._patience_s(asked_s)) or self._silence()
            if item:
                yield item
            if item and not isinstance(item, Stale):
                asked_s = time.monotonic()

    def hear(self, timeout_s: float | None = None) -> Item | None:
        """The next item, or None where none comes in time. Raises WireError where one is not ours."""
        end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not self._items:
            came = self._socket.poll(math.ceil(self._wait_s(end_s) * 1000))
            if came:
                self._take()
            self._tend()
            if not came and time.monotonic() >= end_s:
                return None
        return self._items.popleft()

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message, or None where none comes in time; for who looks at `missed` and at the clock itself."""
        end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            item = self.hear(None if timeout_s is None else max(0.0, end_s - time.monotonic()))
            if not isinstance(item, Gap | Restarted):
                return item

    async def _hear_async(self, timeout_s: float) -> Item | None:
        end_s = time.monotonic() + timeout_s
        while not self._items:
            came = await self._came(self._wait_s(end_s))
            if came:
                self._take()
            self._tend()
            if not came and time.monotonic() >= end_s:
                return None
        return self._items.popleft()

    async def _came(self, timeout_s: float) -> bool:
        """Whether there is something to take, within this time."""
        # The descriptor tells that ZeroMQ's threads have said something, not that a message is there; and only `poll`
        # takes note of what they said, so that the descriptor falls silent again.
        if self._socket.poll(0):
            return True
        loop, stirred = asyncio.get_running_loop(), asyncio.Event()
        descriptor = self._socket.fileno()
        loop.add_reader(descriptor, stirred.set)
        try:
            await asyncio.wait_for(stirred.wait(), timeout_s)
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(descriptor)
        return bool(self._socket.poll(0))

    def _take(self) -> None:
        """Take in what has come."""
        message = messages.decode(self._socket.recv_multipart(zmq.NOBLOCK))
        self._heard_s = time.monotonic()
        if isinstance(message, Hello):
            self._interval_s = message.status_interval_s
        for item in self._ledger.take(message):
            if isinstance(item, Gap | Restarted) or messages.topic(item).startswith(self._topics):
                self._items.append(item)

    def _patience_s(self, asked_s: float) -> float:
        """How long to wait until there is silence to tell. Raises WireError where the program has waited enough."""
        now_s = time.monotonic()
        left_s = math.inf if self._timeout_s is None else asked_s + self._timeout_s - now_s
        if self._timeout_s is not None and left_s <= 0:
            raise WireError(nothing_heard(self.endpoint, self._timeout_s))
        return max(0.0, min(left_s, self._stale_s - now_s))

    @property
    def _stale_s(self) -> float:
        """When silence is to be told, should nothing come before."""
        return max(self._heard_s, self._told_s) + INTERVALS * self._interval_s

    def _silence(self) -> Stale | None:
        now_s = time.monotonic()
        if now_s < self._stale_s:
            return None
        self._told_s = now_s
        return Stale(now_s - self._heard_s)

    def _wait_s(self, end_s: float) -> float:
        """How long to wait at once: there is something to tend to from time to time."""
        return min(TEND_EVERY_S, max(0.0, end_s - time.monotonic()))

    def _tend(self) -> None:
        """Report what was missed, and make the socket anew where nobody was heard for long."""
        now_s = time.monotonic()
        # A calm subscription hears only the heartbeat, if that: a long interval of it is no silence.
        if now_s - max(self._heard_s, self._opened_s) >= max(RENEW_S, INTERVALS * self._interval_s):
            self._socket.close()
            self._socket = self._opened()
        if self._ledger.boot_id and (self._report is None or now_s - self._reported_s >= TEND_EVERY_S):
            report = LossReport(self._ledger.boot_id, self.name, self._ledger.missed_now)
            if report != self._report:
                # The new one first: who has a report is there.
                self._socket.set_string(zmq.SUBSCRIBE, report.subscription)
                if self._report:
                    self._socket.set_string(zmq.UNSUBSCRIBE, self._report.subscription)
                self._report, self._reported_s = report, now_s

    def _opened(self) -> zmq.Socket[bytes]:
        """A socket on its way to the daemon."""
        self._opened_s = time.monotonic()
        opened = self._context.socket(zmq.SUB)
        try:
            opened.set(zmq.RCVHWM, HIGH_WATER_MARK)
            opened.set(zmq.IPV6, int("[" in self.endpoint))
            opened.set(zmq.LINGER, 0)
            opened.set(zmq.RECONNECT_IVL, RECONNECT_MS)
            opened.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
            # No heartbeats of ZeroMQ's on this side: up to 4.3.5 they abort a program that reads on after a pause in
            # which its queue was full (https://github.com/zeromq/libzmq/issues/3937). The daemon's own show a dead
            # link as well, and RENEW_S mends it.
            if self._curve:
                opened.set(zmq.CURVE_SERVERKEY, self._curve.server)
                opened.set(zmq.CURVE_PUBLICKEY, self._curve.public)
                opened.set(zmq.CURVE_SECRETKEY, self._curve.secret)
            for topic in self._heard_topics:
                opened.set_string(zmq.SUBSCRIBE, topic)
            if self._report:
                opened.set_string(zmq.SUBSCRIBE, self._report.subscription)
            opened.connect(self.endpoint)
        except zmq.ZMQError as error:
            opened.close()
            raise WireError(
                f"cannot connect to {self.endpoint}: {error}; expected ipc://PATH or tcp://HOST:PORT"
            ) from error
        return opened


def subscribe(
    endpoint: str, topics: Sequence[str] = ("",), timeout_s: float | None = None, curve: Curve | None = None
) -> Subscription:
    """Subscribe to a daemon's messages; see `Subscription`."""
    return Subscription(endpoint, topics, timeout_s, curve)


def curve_of(server_key: Path | None, secret_key: Path | None) -> Curve | None:
    """The keys from two files, which go together; None where there are none. Raises ConfigError."""
    if server_key and secret_key:
        return Curve.read(server_key, secret_key)
    if server_key or secret_key:
        raise ConfigError("a daemon that encrypts takes both, its public key and one's own secret key; one is missing")
    return None


def nothing_heard(endpoint: str, silence_s: float) -> str:
    """What to tell a user to whom nobody speaks."""
    return f"nothing heard from {endpoint} for {silence_s:g} s: is perceiverd running?"


def _with_heartbeats(topics: Sequence[str]) -> tuple[str, ...]:
    """These topics, the greeting and the heartbeats of their streams, without those that another one covers."""
    wanted = {*topics, messages.HELLO}
    for topic in topics:
        parts = topic.split("/")
        wanted.add(messages.status_topic(parts[1]) if len(parts) > 2 else "status/")
    return tuple(sorted(one for one in wanted if not any(one != other and one.startswith(other) for other in wanted)))


def _program() -> str:
    """What this process runs, as far as it may stand in a name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "", Path(sys.argv[0]).stem)[:32] or "python"
