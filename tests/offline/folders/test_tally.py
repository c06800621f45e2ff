"""Counts, speed and time left of a run."""

import pytest

from perceiverd.core.media import NS_PER_S
from perceiverd.offline.folders.tally import Current, Tally
from perceiverd.offline.folders.walk import Found


def found(size: int) -> Found:
    return Found("a", "a", size, 1)


def test_speed_counts_files_that_are_not_done_yet() -> None:
    """Seconds of media of finished files and of those in progress, per second."""
    tally = Tally([Current(), Current()])
    tally.add(found(100), 10, 30.0, failed=False)
    tally.workers[1].begin(found(50))
    tally.workers[1].advance(12 * NS_PER_S)
    assert tally.speed(6.0) == pytest.approx(7.0)


def test_time_left_follows_the_bytes() -> None:
    """A quarter of what is not skipped took 10 s, so the rest takes 30 s."""
    tally = Tally([Current()])
    assert tally.left_s(1.0, 1000) is None
    tally.skip(found(600))
    tally.add(found(50), 10, 30.0, failed=False)
    tally.workers[0].begin(found(100))
    tally.workers[0].state_length(20.0)
    tally.workers[0].advance(10 * NS_PER_S)
    assert tally.left_s(10.0, 1000) == pytest.approx(30.0)


def test_a_file_that_states_no_length_counts_when_it_is_done() -> None:
    """Its bytes are not guessed meanwhile, and never more than all."""
    current = Current()
    current.begin(found(100))
    current.advance(5 * NS_PER_S)
    assert current.size_done == 0
    current.state_length(4.0)
    assert current.size_done == 100


def test_files_are_counted_once() -> None:
    """Skipped, tagged and failed ones; a damaged file that has outputs is both tagged and failed."""
    tally = Tally([])
    tally.skip(found(1))
    tally.add(found(2), 3, 1.5, failed=False)
    tally.add(found(3), 2, 1.0, failed=True)
    tally.add(found(4), 0, 0.0, failed=True)
    assert (tally.files, tally.tagged, tally.failed, tally.size, tally.windows) == (4, 2, 2, 10, 5)
