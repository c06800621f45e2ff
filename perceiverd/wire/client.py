"""The client: `with subscribe(endpoint) as subscription: for item in subscription: ...`, or `async for`.

Besides messages it yields what a program should know about its link to the daemon: `Gap` for lost messages, `Restarted`
for a restarted daemon, `Stale` if nothing is received. It loads pyzmq and msgspec, but neither numpy, torch nor FFmpeg.
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

from perceiverd.core.errors import WireError
from perceiverd.wire import codec, messages
from perceiverd.wire.gaps import Gap, GapDetector, Restarted
from perceiverd.wire.keys import Curve
from perceiverd.wire.loss_reports import LossReport
from perceiverd.wire.messages import Hello, Message

RECONNECT_MS, RECONNECT_MAX_MS = 100, 1_000
HIGH_WATER_MARK = 1000
"""Messages queued while the program is busy. The publisher queues as many again; the rest is lost and becomes a Gap."""
STALE_INTERVALS = 3
"""A daemon is stale if nothing was received for this many intervals of its heartbeat."""
STALE_LEAST_S = 3.0
"""The least seconds before a daemon counts as stale: a faster heartbeat may pause that long on a busy machine."""
RENEW_S = 10.0
"""After this time without a message the client opens a new socket. ZeroMQ reconnects by itself if it notices that the
link is gone. It does not notice a pulled cable, and does not try again after a refusal: without a new socket, a client
whose key is added to the allow-list would have to be restarted."""
MAINTAIN_EVERY_S = 1.0
"""How often the client checks for RENEW_S and reports new losses to the publisher."""


@dataclass(frozen=True, slots=True)
class Stale:
    """Nothing was received for three heartbeats: the daemon is down, it hangs, or the link is cut.

    It comes once when that is noticed, and once more, with `over` set, just before the next message.
    """

    seconds: float
    """How long nothing was received."""
    over: bool


Item = Message | Gap | Restarted | Stale
"""What a subscription yields."""


class Liveness:
    """Decides when a daemon is stale. Pure: the caller passes the time."""

    def __init__(self, now_s: float) -> None:
        self.received_s = now_s
        """When the last message was received; at first, when the subscription began."""
        self.limit_s = STALE_LEAST_S
        """The daemon is stale if nothing was received for this long."""
        self._stale = False

    @property
    def due_s(self) -> float:
        """When `check` will find the daemon stale if nothing is received before; infinite if it is stale already."""
        return math.inf if self._stale else self.received_s + self.limit_s

    def received(self, message: Message, now_s: float) -> Stale | None:
        """Record a message. Returns the end of a stale time, if there was one."""
        ended = Stale(now_s - self.received_s, over=True) if self._stale else None
        self._stale, self.received_s = False, now_s
        if isinstance(message, Hello):
            self.limit_s = max(STALE_LEAST_S, STALE_INTERVALS * message.status_interval_s)
        return ended

    def check(self, now_s: float) -> Stale | None:
        """Returns the beginning of a stale time, once. Call it only if no message is waiting to be received."""
        if now_s < self.due_s:
            return None
        self._stale = True
        return Stale(now_s - self.received_s, over=False)


class Subscription:
    """The messages of one daemon, typed and in order. It reconnects by itself, without limit.

    Use it only on the thread that created it.
    """

    def __init__(
        self,
        endpoint: str,
        topics: Sequence[str] = ("",),
        timeout_s: float | None = None,
        curve: Curve | None = None,
    ) -> None:
        """`topics` are prefixes, such as `scores_topic("door")`; "" subscribes to everything that is published.

        The daemon need not be running yet. The client always subscribes to `hello/` and to the heartbeats as well,
        to notice a stale daemon, but yields them only if `topics` include them. `timeout_s` bounds iteration, see
        `__iter__`. `curve` holds the keys for a daemon that encrypts. Raises WireError if the endpoint is invalid.
        """
        self.endpoint = endpoint
        self.name = f"{_program()}-{os.getpid()}-{secrets.token_hex(4)}"
        """The name under which this subscriber reports its losses to the daemon."""
        self._topics, self._curve, self._timeout_s = tuple(topics), curve, timeout_s
        self._subscribed = _with_heartbeats(topics)
        self._gaps = GapDetector(lambda topic: topic.startswith(self._subscribed))
        self._items: deque[Item] = deque()
        self._report: LossReport | None = None
        self._opened_s = self._reported_s = time.monotonic()
        self._liveness = Liveness(self._opened_s)
        self._context = zmq.Context()
        try:
            self._socket = self._open()
        except WireError:
            self._context.destroy(linger=0)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unsubscribe and disconnect. May be called twice."""
        self._socket.close()
        self._context.term()

    @property
    def missed(self) -> int:
        """Messages lost so far: the sum of all gaps."""
        return self._gaps.missed

    def __iter__(self) -> Iterator[Item]:
        """Items as they come, for ever.

        Raises WireError if there was no item but `Stale` for `timeout_s`, or if a message is not perceiverd's.
        """
        since_s = time.monotonic()
        while True:
            if (item := self._next(self._end_s(since_s))) is None:
                raise self._timed_out()
            yield item
            if not isinstance(item, Stale):
                since_s = time.monotonic()

    async def __aiter__(self) -> AsyncIterator[Item]:
        """The same for asyncio: other tasks run while this one waits."""
        since_s = time.monotonic()
        while True:
            await asyncio.sleep(0)  # messages without a pause must not keep other tasks waiting
            if (item := await self._next_async(self._end_s(since_s))) is None:
                raise self._timed_out()
            yield item
            if not isinstance(item, Stale):
                since_s = time.monotonic()

    def receive(self, timeout_s: float | None = None) -> Item | None:
        """The next item; None if there is none within this time. Raises WireError if a message is not perceiverd's."""
        return self._next(math.inf if timeout_s is None else time.monotonic() + timeout_s)

    def receive_message(self, timeout_s: float | None = None) -> Message | None:
        """The next message, as `receive`, without `Gap`, `Restarted` and `Stale`; `missed` counts the losses."""
        end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            item = self._next(end_s)
            if not isinstance(item, Gap | Restarted | Stale):
                return item

    def _next(self, end_s: float) -> Item | None:
        while not self._items:
            arrived = self._socket.poll(math.ceil(self._wait_s(end_s) * 1000))
            if self._update(bool(arrived), end_s):
                return None
        return self._items.popleft()

    async def _next_async(self, end_s: float) -> Item | None:
        while not self._items:
            arrived = await self._arrived(self._wait_s(end_s))
            if self._update(arrived, end_s):
                return None
        return self._items.popleft()

    async def _arrived(self, timeout_s: float) -> bool:
        """Whether a message is waiting, or arrives within this time."""
        # The descriptor becomes readable when ZeroMQ's threads signal something, which need not be a message. Only
        # `poll` processes the signal, so that the descriptor is no longer readable.
        if self._socket.poll(0):
            return True
        loop, signalled = asyncio.get_running_loop(), asyncio.Event()
        descriptor = self._socket.fileno()
        loop.add_reader(descriptor, signalled.set)
        try:
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes together with the signal.
            async with asyncio.timeout(timeout_s):
                await signalled.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(descriptor)
        return bool(self._socket.poll(0))

    def _wait_s(self, end_s: float) -> float:
        """How long to wait for a message before there is something else to do."""
        now_s = time.monotonic()
        return max(0.0, min(end_s - now_s, self._liveness.due_s - now_s, MAINTAIN_EVERY_S))

    def _update(self, arrived: bool, end_s: float) -> bool:
        """Queue the items of a message that arrived, or `Stale` if none did. Returns whether the time is over."""
        if arrived:
            self._read()
        elif stale := self._liveness.check(time.monotonic()):
            self._items.append(stale)
        self._maintain()
        return not arrived and not self._items and time.monotonic() >= end_s

    def _read(self) -> None:
        message = codec.decode(self._socket.recv_multipart(zmq.NOBLOCK))
        if stale := self._liveness.received(message, time.monotonic()):
            self._items.append(stale)
        for item in self._gaps.accept(message):
            if isinstance(item, Gap | Restarted) or messages.topic(item).startswith(self._topics):
                self._items.append(item)

    def _end_s(self, since_s: float) -> float:
        """When an iteration that has waited since then times out."""
        return math.inf if self._timeout_s is None else since_s + self._timeout_s

    def _timed_out(self) -> WireError:
        return WireError(nothing_received(self.endpoint, self._timeout_s or 0.0))

    def _maintain(self) -> None:
        """Report new losses; open a new socket if nothing was received for RENEW_S."""
        now_s = time.monotonic()
        # A subscription to a stream without events receives the heartbeat at most, whose interval may be long.
        if now_s - max(self._liveness.received_s, self._opened_s) >= max(RENEW_S, self._liveness.limit_s):
            self._socket.close()
            self._socket = self._open()
        if self._gaps.boot_id and (self._report is None or now_s - self._reported_s >= MAINTAIN_EVERY_S):
            report = LossReport(self._gaps.boot_id, self.name, self._gaps.missed_now)
            if report != self._report:
                # Subscribe to the new report first: the publisher counts subscribers by their reports.
                self._socket.set_string(zmq.SUBSCRIBE, report.subscription)
                if self._report:
                    self._socket.set_string(zmq.UNSUBSCRIBE, self._report.subscription)
                self._report, self._reported_s = report, now_s

    def _open(self) -> zmq.Socket[bytes]:
        """A new socket, which connects in the background. Raises WireError."""
        self._opened_s = time.monotonic()
        opened = self._context.socket(zmq.SUB)
        try:
            opened.set(zmq.RCVHWM, HIGH_WATER_MARK)
            opened.set(zmq.IPV6, int("[" in self.endpoint))
            opened.set(zmq.LINGER, 0)
            opened.set(zmq.RECONNECT_IVL, RECONNECT_MS)
            opened.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
            # ZeroMQ's own heartbeats stay off on this side. Up to 4.3.5 they abort a program that resumes reading
            # after a pause in which its queue was full (https://github.com/zeromq/libzmq/issues/3937). The daemon's
            # heartbeat reveals a dead link as well, and RENEW_S repairs it.
            if self._curve:
                opened.set(zmq.CURVE_SERVERKEY, self._curve.server)
                opened.set(zmq.CURVE_PUBLICKEY, self._curve.public)
                opened.set(zmq.CURVE_SECRETKEY, self._curve.secret)
            for topic in self._subscribed:
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


def nothing_received(endpoint: str, seconds: float) -> str:
    """One line for a user whose daemon does not answer."""
    return f"{endpoint}: nothing received for {seconds:g} s; is perceiverd running?"


def _with_heartbeats(topics: Sequence[str]) -> tuple[str, ...]:
    """These topics, `hello/` and the heartbeats of their streams, without topics that another one covers."""
    wanted = {*topics, messages.HELLO}
    for topic in topics:
        parts = topic.split("/")
        wanted.add(messages.status_topic(parts[1]) if len(parts) > 2 else "status/")
    return tuple(sorted(one for one in wanted if not any(one != other and one.startswith(other) for other in wanted)))


def _program() -> str:
    """The name of the running program, reduced to the characters that a subscriber's name may have."""
    return re.sub(r"[^A-Za-z0-9_.-]", "", Path(sys.argv[0]).stem)[:32] or "python"
