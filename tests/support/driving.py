"""Polls a supervisor until enough has arrived, and sorts what did. Shared by the tests of sources."""

from __future__ import annotations

import time
from collections.abc import Callable

from perceiverd.core.media import Chunk, Frame
from perceiverd.sources.process.arrivals import Arrival, StateChange
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.process.supervisor import Supervisor


def drive(running: Supervisor, until: Callable[[list[Arrival]], bool], within_s: float = 60) -> list[Arrival]:
    """Poll until `until` accepts what has arrived; fails if that takes too long."""
    arrivals: list[Arrival] = []
    end_s = time.monotonic() + within_s
    while not until(arrivals):
        assert time.monotonic() < end_s, [a for a in arrivals if isinstance(a.what, StateChange)]
        arrivals += running.poll(100)
    return arrivals


def media(arrivals: list[Arrival], stream: str) -> list[Frame | Chunk]:
    """The frames and chunks of a stream."""
    return [a.what for a in arrivals if a.stream == stream and isinstance(a.what, Frame | Chunk)]


def states(arrivals: list[Arrival], stream: str) -> list[RunState]:
    """The states that a stream's sources entered, in order."""
    return [a.what.state for a in arrivals if a.stream == stream and isinstance(a.what, StateChange)]


def all_up(running: Supervisor, *streams: str) -> Callable[[list[Arrival]], bool]:
    """For `drive`: whether all sources of these streams are up."""
    return lambda _: all(source.state is RunState.UP for stream in streams for source in running.state(stream))
