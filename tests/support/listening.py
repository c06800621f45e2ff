"""Receives what a daemon publishes until something comes that a test waits for."""

import time
from collections.abc import Callable
from typing import TypeVar

from perceiverd.wire import Item, Subscription
from perceiverd.wire.messages import Message

T = TypeVar("T")
DEADLINE_S = 90
"""A loaded machine takes half a minute to load torch and the model."""


def listen(subscription: Subscription, done: Callable[[Message], bool]) -> list[Message]:
    """The messages until one for which `done` holds, including it."""
    return _until(subscription.receive_message, done)


def listen_to_all(subscription: Subscription, done: Callable[[Item], bool]) -> list[Item]:
    """The same with gaps, restarts and stale times."""
    return _until(subscription.receive, done)


def _until(receive: Callable[[float], T | None], done: Callable[[T], bool]) -> list[T]:
    received: list[T] = []
    end_s = time.monotonic() + DEADLINE_S
    while not received or not done(received[-1]):
        assert time.monotonic() < end_s, f"not received in time; {len(received)} messages"
        if (item := receive(1)) is not None:
            received.append(item)
    return received
