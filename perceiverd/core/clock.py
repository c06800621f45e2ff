"""The clock of everything live: CLOCK_MONOTONIC in integer nanoseconds, and UTC derived from it for the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from perceiverd.core.media import NS_PER_S

Clock = Callable[[], int]
"""Returns the time now in nanoseconds; `now_ns` in production, a counter in tests."""

ASLEEP_LEAST_NS = NS_PER_S // 20
"""A shorter suspend is no more than a late reading of two clocks one after the other."""


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


def asleep_ns() -> int:
    """For how long this machine has been suspended since it was booted: CLOCK_MONOTONIC stood still meanwhile."""
    readings = []
    for _ in range(3):  # of which the one in which the least came between the two clocks is right
        before_ns, boot_ns = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        readings.append((time.monotonic_ns() - before_ns, boot_ns - before_ns))
    return min(readings)[1]


class SuspendDetector:
    """Notices that the machine was suspended; pure but for the clock that it is given."""

    def __init__(self, asleep: Clock = asleep_ns) -> None:
        self._asleep, self._before_ns = asleep, asleep()

    def slept_ns(self) -> int:
        """For how long the machine has slept since this was asked last; 0 where it did not, or hardly."""
        before_ns, self._before_ns = self._before_ns, self._asleep()
        slept_ns = self._before_ns - before_ns
        return slept_ns if slept_ns > ASLEEP_LEAST_NS else 0
