"""The one clock of all live sources, and the detection of a suspended machine."""

from __future__ import annotations

import time

import pytest

from perceiverd.core.clock import SuspendDetector, now_ns, utc_ns

MS = 1_000_000


def test_it_is_clock_monotonic() -> None:
    """now_ns is CLOCK_MONOTONIC, so that all processes of a machine agree."""
    assert now_ns() == pytest.approx(time.clock_gettime_ns(time.CLOCK_MONOTONIC), abs=10**9)


def test_utc_of_a_moment() -> None:
    """A moment five seconds ago was at the UTC time five seconds ago."""
    assert utc_ns(now_ns() - 5 * 10**9) == pytest.approx(time.time_ns() - 5 * 10**9, abs=10**9)


def test_a_suspend_is_noticed_once() -> None:
    """By how much the clock that goes on in it has left the other behind; a few milliseconds are none."""
    asleep = iter([7 * 10**9, 7 * 10**9 + 40 * MS, 3607 * 10**9 + 40 * MS, 3607 * 10**9 + 40 * MS])
    wakes = SuspendDetector(lambda: next(asleep))
    assert [wakes.slept_ns() for _ in range(3)] == [0, 3600 * 10**9, 0]


def test_a_machine_that_is_awake_does_not_sleep() -> None:
    """The real clocks do not part, however often they are asked."""
    wakes = SuspendDetector()
    assert {wakes.slept_ns() for _ in range(1000)} == {0}
