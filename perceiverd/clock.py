"""The clock of everything live: CLOCK_MONOTONIC in integer nanoseconds, and UTC derived from it for the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Returns the time now in nanoseconds; `now_ns` in production, a counter in tests."""


def now_ns() -> int:
    """CLOCK_MONOTONIC, which never steps and is one clock for all processes of a machine."""
    return time.monotonic_ns()


def utc_ns(monotonic_ns: int) -> int:
    """The UTC time, in nanoseconds since 1970, of a moment on CLOCK_MONOTONIC.

    Derived afresh on every call, so that it follows when the machine's wall clock is set.
    """
    return time.time_ns() - time.monotonic_ns() + monotonic_ns


def utc(monotonic_ns: int) -> datetime:
    """The same as a date and time of day, for the wire."""
    return datetime.fromtimestamp(utc_ns(monotonic_ns) / 1e9, UTC)
