"""Stamps of devices on whichever clock, and pictures' times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S
from perceiverd.sources.devices.timestamps import EARLY_NS, LATE_NS, PictureTimes, on_monotonic

UPTIME_NS, EPOCH_NS = 100_000 * NS_PER_S, 1_800_000_000 * NS_PER_S


@given(st.integers(-EARLY_NS, LATE_NS), st.booleans())
def test_either_clock_means_the_same_moment(age_ns: int, wall: bool) -> None:
    """A stamp by CLOCK_REALTIME and one by CLOCK_MONOTONIC of the same moment become the same time."""
    stamp_ns = (EPOCH_NS if wall else UPTIME_NS) - age_ns
    assert on_monotonic(stamp_ns, UPTIME_NS, EPOCH_NS) == UPTIME_NS - age_ns


@given(st.integers(0, 2**62))
def test_a_stamp_of_no_clock_is_none(stamp_ns: int) -> None:
    """What lies near neither clock is not believed."""
    near = any(-EARLY_NS <= clock - stamp_ns <= LATE_NS for clock in (UPTIME_NS, EPOCH_NS))
    assert (on_monotonic(stamp_ns, UPTIME_NS, EPOCH_NS) is not None) == near


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=30))
def test_pictures_never_come_before_their_time_or_twice_at_once(stamps: list[int]) -> None:
    """Whatever a driver says, times rise, and none lies in the future."""
    times, last_ns = PictureTimes(25), -1
    for n, stamp_ns in enumerate(stamps):
        now_ns = UPTIME_NS + n * NS_PER_S // 25
        taken_ns = times.taken(stamp_ns, now_ns, EPOCH_NS + n * NS_PER_S // 25)
        assert last_ns < taken_ns <= now_ns
        last_ns = taken_ns


def test_the_kernels_stamps_take_arrival_jitter_away() -> None:
    """Pictures that come up to 200 ms late have the times at which they were taken."""
    times, period_ns = PictureTimes(25), NS_PER_S // 25
    for n in range(100):
        taken_ns = UPTIME_NS + n * period_ns
        late_ns = 5_000_000 + (n % 5) * 40_000_000
        assert times.taken(taken_ns, taken_ns + late_ns, EPOCH_NS) == taken_ns
    assert (times.believed, times.arrived) == (100, 0)


def test_one_bad_stamp_harms_no_other() -> None:
    """Pictures that come more than a period late have the times of their stamps again, soon after one without."""
    times, period_ns, late_ns = PictureTimes(30), NS_PER_S // 30, 45_000_000
    told = []
    for n in range(100):
        taken_ns = UPTIME_NS + n * period_ns
        told.append(times.taken(0 if n == 50 else taken_ns, taken_ns + late_ns, EPOCH_NS) - taken_ns)
    assert told[:50] == [0] * 50
    assert told[50] == late_ns
    assert 0 < told[51] <= late_ns - period_ns + 1  # not before the one that was timed by its coming
    assert told[52:] == [0] * 48
    assert (times.believed, times.arrived) == (99, 1)


def test_a_driver_that_stamps_ends_is_set_back_by_a_period() -> None:
    """A stamp in the future says when the last line is read; from then on all are a period earlier."""
    times, period_ns = PictureTimes(25), NS_PER_S // 25
    for n in range(10):
        now_ns = UPTIME_NS + n * period_ns
        assert times.taken(now_ns + period_ns * 9 // 10, now_ns, EPOCH_NS) == now_ns - period_ns // 10


def test_a_driver_without_stamps_is_timed_by_arrival() -> None:
    """A stamp of 0, or one that stands still, is none."""
    for stamp_ns in (0, UPTIME_NS - 1):
        times = PictureTimes(25)
        for n in range(1, 10):
            now_ns = UPTIME_NS + n * 40_000_000
            taken_ns = times.taken(stamp_ns, now_ns, EPOCH_NS)
            assert taken_ns == now_ns or (n == 1 and taken_ns == stamp_ns)
