"""A fit of a device's own clock to CLOCK_MONOTONIC. Pure: its caller tells it the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from perceiverd.core.media import NS_PER_S, Timing

BLOCK_NS = 2 * NS_PER_S
BLOCKS = 30
"""The line is laid under the least late reading of each of the last 30 blocks, a minute: all there is, for months."""
SLOPE_FROM_NS = 8 * NS_PER_S
"""With less to go by, the drift is what it was before, or none: 300 ppm are then 2.4 ms at the worst."""
DRIFT_FROM_NS = 20 * NS_PER_S
"""With less to go by, the drift is not told: a network's jitter would make hundreds of ppm of nothing."""
SLOPE_MOST = 500e-6
"""No crystal is further off; what seems to be is jitter."""
LATE_NS, EARLY_NS = 12_000_000, 6_000_000
"""Readings further than this from the line are suspect. Nothing comes before its time, so less is enough there; late
ones leave room for what the line itself errs when a step of 20 ms comes."""
SPREADS = 3
"""Where few readings come, and haltingly, the line errs more: so many times the mean distance of what it lies under."""
SETTLE_READINGS, SETTLE_NS = 25, NS_PER_S
"""The first readings may all be late: until there are so many over so long, an earlier one only mends the line."""
STEP_NS, STEP_READINGS = 2 * NS_PER_S, 25
"""A late batch ends within this; what stays late, and as late, for longer and in so many readings, has stepped."""
STEP_MOST_NS = 10 * NS_PER_S
"""A backlog that is worked off gets less late all the while: it is waited for, but no longer than this."""
HELD_READINGS = 512
EARLY_READINGS = 3
"""A step forward shows in the first reading that is not too late itself; two more make sure of it."""
ASLEEP_NS = 60 * NS_PER_S
"""After so long without a reading the line says nothing any more."""
JITTER_READINGS = 256


class ClockFit:
    """A running fit of a device's time to CLOCK_MONOTONIC: at = device + offset + drift.

    What arrives soonest after it was taken was delayed least, so the line lies under all readings, as close as it
    can: late ones cannot pull it, however many and however late. A step is told from lateness by its lasting.
    """

    def __init__(self) -> None:
        self._under: _Envelope | None = None
        self._late: deque[_Reading] = deque(maxlen=HELD_READINGS)
        """Readings that were all late, of the last while."""
        self._late_since_ns: int | None = None
        self._early: list[_Reading] = []
        self._at_ns = 0
        self._jitter_ns, self._readings, self._steps = 0.0, 0, 0

    @property
    def suspect(self) -> bool:
        """Whether a step may have come: what was taken since can't be told its time until `note` has had more."""
        return self._late_since_ns is not None or bool(self._early)

    @property
    def timing(self) -> Timing:
        """What was found out so far."""
        drift_ppm = self._under.drift_ppm if self._under else None
        return Timing(drift_ppm, self._jitter_ns / 1e6, self._steps)

    def note(self, device_ns: int, at_ns: int) -> bool:
        """Take a reading: our clock said `at_ns` when, or some jitter after, the device said `device_ns`.

        True where a sudden step has been found: then `at` is of the line that begins anew, and what is mapped by it
        does not belong to what was mapped before.
        """
        reading = _Reading(device_ns, at_ns - device_ns)
        quiet_ns, self._at_ns = at_ns - self._at_ns, at_ns
        if self._under is None:
            self._under = _Envelope([reading])
            return False
        if quiet_ns > ASLEEP_NS:
            return self._stepped([reading])
        late_ns = reading.off_ns - self._under.off_ns(device_ns)
        doubt_ns = round(SPREADS * self._under.spread_ns)
        if late_ns > max(LATE_NS, doubt_ns):
            return self._is_late(reading)
        self._on_time(late_ns)
        if late_ns < -max(EARLY_NS, doubt_ns) and self._under.settled:
            self._early.append(reading)
            return len(self._early) >= EARLY_READINGS and self._stepped(self._early)
        if self._early and at_ns - self._early[0].at_ns > STEP_NS:
            self._early = []  # they were nothing but wrong
        self._under.add(reading)
        return False

    def at(self, device_ns: int) -> int:
        """When, on CLOCK_MONOTONIC, the device's clock said this; the device's own time before the first reading."""
        return device_ns + (self._under.off_ns(device_ns) if self._under else 0)

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
        """What was late was only late."""
        assert self._under
        for reading in self._late:
            self._scattered(reading.off_ns - self._under.off_ns(reading.device_ns))
        self._late.clear()
        self._late_since_ns = None
        self._scattered(late_ns)

    def _stepped(self, readings: list[_Reading]) -> bool:
        self._under = _Envelope(readings, self._under)
        self._late.clear()
        self._late_since_ns, self._early = None, []
        self._steps += 1
        return True

    def _scattered(self, late_ns: int) -> None:
        self._readings = min(JITTER_READINGS, self._readings + 1)
        self._jitter_ns += (max(0, late_ns) - self._jitter_ns) / self._readings


class _Reading(NamedTuple):
    """What the device said, and how much more our clock did."""

    device_ns: int
    off_ns: int

    @property
    def at_ns(self) -> int:
        return self.device_ns + self.off_ns


class _Envelope:
    """The line under the readings' offsets, through the least of each block."""

    def __init__(self, readings: Sequence[_Reading], before: _Envelope | None = None) -> None:
        """`before` is the one that this one follows after a step: it is the same crystal."""
        first = readings[0]
        self.spread_ns: float = before.spread_ns if before else 0.0
        """How far the least readings of the blocks are above the line, on average."""
        self._slope: float = before._slope if before else 0.0  # what the offset gains in a nanosecond of device time
        self._known = before is not None and before.drift_ppm is not None
        self._first_ns = self._anchor_ns = self._block_ns = first.device_ns
        self._level_ns, self._readings = first.off_ns, 1  # the level is the offset at the anchor
        self._least: deque[_Reading] = deque([first], BLOCKS)
        for reading in readings[1:]:
            self.add(reading)

    @property
    def settled(self) -> bool:
        """Whether a reading that comes before its time can be trusted to say more than that the others were late."""
        return self._readings >= SETTLE_READINGS and self._block_ns - self._first_ns >= SETTLE_NS

    @property
    def drift_ppm(self) -> float | None:
        """How fast the device's clock runs; None until it can be told."""
        return -self._slope * 1e6 if self._known or self._span_ns >= DRIFT_FROM_NS else None

    def off_ns(self, device_ns: int) -> int:
        """What our clock says more than the device."""
        return self._level_ns + round(self._slope * (device_ns - self._anchor_ns))

    def add(self, reading: _Reading) -> None:
        """Take a reading: the line gives way to one below it."""
        self._readings += 1
        if reading.device_ns - self._block_ns >= BLOCK_NS:
            self._lay(reading.device_ns)
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

    def _lay(self, device_ns: int) -> None:
        """Lay the line anew: with the slope that the hull has in the middle, as high as no point is under it."""
        if self._span_ns >= SLOPE_FROM_NS:
            self._slope = max(-SLOPE_MOST, min(SLOPE_MOST, _slope_under(self._least)))
        self._anchor_ns = device_ns
        self._level_ns = min(off_ns + round(self._slope * (device_ns - at_ns)) for at_ns, off_ns in self._least)
        self.spread_ns = sum(map(self._above_ns, self._least)) / len(self._least)


def _slope_under(points: Sequence[_Reading]) -> float:
    """The slope of the points' lower convex hull where it passes their mean time.

    Of all lines that lie under all points that one has the least distance to them in sum, which makes it the most
    likely one where delays are exponential.
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
    """Whether the point is under the line from left to right."""
    rise = (point.off_ns - left.off_ns) * (right.device_ns - left.device_ns)
    return rise < (right.off_ns - left.off_ns) * (point.device_ns - left.device_ns)
