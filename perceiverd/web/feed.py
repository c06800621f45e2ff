"""Server-sent events for browsers: what waits for each, with a bound, and what is dropped for a slow one.

Of a stream's state only the newest waits; events wait in order up to a bound. It knows no socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec

MOST_CLIENTS = 100
"""Browsers that follow at one time; a further one is refused."""
MOST_EVENTS = 500
"""Events that wait for one slow browser; beyond it they are dropped and counted."""
HEARTBEAT_S = 15.0
"""A comment is sent after this time without a message, so that proxies keep the connection open."""
RETRY_MS = 3000
"""How long a browser waits before it connects again."""


def frame(kind: str, answer: object) -> bytes:
    """One server-sent event. Line breaks within texts are escaped by JSON."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(answer))


class FollowerMissed(msgspec.Struct, frozen=True):
    """Events that were dropped, because this browser was too slow."""

    events: int


@dataclass(eq=False, slots=True)
class Follower:
    """One browser."""

    explain: str | None = None
    """`machine/stream` whose reasons it wants."""
    closed: bool = False
    _latest: dict[str, bytes] = field(default_factory=dict)
    _events: deque[bytes] = field(default_factory=deque)
    _missed: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put_latest(self, key: str, data: bytes) -> None:
        """Send this, unless a newer one with the same key comes before."""
        self._latest.pop(key, None)
        self._latest[key] = data
        self._wake.set()

    def put_event(self, data: bytes) -> bool:
        """Send this in order. Returns False if it was dropped."""
        self._wake.set()
        if len(self._events) >= MOST_EVENTS:
            self._missed += 1
            return False
        self._events.append(data)
        return True

    def close(self) -> None:
        self.closed = True
        self._wake.set()

    def take(self) -> bytes:
        """All that waits."""
        self._wake.clear()
        parts = [*self._latest.values(), *self._events]
        if self._missed:
            parts.append(frame("missed", FollowerMissed(self._missed)))
        self._latest.clear()
        self._events.clear()
        self._missed = 0
        return b"".join(parts)

    async def wait(self, seconds: float) -> None:
        """Until something waits, or this time is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


@dataclass(slots=True)
class Feed:
    """All browsers that follow."""

    refused: int = 0
    """Browsers that were refused because there were too many."""
    dropped: int = 0
    """Events that were dropped for slow browsers."""
    followers: set[Follower] = field(default_factory=set)

    def join(self, explain: str | None = None) -> Follower | None:
        """A new follower; None if there are too many."""
        if len(self.followers) >= MOST_CLIENTS:
            self.refused += 1
            return None
        follower = Follower(explain)
        self.followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        follower.close()
        self.followers.discard(follower)

    def latest(self, key: str, kind: str, answer: object) -> None:
        """Send the newest state of something to all."""
        data = frame(kind, answer)
        for follower in self.followers:
            follower.put_latest(key, data)

    def event(self, answer: object) -> None:
        """Send an event to all."""
        data = frame("event", answer)
        for follower in self.followers:
            self.dropped += not follower.put_event(data)

    def explained(self, stream: str, answer: object) -> None:
        """Send the reasons of one window to those who want them."""
        data = frame("explain", answer)
        for follower in self.followers:
            if follower.explain == stream:
                follower.put_latest("explain", data)

    def close(self) -> None:
        """The server stops: end all."""
        for follower in list(self.followers):
            follower.close()


async def frames(follower: Follower, first: bytes, is_allowed: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What one browser is sent, until it is closed or no longer allowed."""
    yield b"retry: %d\n\n%b" % (RETRY_MS, first)
    while not follower.closed and is_allowed():
        await follower.wait(HEARTBEAT_S)
        if is_allowed():
            yield follower.take() or b": still here\n\n"
