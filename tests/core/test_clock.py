"""CLOCK_MONOTONIC, UTC, and suspends of the machine."""

import time

import pytest

from perceiverd.core.clock import SuspendDetector, now_ns, utc_ns

MS = 1_000_000


def test_the_clock_is_monotonic() -> None:
    """now_ns is CLOCK_MONOTONIC, which is the same for all processes of a machine."""
    assert now_ns() == pytest.approx(time.clock_gettime_ns(time.CLOCK_MONOTONIC), abs=10**9)


def test_utc_of_a_monotonic_time() -> None:
    """A moment five seconds ago was at the UTC time five seconds ago."""
    assert utc_ns(now_ns() - 5 * 10**9) == pytest.approx(time.time_ns() - 5 * 10**9, abs=10**9)


def test_a_suspend_is_noticed_once() -> None:
    """A suspend is reported once, with its length; a difference of a few milliseconds is not a suspend."""
    asleep = iter([7 * 10**9, 7 * 10**9 + 40 * MS, 3607 * 10**9 + 40 * MS, 3607 * 10**9 + 40 * MS])
    detector = SuspendDetector(lambda: next(asleep))
    assert [detector.slept_ns() for _ in range(3)] == [0, 3600 * 10**9, 0]


def test_a_machine_that_is_awake_does_not_sleep() -> None:
    """The two real clocks stay together while the machine is awake."""
    detector = SuspendDetector()
    assert {detector.slept_ns() for _ in range(1000)} == {0}
