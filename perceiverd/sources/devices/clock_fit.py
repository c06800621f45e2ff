"""Fits a device's own clock to CLOCK_MONOTONIC. Pure: the caller passes pairs of readings. Knows no device.

A reading is a pair: the device's time, and our clock's time when we received it, which may be late. The fit is a line
below all readings, because a device's data cannot come before its time, only after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from perceiverd.core.media import NS_PER_S, Timing

BLOCK_NS = 2 * NS_PER_S
BLOCKS = 30
"""The line lies below the least late reading of each of the last 30 blocks, a minute. No more is kept, for months."""
SLOPE_FROM_NS = 8 * NS_PER_S
"""With readings over less time, the drift stays as it was before, or 0: 300 ppm are then 2.4 ms at most."""
DRIFT_FROM_NS = 20 * NS_PER_S
"""With readings over less time, the drift is not reported: a network's jitter would look like hundreds of ppm."""
SLOPE_MOST = 500e-6
"""No crystal is further off; a larger slope comes from jitter."""
LATE_NS, EARLY_NS = 12_000_000, 6_000_000
"""Readings further than this from the line are suspect. Nothing comes before its time, so the bound for early readings
is tighter. The bound for late ones leaves room for the line's own error when a step of 20 ms comes."""
SPREADS = 3
"""If readings are few and irregular, the line is less exact: then the bounds are this many times the mean distance of
the least readings from the line."""
SETTLE_READINGS, SETTLE_NS = 25, NS_PER_S
"""The first readings may all be late. Until there are this many over this time, an early one only corrects the line."""
STEP_NS, STEP_READINGS = 2 * NS_PER_S, 25
"""A late batch ends within this time. If readings stay late by the same amount for longer, the clock has stepped."""
STEP_MOST_NS = 10 * NS_PER_S
"""The lateness of a backlog shrinks while it is read: we wait for its end, but no longer than this."""
HELD_READINGS = 512
EARLY_READINGS = 3
"""A step forward shows in the first reading that is not too late itself; two more confirm it."""
ASLEEP_NS = 60 * NS_PER_S
"""After this long without a reading, the line is no longer valid."""
JITTER_READINGS = 256


class ClockFit:
    """A running fit of a device's time to CLOCK_MONOTONIC: our time = device time + offset + drift.

    The reading that comes soonest after its time was delayed least. So the line lies below all readings, as close as it
    can: late ones cannot move it, however many and however late. A step differs from lateness because it lasts.
    """

    def __init__(self) -> None:
        self._line: _Envelope | None = None
        self._late: deque[_Reading] = deque(maxlen=HELD_READINGS)
        """The readings since the last one in time; all of them are late."""
        self._late_since_ns: int | None = None
        self._early: list[_Reading] = []
        self._at_ns = 0
        self._jitter_ns, self._readings, self._steps = 0.0, 0, 0

    @property
    def suspect(self) -> bool:
        """Whether a step may have happened: the time of newer data is in doubt until `add` gets more readings."""
        return self._late_since_ns is not None or bool(self._early)

    @property
    def timing(self) -> Timing:
        """What is known so far."""
        drift_ppm = self._line.drift_ppm if self._line else None
        return Timing(drift_ppm, self._jitter_ns / 1e6, self._steps)

    def add(self, device_ns: int, at_ns: int) -> bool:
        """Add a reading: at `at_ns` on our clock, or some jitter earlier, the device's clock showed `device_ns`.

        True if a sudden step was found. `at` then uses a new line, and the times that it returns do not continue the
        earlier ones.
        """
        reading = _Reading(device_ns, at_ns - device_ns)
        pause_ns, self._at_ns = at_ns - self._at_ns, at_ns
        if self._line is None:
            self._line = _Envelope([reading])
            return False
        if pause_ns > ASLEEP_NS:
            return self._stepped([reading])
        late_ns = reading.off_ns - self._line.off_ns(device_ns)
        doubt_ns = round(SPREADS * self._line.spread_ns)
        if late_ns > max(LATE_NS, doubt_ns):
            return self._is_late(reading)
        self._on_time(late_ns)
        if late_ns < -max(EARLY_NS, doubt_ns) and self._line.settled:
            self._early.append(reading)
            return len(self._early) >= EARLY_READINGS and self._stepped(self._early)
        if self._early and at_ns - self._early[0].at_ns > STEP_NS:
            self._early = []  # they were wrong readings
        self._line.add(reading)
        return False

    def at(self, device_ns: int) -> int:
        """The time on CLOCK_MONOTONIC when the device's clock showed this; the same time before the first reading."""
        return device_ns + (self._line.off_ns(device_ns) if self._line else 0)

    def _is_late(self, reading: _Reading) -> bool:
        if self._late_since_ns is None:
            self._late_since_ns = self._at_ns
        self._late.append(reading)
        while len(self._late) > STEP_READINGS and self._late[0].at_ns < self._at_ns - STEP_NS:
            self._late.popleft()
        lasts_ns = self._at_ns - self._late_since_ns
        if lasts_ns < STEP_NS or len(self._late) < STEP_READINGS:
            return False
        readings = list(self._late)
        before, after = readings[: len(readings) // 2], readings[len(readings) // 2 :]
        as_late = abs(min(each.off_ns for each in before) - min(each.off_ns for each in after)) < EARLY_NS
        return (as_late or lasts_ns >= STEP_MOST_NS) and self._stepped(readings if as_late else after)

    def _on_time(self, late_ns: int) -> None:
        """A reading is in time, so the late ones before it were only late: there is no step."""
        assert self._line
        for reading in self._late:
            self._scattered(reading.off_ns - self._line.off_ns(reading.device_ns))
        self._late.clear()
        self._late_since_ns = None
        self._scattered(late_ns)

    def _stepped(self, readings: list[_Reading]) -> bool:
        self._line = _Envelope(readings, self._line)
        self._late.clear()
        self._late_since_ns, self._early = None, []
        self._steps += 1
        return True

    def _scattered(self, late_ns: int) -> None:
        self._readings = min(JITTER_READINGS, self._readings + 1)
        self._jitter_ns += (max(0, late_ns) - self._jitter_ns) / self._readings


class _Reading(NamedTuple):
    """The device's time, and how much further our clock was."""

    device_ns: int
    off_ns: int

    @property
    def at_ns(self) -> int:
        return self.device_ns + self.off_ns


class _Envelope:
    """The line below the readings' offsets, from the least offset of each block."""

    def __init__(self, readings: Sequence[_Reading], before: _Envelope | None = None) -> None:
        """`before` is the line before a step: the crystal is the same, so its drift still holds."""
        first = readings[0]
        self.spread_ns: float = before.spread_ns if before else 0.0
        """Mean distance of the blocks' least offsets above the line."""
        self._slope: float = before._slope if before else 0.0  # gain of the offset in a nanosecond of device time
        self._known = before is not None and before.drift_ppm is not None
        self._first_ns = self._anchor_ns = self._block_ns = first.device_ns
        self._level_ns, self._readings = first.off_ns, 1  # the level is the offset at the anchor
        self._least: deque[_Reading] = deque([first], BLOCKS)
        for reading in readings[1:]:
            self.add(reading)

    @property
    def settled(self) -> bool:
        """Whether an early reading can mean a step, and not only that all others were late."""
        return self._readings >= SETTLE_READINGS and self._block_ns - self._first_ns >= SETTLE_NS

    @property
    def drift_ppm(self) -> float | None:
        """How fast the device's clock runs; None until it is known."""
        return -self._slope * 1e6 if self._known or self._span_ns >= DRIFT_FROM_NS else None

    def off_ns(self, device_ns: int) -> int:
        """How much further our clock is than the device's."""
        return self._level_ns + round(self._slope * (device_ns - self._anchor_ns))

    def add(self, reading: _Reading) -> None:
        """Add a reading; one below the line moves the line down."""
        self._readings += 1
        if reading.device_ns - self._block_ns >= BLOCK_NS:
            self._fit(reading.device_ns)
            self._block_ns = reading.device_ns
            self._least.append(reading)
        elif self._above_ns(reading) < self._above_ns(self._least[-1]):
            self._least[-1] = reading
        self._level_ns += min(0, self._above_ns(reading))

    @property
    def _span_ns(self) -> int:
        return self._least[-1].device_ns - self._least[0].device_ns

    def _above_ns(self, reading: _Reading) -> int:
        return reading.off_ns - self.off_ns(reading.device_ns)

    def _fit(self, device_ns: int) -> None:
        """Fit the line again: with the slope of the hull in its middle, as high as possible with no point below it."""
        if self._span_ns >= SLOPE_FROM_NS:
            self._slope = max(-SLOPE_MOST, min(SLOPE_MOST, _slope_under(self._least)))
        self._anchor_ns = device_ns
        self._level_ns = min(off_ns + round(self._slope * (device_ns - at_ns)) for at_ns, off_ns in self._least)
        self.spread_ns = sum(map(self._above_ns, self._least)) / len(self._least)


def _slope_under(points: Sequence[_Reading]) -> float:
    """The slope of the points' lower convex hull where it passes their mean time.

    Of all lines below all points, this one has the least sum of distances to them. If delays are exponential, it is the
    most likely line.
    """
    hull: list[_Reading] = []
    for point in points:
        while len(hull) > 1 and not _is_under(hull[-1], hull[-2], point):
            hull.pop()
        hull.append(point)
    middle_ns = sum(point.device_ns for point in points) / len(points)
    right = next(i for i in range(1, len(hull)) if hull[i].device_ns >= middle_ns)
    run_ns = hull[right].device_ns - hull[right - 1].device_ns
    return (hull[right].off_ns - hull[right - 1].off_ns) / run_ns


def _is_under(point: _Reading, left: _Reading, right: _Reading) -> bool:
    """Whether the point is below the line from left to right."""
    rise = (point.off_ns - left.off_ns) * (right.device_ns - left.device_ns)
    return rise < (right.off_ns - left.off_ns) * (point.device_ns - left.device_ns)
