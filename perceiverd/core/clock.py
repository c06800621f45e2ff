"""The clock of all live media: CLOCK_MONOTONIC in integer nanoseconds, and UTC derived from it for the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from perceiverd.core.media import NS_PER_S

Clock = Callable[[], int]
"""Returns the time now in nanoseconds; `now_ns` in production, a counter in tests."""

ASLEEP_LEAST_NS = NS_PER_S // 20
"""A shorter difference is no suspend: the two clocks are read one after the other."""


def now_ns() -> int:
    """CLOCK_MONOTONIC, which never steps and is the same for all processes of a machine."""
    return time.monotonic_ns()


def utc_ns(monotonic_ns: int) -> int:
    """The UTC time, in nanoseconds since 1970, of a moment on CLOCK_MONOTONIC.

    Computed at every call, so it follows if the machine's wall clock is set.
    """
    return time.time_ns() - time.monotonic_ns() + monotonic_ns


def utc(monotonic_ns: int) -> datetime:
    """The same as a datetime, for the wire."""
    return datetime.fromtimestamp(utc_ns(monotonic_ns) / 1e9, UTC)


def asleep_ns() -> int:
    """How long this machine has been suspended since it booted. CLOCK_MONOTONIC stands still during a suspend."""
    readings = []
    for _ in range(3):  # the best is the one with the least time between the two clocks
        before_ns, boot_ns = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        readings.append((time.monotonic_ns() - before_ns, boot_ns - before_ns))
    return min(readings)[1]


class SuspendDetector:
    """Detects that the machine was suspended, by the clock that it is given."""

    def __init__(self, asleep: Clock = asleep_ns) -> None:
        self._asleep, self._before_ns = asleep, asleep()

    def slept_ns(self) -> int:
        """How long the machine was suspended since the last call; 0 if it was not."""
        before_ns, self._before_ns = self._before_ns, self._asleep()
        slept_ns = self._before_ns - before_ns
        return slept_ns if slept_ns > ASLEEP_LEAST_NS else 0
