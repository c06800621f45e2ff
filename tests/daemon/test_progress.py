"""Counts of windows, the hop under overload, and when a stream counts as stuck."""

import pytest

from perceiverd.core.clock import now_ns
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.progress import Progress
from perceiverd.sources.process.restart import RunState
from tests.support.streams import BOTH as GEOMETRY
from tests.support.streams import SURE, both, source, stream, window

RECENT_NS = 10 * NS_PER_S


def running(progress: Progress, at_ns: int) -> None:
    progress.update(RunState.UP, at_ns, gaps=0, stalled=False)


def test_the_hop_grows_with_dropped_windows() -> None:
    """It is twice as long if every second window is dropped, as configured if none is, and unknown before the first."""
    progress = Progress()
    assert progress.hop_s(NS_PER_S // 2) is None
    for number in range(60):
        progress.drop(0 if number < 30 else 1)
        progress.sent(window(number), now_ns())
        if number == 29:
            assert progress.hop_s(NS_PER_S // 2) == 0.5
    assert progress.hop_s(NS_PER_S // 2) == 1.0
    assert (progress.tagged, progress.dropped, progress.dropped_since) == (60, 30, 0)


def test_a_stream_is_stuck_without_recent_windows() -> None:
    """A stream that is up, and gives no windows any more, is stuck; one that is down, or never gave one, is not."""
    progress = Progress()
    assert not progress.is_stuck(0, RECENT_NS)
    running(progress, 0)
    assert not progress.is_stuck(600 * NS_PER_S, RECENT_NS)  # never gave a window
    progress.sent(window(0), 590 * NS_PER_S)
    assert not progress.is_stuck(599 * NS_PER_S, RECENT_NS)
    assert progress.is_stuck(600 * NS_PER_S, RECENT_NS)
    progress.update(RunState.BACKING_OFF, 601 * NS_PER_S, gaps=0, stalled=False)
    assert not progress.is_stuck(700 * NS_PER_S, RECENT_NS)  # down
    running(progress, 700 * NS_PER_S)
    assert not progress.is_stuck(709 * NS_PER_S, RECENT_NS)  # up again since a moment
    assert progress.is_stuck(710 * NS_PER_S, RECENT_NS)


@pytest.mark.parametrize(("gaps", "stalled"), [(1, False), (0, True)])
def test_a_gap_or_a_stall_excuses_a_stream(gaps: int, stalled: bool) -> None:
    """After either a stream has the same time again to give a window."""
    progress = Progress()
    running(progress, 0)
    progress.sent(window(0), 0)
    progress.update(RunState.UP, 50 * NS_PER_S, gaps=gaps, stalled=stalled)
    assert not progress.is_stuck(59 * NS_PER_S, RECENT_NS)
    progress.update(RunState.UP, 59 * NS_PER_S, gaps=gaps, stalled=False)
    assert progress.is_stuck(60 * NS_PER_S, RECENT_NS)


def test_a_camera_that_is_slow_at_night_is_excused() -> None:
    """Less than a frame a second is a gap each time, so that no window is due; silence without a gap is no excuse."""
    watched = stream(GEOMETRY)
    both(watched, 0, 3)
    watched.update([source(RunState.UP)], 3 * NS_PER_S)
    watched.tagged(watched.due[-1], SURE)
    watched.progress.sent_ns = 3 * NS_PER_S
    for second in range(4, 60, 2):
        both(watched, second, second + 0.04)
        watched.update([source(RunState.UP)], second * NS_PER_S)
    assert not watched.progress.is_stuck(60 * NS_PER_S, RECENT_NS)
    watched.update([source(RunState.UP)], 80 * NS_PER_S)
    assert watched.progress.is_stuck(80 * NS_PER_S, RECENT_NS)


def test_drops_are_logged_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    """Each line has the windows dropped since the last line; without new ones there is no line."""
    progress = Progress()
    progress.log_drops("door", None, 0)
    progress.drop(3)
    progress.log_drops("door", None, NS_PER_S)
    progress.log_drops("door", None, 2 * NS_PER_S)
    progress.sent(window(0), now_ns())
    progress.drop(2)
    progress.log_drops("door", 0.5, 3 * NS_PER_S)
    assert [record.message for record in caplog.records] == [
        "windows-dropped stream=door count=3 tagged=0 hop_s=-",
        "windows-dropped stream=door count=2 tagged=1 hop_s=0.50",
    ]


def test_a_slow_machine_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Windows that are dropped all day are logged once a minute, and none is left out of the counts."""
    progress = Progress()
    for second in range(3600):
        progress.drop(1)
        progress.log_drops("door", None, second * NS_PER_S)
    lines = [record.message for record in caplog.records]
    assert len(lines) < 75
    assert sum(int(line.split("count=")[1].split()[0]) for line in lines) > 3500
