"""A publisher that runs on a thread of its own, as a daemon runs beside other programs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

import msgspec

from perceiverd.wire import Hello, Message
from perceiverd.wire.publisher import Publisher
from tests.support import messages
from tests.support.messages import LOOPBACK

BEAT_S = 0.1
START_S = 30


class RunningDaemon:
    """Sends statuses and scores of its streams ten times a second, and what the test gives it."""

    def __init__(self, streams: Sequence[str] = ("door",), clock_ahead_s: float = 0.0) -> None:
        self.streams = streams
        self.silent = False
        """Set it to hang the daemon."""
        self.explained = False
        """Whether somebody subscribes to reasons."""
        self._ahead = timedelta(seconds=clock_ahead_s)
        self._wanted: queue.Queue[Message] = queue.Queue(10_000)
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="daemon")
        self.endpoint = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(START_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(START_S)

    def send(self, *wanted: Message) -> None:
        """Publish these soon."""
        for each in wanted:
            self._wanted.put(each)

    def hello(self) -> Hello:
        """What it says of itself."""
        return messages.hello(*self.streams)

    def _run(self) -> None:
        with Publisher(LOOPBACK) as publisher:
            self.endpoint = publisher.endpoint
            publisher.send(self.hello())
            self._ready.set()
            beat_s = 0.0
            while not self._stop.wait(0.005):
                if self.silent:
                    continue
                publisher.handle_subscribers()
                self.explained = any(publisher.is_requested(f"explain/{each}/") for each in self.streams)
                while not self._wanted.empty():
                    publisher.send(self._wanted.get())
                if time.monotonic() >= beat_s:
                    beat_s = time.monotonic() + BEAT_S
                    self._beat(publisher)

    def _beat(self, publisher: Publisher) -> None:
        now = datetime.now(UTC) + self._ahead
        for stream in self.streams:
            publisher.send(msgspec.structs.replace(messages.status(stream), time=now))
            publisher.send(messages.scores(stream))
