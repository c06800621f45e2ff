"""The clock of everything live."""

from __future__ import annotations

import time

import pytest

from perceiverd.clock import now_ns, utc_ns


def test_it_is_clock_monotonic() -> None:
    """now_ns is CLOCK_MONOTONIC, so that all processes of a machine agree."""
    assert now_ns() == pytest.approx(time.clock_gettime_ns(time.CLOCK_MONOTONIC), abs=10**9)


def test_utc_of_a_moment() -> None:
    """A moment five seconds ago was at the UTC time five seconds ago."""
    assert utc_ns(now_ns() - 5 * 10**9) == pytest.approx(time.time_ns() - 5 * 10**9, abs=10**9)
