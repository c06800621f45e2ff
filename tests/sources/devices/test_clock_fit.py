"""The fit of a device's clock, held against simulated devices whose true times are known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S
from perceiverd.sources.devices.clock_fit import BLOCKS, HELD_READINGS, ClockFit, _Reading, _slope_under

MS = 1_000_000
STEPS_MS = st.one_of(st.integers(20, 2000), st.integers(-2000, -20))


@dataclass(frozen=True)
class Device:
    """A simulated device whose clock drifts and steps; we read it in order and sometimes late."""

    ppm: float = 0.0
    rate_hz: float = 50.0
    jitter_ms: float = 2.0
    """Mean lateness of its readings, which is exponential."""
    outliers: float = 0.001
    """Share of readings that are 100 to 800 ms late."""
    steps: tuple[tuple[float, float], ...] = ()
    """(time in seconds, milliseconds by which our clock is further than the device's from then on)."""
    stall_s: tuple[float, float] = (0.0, 0.0)
    """Nothing is read from the first time to the second; then everything at once."""
    seed: int = 0

    def readings(self, seconds: float) -> Iterator[tuple[int, int, int]]:
        """(true time on our clock, device's time, time when we read it), in nanoseconds."""
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
class Fitted:
    """A fit, and how good it was."""

    clock: ClockFit
    found_s: list[float]
    errors: list[tuple[float, float]]
    """(second, error in milliseconds) of each time that was not in doubt."""

    def worst_ms(self, from_s: float = 0.0, to_s: float = float("inf")) -> float:
        return max(abs(error) for at_s, error in self.errors if from_s <= at_s < to_s)


def fit_of(device: Device, seconds: float) -> Fitted:
    fitted = Fitted(ClockFit(), [], [])
    held: list[tuple[int, int]] = []
    for true_ns, device_ns, at_ns in device.readings(seconds):
        stepped = fitted.clock.add(device_ns, at_ns)
        if stepped:
            fitted.found_s.append(true_ns / NS_PER_S)
        held.append((true_ns, device_ns))
        if not fitted.clock.suspect:
            for true, device_time in held[-1:] if stepped else held:
                fitted.errors.append((true / NS_PER_S, (fitted.clock.at(device_time) - true) / MS))
            held.clear()
    return fitted


def test_the_first_reading_is_enough() -> None:
    """From the first reading on, the error is at most the lateness of that reading."""
    clock = ClockFit()
    assert not clock.add(5 * NS_PER_S, 700 * NS_PER_S)
    assert clock.at(5 * NS_PER_S + 12_345) == 700 * NS_PER_S + 12_345
    assert clock.timing.drift_ppm is None


@settings(max_examples=15, deadline=None)
@given(ppm=st.floats(-300, 300), jitter_ms=st.floats(0.05, 8), seed=st.integers(0, 999))
def test_it_follows_drift(ppm: float, jitter_ms: float, seed: int) -> None:
    """Drift up to 300 ppm is followed with less than 5 ms of error from second 2 on, despite late readings."""
    fitted = fit_of(Device(ppm, jitter_ms=jitter_ms, outliers=0.005, seed=seed), 90)
    assert not fitted.found_s
    assert fitted.worst_ms(2) < 5
    assert fitted.worst_ms(30) < 1.5
    drift_ppm = fitted.clock.timing.drift_ppm
    assert drift_ppm is not None
    assert drift_ppm == pytest.approx(ppm, abs=15)


@settings(max_examples=15, deadline=None)
@given(step_ms=STEPS_MS, ppm=st.floats(-300, 300), jitter_ms=st.floats(0.05, 3), seed=st.integers(0, 999))
def test_a_step_is_found(step_ms: int, ppm: float, jitter_ms: float, seed: int) -> None:
    """A step of at least 20 ms, of either sign, is found once within 2.5 s; after it the times are right."""
    fitted = fit_of(Device(ppm, jitter_ms=jitter_ms, outliers=0, steps=((40.0, step_ms),), seed=seed), 60)
    assert len(fitted.found_s) == 1
    assert 40 <= fitted.found_s[0] < 42.5
    assert fitted.clock.timing.steps == 1
    # After a step forward, a reading that is as late as the step is long looks like one in time.
    assert fitted.worst_ms(2) < (5 if step_ms > 0 else 5 + 12 * jitter_ms)
    assert fitted.worst_ms(fitted.found_s[0] + 1) < 5


@settings(max_examples=15, deadline=None)
@given(stall_s=st.floats(0.1, 9), seed=st.integers(0, 999), rate_hz=st.sampled_from([10, 25, 50, 100]))
def test_a_late_batch_is_no_step(stall_s: float, seed: int, rate_hz: int) -> None:
    """If nothing is read for seconds and then everything at once, no step is found and no time is wrong."""
    fitted = fit_of(Device(100, rate_hz=rate_hz, stall_s=(20, 20 + stall_s), seed=seed), 45)
    assert not fitted.found_s
    assert fitted.worst_ms(2) < 5


@pytest.mark.parametrize("pace", [1.5, 3.0])
def test_a_shrinking_backlog_is_no_step(pace: float) -> None:
    """A backlog of three seconds gets less late while it is read, so it is no step."""
    clock, at_ns = ClockFit(), 0
    for n in range(3000):
        true_ns = n * 20 * MS
        at_ns = max(true_ns, at_ns + round(20 * MS / pace), 23 * NS_PER_S if n >= 1000 else 0)
        assert not clock.add(true_ns, at_ns)
    assert not clock.suspect


def test_suspicion_is_bounded() -> None:
    """Readings that get later and later are a step after 10 s; what is held until then is bounded."""
    clock = ClockFit()
    for n in range(500):
        clock.add(n * 20 * MS, n * 20 * MS)
    for n in range(500, 1010):
        found = clock.add(n * 20 * MS, n * 20 * MS + (n - 490) * 5 * MS)
        assert len(clock._late) <= HELD_READINGS
        if found:
            break
    assert clock.timing.steps == 1 and not clock.suspect


def test_one_absurd_reading_is_forgotten() -> None:
    """A single reading from the future, as from a faulty driver, changes nothing."""
    clock = ClockFit()
    for n in range(1000):
        strange = 500 * NS_PER_S if n == 500 else 0
        assert not clock.add(n * 20 * MS + strange, n * 20 * MS)
        assert abs(clock.at(n * 20 * MS) - n * 20 * MS) < MS
    assert not clock.suspect


def test_a_long_pause_starts_a_new_line() -> None:
    """After minutes without a reading a new line starts, which is a step; the crystal's drift is kept."""
    fitted = fit_of(Device(100), 60)
    before = fitted.clock.timing.drift_ppm
    assert fitted.clock.add(0, 500 * NS_PER_S)
    assert fitted.clock.at(0) == 500 * NS_PER_S
    assert fitted.clock.timing.drift_ppm == before


def test_slow_and_rare_readings() -> None:
    """With one reading a second and 20 ms of jitter: at most one false step in an hour, and 20 ms of error."""
    fitted = fit_of(Device(100, rate_hz=1, jitter_ms=20, outliers=0.01), 3600)
    assert len(fitted.found_s) <= 1
    assert fitted.worst_ms(10) < 20


def test_a_month_needs_no_more_memory_than_a_minute() -> None:
    """After 30 days, as little is kept as after one minute, and the error is as small."""
    clock = ClockFit()
    for n in range(30 * 24 * 3600 // 20):  # a reading every 20 s
        true_ns = n * 20 * NS_PER_S
        clock.add(round(true_ns * (1 + 50e-6)), true_ns + (n % 7) * MS)
    assert clock._line is not None
    assert len(clock._line._least) == BLOCKS and not clock._late
    assert abs(clock.at(round(true_ns * (1 + 50e-6))) - true_ns) < MS
    assert clock.timing.steps == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**8), min_size=3, max_size=60), st.floats(-300e-6, 300e-6))
def test_the_slope_is_the_best_one_below_all_points(late: list[int], slope: float) -> None:
    """No line through two points that lies below all of them has a smaller sum of distances."""
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
def test_any_readings_are_accepted(moves: list[tuple[int, int]]) -> None:
    """Meaningless readings raise nothing, and the fitted times keep the order of the device's."""
    clock, device_ns, at_ns = ClockFit(), 0, 0
    for step_ns, forward_ns in moves:
        device_ns, at_ns = device_ns + forward_ns, at_ns + step_ns
        clock.add(device_ns, at_ns)
        mapped = [clock.at(device_ns + n * MS) for n in range(3)]
        assert all(a < b for a, b in pairwise(mapped))
