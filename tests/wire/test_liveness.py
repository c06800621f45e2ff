"""Silence is told once, and its end once; against a real publisher."""

import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from perceiverd.wire import liveness
from perceiverd.wire.client import Item, subscribe
from perceiverd.wire.liveness import Silence
from perceiverd.wire.publisher import Publisher
from tests.cli.test_activity import HELLO, STATUS

DEADLINE_S = 40


def until(
    items: Iterator[Item | Silence | None], done: Callable[[Item | Silence | None], bool]
) -> list[Item | Silence]:
    """What comes until something for which `done` holds, that included."""
    heard: list[Item | Silence] = []
    end_s = time.monotonic() + DEADLINE_S
    for item in items:
        assert time.monotonic() < end_s
        heard += [] if item is None else [item]
        if done(item):
            break
    return heard


def test_a_silence_is_told_once_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it lasts there is one word of it; who draws is called upon all the same."""
    monkeypatch.setattr(liveness, "LEAST_S", 0.3)
    with Publisher("tcp://127.0.0.1:*") as publisher, subscribe(publisher.endpoint) as subscription:
        items = liveness.told(subscription, 0.02)
        first = until(items, lambda item: isinstance(item, Silence))
        assert [item.over for item in first if isinstance(item, Silence)] == [False]
        drawn = [next(items) for _ in range(20)]
        assert drawn == [None] * 20

        def publish(item: Item | Silence | None) -> bool:
            publisher.attend()
            publisher.send(STATUS)
            return isinstance(item, Silence)

        (*_, again) = until(items, publish)
        assert isinstance(again, Silence)
        assert again.over
        assert again.seconds > 0.3


def test_a_daemon_may_have_a_slow_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of the daemon's own intervals must pass before its silence is one."""
    monkeypatch.setattr(liveness, "LEAST_S", 0.1)
    with Publisher("tcp://127.0.0.1:*") as publisher, subscribe(publisher.endpoint) as subscription:
        items = liveness.told(subscription, 0.02)

        def greet(item: Item | Silence | None) -> bool:
            publisher.attend()
            publisher.send(msgspec.structs.replace(HELLO, status_interval_s=0.3))
            return item is not None and not isinstance(item, Silence)

        until(items, greet)
        until(items, lambda item: item is None)
        (quiet,) = until(items, lambda item: isinstance(item, Silence))
        assert isinstance(quiet, Silence)
        assert quiet.seconds >= 0.9
