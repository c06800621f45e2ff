"""The subscriptions of the page: one for each daemon, and one for each stream whose reasons somebody looks at.

All run in the server's event loop. A daemon that floods, hangs or is down delays no other: each message gives way to
other tasks, and a stream's state is sent at most four times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping

from perceiverd.core.errors import WireError
from perceiverd.core.logs import LogLimit, log_limited
from perceiverd.web.answers import EventAnswer, StreamAnswer, StreamsAnswer
from perceiverd.web.feed import Feed
from perceiverd.web.live import LiveMachine, instant_of
from perceiverd.web.settings import WatchedDaemon
from perceiverd.wire import Curve, Event, Explain, Subscription, explain_topic, messages, subscribe

logger = logging.getLogger("perceiverd.web")

TOPICS = ("scores/", "events/", "status/", messages.HELLO)
TICK_S = 0.25
"""How often changed states are sent."""
MOST_EXPLAINED = 8
"""Streams whose reasons are subscribed to at one time."""
UNREADABLE_S = 0.01
"""A pause after a message that cannot be read, so that a flood of them leaves time for others."""


class Watcher:
    """All daemons, what is known of them, and who is told."""

    def __init__(self, daemons: Mapping[str, WatchedDaemon], feed: Feed) -> None:
        """Raises ConfigError if a key cannot be read, WireError if an endpoint is invalid."""
        self.feed = feed
        self.machines = {name: LiveMachine(name, each.endpoint) for name, each in daemons.items()}
        self.on_event: Callable[[str, Event], EventAnswer | None] = lambda machine, event: None
        """Called for each message of an event; returns what browsers get at once."""
        self.ticked_s = time.monotonic()
        self._daemons = daemons
        self._curves: dict[str, Curve | None] = {name: each.curve() for name, each in daemons.items()}
        self._changed: set[tuple[str, str]] = set()
        self._changed_machines: set[str] = set()
        self._membership = False
        self._explained: dict[str, tuple[asyncio.Task[None], int]] = {}
        self._limit = LogLimit()

    async def run(self) -> None:
        """Until it is cancelled."""
        subscriptions: list[tuple[LiveMachine, Subscription]] = []
        try:
            for name, daemon in self._daemons.items():
                made = subscribe(daemon.endpoint, TOPICS, curve=self._curves[name])
                subscriptions.append((self.machines[name], made))
            async with asyncio.TaskGroup() as tasks:
                for machine, subscription in subscriptions:
                    tasks.create_task(self._follow(machine, subscription))
                tasks.create_task(self._tick())
        finally:
            for _, subscription in subscriptions:
                subscription.close()
            for task, _ in self._explained.values():
                task.cancel()

    def streams(self) -> StreamsAnswer:
        """All streams at this moment."""
        return StreamsAnswer(tuple(self._answers()))

    def has_stream(self, machine: str, stream: str) -> bool:
        """Whether this stream is known."""
        return machine in self.machines and stream in self.machines[machine].streams

    def keeps_sound(self) -> bool:
        """Whether a daemon keeps the recent sound of its streams."""
        streams = (stream for machine in self.machines.values() for stream in machine.streams.values())
        return any(stream.status is not None and stream.status.recent_sound is not None for stream in streams)

    def explain(self, machine: str, stream: str) -> bool:
        """Begin to receive the reasons of a stream, or count one more who wants them; False if there are too many."""
        key = f"{machine}/{stream}"
        if key in self._explained:
            task, count = self._explained[key]
            self._explained[key] = (task, count + 1)
            return True
        if len(self._explained) >= MOST_EXPLAINED:
            return False
        self._explained[key] = (asyncio.get_running_loop().create_task(self._explain(machine, stream)), 1)
        return True

    def stop_explaining(self, key: str) -> None:
        """One less wants them; the last one ends the subscription."""
        task, count = self._explained[key]
        if count > 1:
            self._explained[key] = (task, count - 1)
            return
        del self._explained[key]
        task.cancel()

    async def _follow(self, machine: LiveMachine, subscription: Subscription) -> None:
        while True:
            try:
                async for item in subscription:
                    changes = machine.receive(item, instant_of(time.time(), time.monotonic()))
                    self._changed |= {(machine.name, stream) for stream in changes.streams}
                    self._membership |= changes.membership
                    if changes.machine:
                        self._changed_machines.add(machine.name)
                    if changes.event and (answer := self.on_event(machine.name, changes.event)):
                        self.feed.event(answer)
            except WireError as error:
                await self._unreadable(error)

    async def _explain(self, machine: str, stream: str) -> None:
        daemon = self._daemons[machine]
        with contextlib.closing(
            subscribe(daemon.endpoint, (explain_topic(stream),), curve=self._curves[machine])
        ) as subscription:
            while True:
                try:
                    async for item in subscription:
                        if isinstance(item, Explain) and item.stream == stream:
                            self.feed.explained(f"{machine}/{stream}", item)
                except WireError as error:
                    await self._unreadable(error)

    async def _unreadable(self, error: WireError) -> None:
        log_limited(logger, logging.WARNING, "message-unreadable", self._limit, time.monotonic_ns(), error=error)
        await asyncio.sleep(UNREADABLE_S)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.ticked_s = time.monotonic()
            self._send()

    def _send(self) -> None:
        """Send what has changed since the last time."""
        changed, self._changed = self._changed, set()
        machines, self._changed_machines = self._changed_machines, set()
        membership, self._membership = self._membership, False
        if not self.feed.followers:
            return
        for name in machines:
            self.feed.latest(f"machine/{name}", "machine", self.machines[name].answer())
        if membership:
            self.feed.latest("streams", "streams", self.streams())
            return
        for machine_name, stream_name in changed:
            machine = self.machines[machine_name]
            if stream := machine.streams.get(stream_name):
                answer = stream.answer(machine_name, machine.silent)
                self.feed.latest(f"stream/{machine_name}/{stream_name}", "stream", answer)

    def _answers(self) -> Iterator[StreamAnswer]:
        for name in sorted(self.machines):
            machine = self.machines[name]
            for stream in sorted(machine.streams):
                yield machine.streams[stream].answer(name, machine.silent)
