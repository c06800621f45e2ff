"""Time stamps of devices on either clock, and the capture times of frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S
from perceiverd.sources.devices.timestamps import EARLY_NS, LATE_NS, FrameTimes, on_monotonic

UPTIME_NS, EPOCH_NS = 100_000 * NS_PER_S, 1_800_000_000 * NS_PER_S


@given(st.integers(-EARLY_NS, LATE_NS), st.booleans())
def test_either_clock_means_the_same_moment(age_ns: int, wall: bool) -> None:
    """A stamp by CLOCK_REALTIME and one by CLOCK_MONOTONIC of the same moment become the same time."""
    stamp_ns = (EPOCH_NS if wall else UPTIME_NS) - age_ns
    assert on_monotonic(stamp_ns, UPTIME_NS, EPOCH_NS) == UPTIME_NS - age_ns


@given(st.integers(0, 2**62))
def test_a_stamp_of_another_clock_is_ignored(stamp_ns: int) -> None:
    """A stamp that is near neither clock gives None."""
    near = any(-EARLY_NS <= clock - stamp_ns <= LATE_NS for clock in (UPTIME_NS, EPOCH_NS))
    assert (on_monotonic(stamp_ns, UPTIME_NS, EPOCH_NS) is not None) == near


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=30))
def test_times_rise_and_never_lie_in_the_future(stamps: list[int]) -> None:
    """Whatever a driver stamps, capture times rise and none is in the future."""
    times, last_ns = FrameTimes(25), -1
    for n, stamp_ns in enumerate(stamps):
        now_ns = UPTIME_NS + n * NS_PER_S // 25
        taken_ns = times.taken(stamp_ns, now_ns, EPOCH_NS + n * NS_PER_S // 25)
        assert last_ns < taken_ns <= now_ns
        last_ns = taken_ns


def test_the_kernels_stamps_remove_jitter() -> None:
    """Frames that come up to 200 ms late have their true capture times."""
    times, period_ns = FrameTimes(25), NS_PER_S // 25
    for n in range(100):
        taken_ns = UPTIME_NS + n * period_ns
        late_ns = 5_000_000 + (n % 5) * 40_000_000
        assert times.taken(taken_ns, taken_ns + late_ns, EPOCH_NS) == taken_ns
    assert (times.stamped, times.unstamped) == (100, 0)


def test_one_bad_stamp_does_not_affect_others() -> None:
    """After a frame without a stamp, the next frames soon have the times of their stamps again."""
    times, period_ns, late_ns = FrameTimes(30), NS_PER_S // 30, 45_000_000
    errors_ns = []
    for n in range(100):
        taken_ns = UPTIME_NS + n * period_ns
        errors_ns.append(times.taken(0 if n == 50 else taken_ns, taken_ns + late_ns, EPOCH_NS) - taken_ns)
    assert errors_ns[:50] == [0] * 50
    assert errors_ns[50] == late_ns
    assert 0 < errors_ns[51] <= late_ns - period_ns + 1  # not before the frame that was timed by its arrival
    assert errors_ns[52:] == [0] * 48
    assert (times.stamped, times.unstamped) == (99, 1)


def test_stamps_of_the_end_are_moved_by_a_period() -> None:
    """A stamp in the future is the end of the exposure; from then on all times are a period earlier."""
    times, period_ns = FrameTimes(25), NS_PER_S // 25
    for n in range(10):
        now_ns = UPTIME_NS + n * period_ns
        assert times.taken(now_ns + period_ns * 9 // 10, now_ns, EPOCH_NS) == now_ns - period_ns // 10


def test_a_driver_without_stamps_is_timed_by_arrival() -> None:
    """A stamp of 0, or one that never changes, is ignored."""
    for stamp_ns in (0, UPTIME_NS - 1):
        times = FrameTimes(25)
        for n in range(1, 10):
            now_ns = UPTIME_NS + n * 40_000_000
            taken_ns = times.taken(stamp_ns, now_ns, EPOCH_NS)
            assert taken_ns == now_ns or (n == 1 and taken_ns == stamp_ns)
