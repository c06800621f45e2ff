"""The life of a source as a pure state machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.logs import LogLimit
from perceiverd.core.media import NS_PER_S
from perceiverd.sources.process.restart import Do, State, Supervision, Timeouts


def ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def up(at_s: float = 0.0) -> Supervision:
    """A source that has been up since `at_s`."""
    source = Supervision(jitter=lambda: 1.0)
    assert source.due(ns(at_s)) is Do.LAUNCH
    source.launched(ns(at_s))
    source.heard(ns(at_s), data=True)
    assert source.state is State.UP
    return source


def test_silence_while_up() -> None:
    """Data older than 3 s has the process killed, once."""
    source = up()
    assert source.due(ns(2.9)) is None
    assert source.next_ns() == ns(3)
    assert source.due(ns(3.1)) is Do.KILL
    assert source.state is State.STALLED
    assert source.due(ns(99)) is None
    assert "3.1 s" in source.detail


def test_silence_while_starting() -> None:
    """Opening may take 10 s; a sign of life extends that, but only data makes it up."""
    source = Supervision()
    source.launched(0)
    source.heard(ns(5), data=False)
    assert source.state is State.STARTING
    assert source.due(ns(14)) is None
    assert source.due(ns(15.1)) is Do.KILL


def test_signs_of_life_while_up() -> None:
    """A replay with nothing to show is not killed."""
    source = up()
    for second in range(1, 30):
        source.heard(ns(second), data=False)
        assert source.due(ns(second)) is None


def test_back_off_doubles_to_its_cap() -> None:
    """0.25 s, 0.5 s, ... 30 s and no more, for ever."""
    source, now_s, waits_s = Supervision(jitter=lambda: 1.0), 0.0, []
    for _ in range(2000):
        source.launched(ns(now_s))
        waits_s.append(source.lost(ns(now_s), "exited", "died"))
        assert source.state is State.BACKING_OFF
        assert source.due(ns(now_s + waits_s[-1] - 0.01)) is None
        now_s += waits_s[-1] + 0.01
        assert source.due(ns(now_s)) is Do.LAUNCH
    assert waits_s[:9] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert set(waits_s[8:]) == {30}
    assert source.losses == {"exited": 2000}


@given(st.floats(0, 1), st.integers(0, 12))
def test_jitter_is_at_most_half(chance: float, tries: int) -> None:
    """Chance takes away at most half of the wait and adds none."""
    source = Supervision(jitter=lambda: chance)
    for _ in range(tries + 1):
        wait_s = source.lost(0, "failed", "")
    full_s = min(30, 0.25 * 2**tries)
    assert full_s / 2 <= wait_s <= full_s


def test_refusals_have_a_back_off_of_their_own() -> None:
    """Their waits double to their own cap, from the first of them on; whoever is up or fails otherwise begins anew."""
    source = Supervision(Timeouts(backoff_cap_s=3.0), jitter=lambda: 1.0)
    for _ in range(9):
        assert source.lost(0, "failed", "nobody") <= 3
    waits_s = [source.lost(0, "failed", "no", 300.0) for _ in range(12)]
    assert waits_s == [*(0.25 * 2**n for n in range(11)), 300]
    assert source.lost(0, "failed", "nobody") == 3
    assert source.lost(0, "failed", "no", 300.0) == 0.25
    source.launched(0)
    source.heard(0, data=True)
    assert source.lost(0, "failed", "no", 300.0) == 0.25


@pytest.mark.parametrize(("good_s", "wait_s"), [(9.0, 1.0), (10.5, 0.25)])
def test_good_data_resets_the_back_off(good_s: float, wait_s: float) -> None:
    """Only after 10 s with data does the back-off begin anew."""
    source = Supervision(jitter=lambda: 1.0)
    source.lost(0, "exited", "")
    source.lost(0, "exited", "")
    source.launched(0)
    source.heard(ns(1), data=True)
    source.heard(ns(1 + good_s), data=True)
    assert source.lost(ns(20), "exited", "") == wait_s


def test_an_end_is_final() -> None:
    """What has ended is neither started nor killed any more."""
    source = up()
    source.ended()
    assert source.due(ns(1e6)) is None
    assert source.next_ns() is None


def test_limits_are_obeyed() -> None:
    """Other limits, other times."""
    source = Supervision(Timeouts(open_s=1, read_s=0.5))
    source.launched(0)
    assert source.due(ns(0.9)) is None
    source.heard(ns(0.9), data=True)
    assert source.due(ns(1.3)) is None
    assert source.due(ns(1.5)) is Do.KILL


def test_a_flapping_source_does_not_fill_the_disk() -> None:
    """Of a loss a second for a day, 10 lines and one a minute are written, and the others are counted."""
    limit = LogLimit()
    held = [limit.admit(ns(1000 + second)) for second in range(86_401)]
    written = [each for each in held if each is not None]
    assert len(written) == pytest.approx(10 + 24 * 60, abs=2)
    assert sum(written) == 86_401 - len(written)


def test_what_is_worth_nothing_is_killed_and_started_again() -> None:
    """A source that is up can be condemned, once, and is lost for the reason that was given; one that isn't can't."""
    source = up()
    assert source.condemned("frozen", "its picture is frozen")
    assert (source.state, source.killed_for) == (State.STALLED, "frozen")
    assert not source.condemned("frozen", "again")
    source.lost(ns(1), source.killed_for, source.detail)
    assert source.losses == {"frozen": 1}
    assert not source.condemned("frozen", "while it backs off")
    assert source.due(ns(60)) is Do.LAUNCH
    source.launched(ns(60))
    assert source.due(ns(71)) is Do.KILL
    assert source.killed_for == "stalled"
