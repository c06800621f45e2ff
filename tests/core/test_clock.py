"""The clock of everything live, and the line that lays a device's clock onto it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.core.clock import SuspendDetector, now_ns, utc_ns
from perceiverd.core.media import NS_PER_S
from perceiverd.sources.devices.clock_fit import BLOCKS, HELD_READINGS, ClockFit, _Reading, _slope_under

MS = 1_000_000
STEPS_MS = st.one_of(st.integers(20, 2000), st.integers(-2000, -20))


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


@dataclass(frozen=True)
class Device:
    """A device whose clock drifts and steps, read in order and sometimes late: the truth to compare with."""

    ppm: float = 0.0
    rate_hz: float = 50.0
    jitter_ms: float = 2.0
    """Mean of the exponential lateness of its readings."""
    outliers: float = 0.001
    """Share of readings that are 100 to 800 ms late."""
    steps: tuple[tuple[float, float], ...] = ()
    """(when in seconds, by how many milliseconds our clock then says more than the device)."""
    stall_s: tuple[float, float] = (0.0, 0.0)
    """Nothing is read from here to there; then all of it at once."""
    seed: int = 0

    def readings(self, seconds: float) -> Iterator[tuple[int, int, int]]:
        """(when it was on our clock, what the device said, when we read it), in nanoseconds."""
        chance, last_ns = random.Random(self.seed), 0
        for n in range(round(seconds * self.rate_hz)):
            true_s = 1 + n / self.rate_hz
            true_ns = round(true_s * NS_PER_S)
            ahead_ms = sum(by_ms for when_s, by_ms in self.steps if true_s >= when_s)
            device_ns = 987_654_321_000 + round(true_ns * (1 + self.ppm * 1e-6)) - round(ahead_ms * MS)
            late_ns = round(chance.expovariate(1 / self.jitter_ms) * MS)
            if chance.random() < self.outliers:
                late_ns += round(chance.uniform(100, 800) * MS)
            at_ns = max(true_ns + late_ns, last_ns)
            if self.stall_s[0] <= true_s < self.stall_s[1]:
                at_ns = max(at_ns, round(self.stall_s[1] * NS_PER_S))
            last_ns = at_ns
            yield true_ns, device_ns, at_ns


@dataclass
class Seen:
    """What a line made of a device."""

    line: ClockFit
    found_s: list[float]
    errors: list[tuple[float, float]]
    """(second, error in milliseconds) of everything that needed not be held."""

    def worst_ms(self, from_s: float = 0.0, to_s: float = float("inf")) -> float:
        return max(abs(error) for at_s, error in self.errors if from_s <= at_s < to_s)


def watched(device: Device, seconds: float) -> Seen:
    seen = Seen(ClockFit(), [], [])
    held: list[tuple[int, int]] = []
    for true_ns, device_ns, at_ns in device.readings(seconds):
        stepped = seen.line.note(device_ns, at_ns)
        if stepped:
            seen.found_s.append(true_ns / NS_PER_S)
        held.append((true_ns, device_ns))
        if not seen.line.suspect:
            for true, said in held[-1:] if stepped else held:
                seen.errors.append((true / NS_PER_S, (seen.line.at(said) - true) / MS))
            held.clear()
    return seen


def test_the_first_reading_will_do() -> None:
    """From the first reading on the line maps with no more error than that reading was late."""
    line = ClockFit()
    assert not line.note(5 * NS_PER_S, 700 * NS_PER_S)
    assert line.at(5 * NS_PER_S + 12_345) == 700 * NS_PER_S + 12_345
    assert line.timing.drift_ppm is None


@settings(max_examples=15, deadline=None)
@given(ppm=st.floats(-300, 300), jitter_ms=st.floats(0.05, 8), seed=st.integers(0, 999))
def test_it_follows_drift(ppm: float, jitter_ms: float, seed: int) -> None:
    """Drift to 300 ppm is followed with less than 5 ms of error from the second second on, whatever comes late."""
    seen = watched(Device(ppm, jitter_ms=jitter_ms, outliers=0.005, seed=seed), 90)
    assert not seen.found_s
    assert seen.worst_ms(2) < 5
    assert seen.worst_ms(30) < 1.5
    drift_ppm = seen.line.timing.drift_ppm
    assert drift_ppm is not None
    assert drift_ppm == pytest.approx(ppm, abs=15)


@settings(max_examples=15, deadline=None)
@given(step_ms=STEPS_MS, ppm=st.floats(-300, 300), jitter_ms=st.floats(0.05, 3), seed=st.integers(0, 999))
def test_a_step_is_found(step_ms: int, ppm: float, jitter_ms: float, seed: int) -> None:
    """A step of 20 ms and more, of either sign, is found once and within 2.5 s; from then on the line is right."""
    seen = watched(Device(ppm, jitter_ms=jitter_ms, outliers=0, steps=((40.0, step_ms),), seed=seed), 60)
    assert len(seen.found_s) == 1
    assert 40 <= seen.found_s[0] < 42.5
    assert seen.line.timing.steps == 1
    # Forward, a reading as late as the step is far can't be told from one in time.
    assert seen.worst_ms(2) < (5 if step_ms > 0 else 5 + 12 * jitter_ms)
    assert seen.worst_ms(seen.found_s[0] + 1) < 5


@settings(max_examples=15, deadline=None)
@given(stall_s=st.floats(0.1, 9), seed=st.integers(0, 999), rate_hz=st.sampled_from([10, 25, 50, 100]))
def test_a_late_batch_is_no_step(stall_s: float, seed: int, rate_hz: int) -> None:
    """When nothing is read for seconds and then everything at once, nothing has stepped and no time is wrong."""
    seen = watched(Device(100, rate_hz=rate_hz, stall_s=(20, 20 + stall_s), seed=seed), 45)
    assert not seen.found_s
    assert seen.worst_ms(2) < 5


@pytest.mark.parametrize("pace", [1.5, 3.0])
def test_a_backlog_worked_off_is_no_step(pace: float) -> None:
    """Three seconds late and catching up for seconds: as it gets less late all the while it is waited for."""
    line, at_ns = ClockFit(), 0
    for n in range(3000):
        true_ns = n * 20 * MS
        at_ns = max(true_ns, at_ns + round(20 * MS / pace), 23 * NS_PER_S if n >= 1000 else 0)
        assert not line.note(true_ns, at_ns)
    assert not line.suspect


def test_suspicion_is_bounded() -> None:
    """What gets later and later, as no clock does, is a step after 10 s; what is held until then is bounded."""
    line = ClockFit()
    for n in range(500):
        line.note(n * 20 * MS, n * 20 * MS)
    for n in range(500, 1010):
        found = line.note(n * 20 * MS, n * 20 * MS + (n - 490) * 5 * MS)
        assert len(line._late) <= HELD_READINGS
        if found:
            break
    assert line.timing.steps == 1 and not line.suspect


def test_one_absurd_reading_is_forgotten() -> None:
    """A single reading from the future, as a driver with a fault may give, moves nothing."""
    line = ClockFit()
    for n in range(1000):
        strange = 500 * NS_PER_S if n == 500 else 0
        assert not line.note(n * 20 * MS + strange, n * 20 * MS)
        assert abs(line.at(n * 20 * MS) - n * 20 * MS) < MS
    assert not line.suspect


def test_after_a_long_sleep_the_line_begins_anew() -> None:
    """After minutes without a reading the old line is worth nothing: a step, and the crystal's drift is kept."""
    seen = watched(Device(100), 60)
    before = seen.line.timing.drift_ppm
    assert seen.line.note(0, 500 * NS_PER_S)
    assert seen.line.at(0) == 500 * NS_PER_S
    assert seen.line.timing.drift_ppm == before


def test_slow_and_rare_readings() -> None:
    """One picture a second from a network that jitters by 20 ms: hardly a false step in an hour, 20 ms of error."""
    seen = watched(Device(100, rate_hz=1, jitter_ms=20, outliers=0.01), 3600)
    assert len(seen.found_s) <= 1
    assert seen.worst_ms(10) < 20


def test_a_month_needs_no_more_memory_than_a_minute() -> None:
    """After 30 days at one reading a second as little is kept as after one minute, and the error is as small."""
    line = ClockFit()
    for n in range(30 * 24 * 3600 // 20):  # a reading every 20 s
        true_ns = n * 20 * NS_PER_S
        line.note(round(true_ns * (1 + 50e-6)), true_ns + (n % 7) * MS)
    assert line._under is not None
    assert len(line._under._least) == BLOCKS and not line._late
    assert abs(line.at(round(true_ns * (1 + 50e-6))) - true_ns) < MS
    assert line.timing.steps == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**8), min_size=3, max_size=60), st.floats(-300e-6, 300e-6))
def test_the_slope_is_the_best_one_under_all_points(late: list[int], slope: float) -> None:
    """No line through two of the points that lies under all of them is nearer to them in sum."""
    points = [_Reading(n * NS_PER_S, late_ns + round(slope * n * NS_PER_S)) for n, late_ns in enumerate(late)]
    at = np.array([point.device_ns for point in points], float)
    off = np.array([point.off_ns for point in points], float)

    def distance(each: float) -> float:
        above = off - each * at
        return float((above - above.min()).sum())

    slopes = [
        (b.off_ns - a.off_ns) / (b.device_ns - a.device_ns) for i, a in enumerate(points) for b in points[i + 1 :]
    ]
    best = min(distance(each) for each in slopes)
    assert distance(_slope_under(points)) <= best + 1


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**10), st.integers(-(10**10), 10**10)), max_size=200))
def test_whatever_is_read(moves: list[tuple[int, int]]) -> None:
    """Readings without any sense raise nothing, and mapped times keep the order of the device's."""
    line, device_ns, at_ns = ClockFit(), 0, 0
    for step_ns, forward_ns in moves:
        device_ns, at_ns = device_ns + forward_ns, at_ns + step_ns
        line.note(device_ns, at_ns)
        mapped = [line.at(device_ns + n * MS) for n in range(3)]
        assert all(a < b for a, b in pairwise(mapped))
