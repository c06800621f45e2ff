"""The states of a source, as a pure state machine."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.logs import LogLimit
from perceiverd.core.media import NS_PER_S
from perceiverd.sources.process.restart import Action, RunState, Supervision, Timeouts


def ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def up(at_s: float = 0.0) -> Supervision:
    """A source that has been up since `at_s`."""
    source = Supervision(jitter=lambda: 1.0)
    assert source.due(ns(at_s)) is Action.LAUNCH
    source.launched(ns(at_s))
    source.received(ns(at_s), data=True)
    assert source.state is RunState.UP
    return source


def test_silence_while_up() -> None:
    """If the last data is older than 3 s, the process is killed, once."""
    source = up()
    assert source.due(ns(2.9)) is None
    assert source.next_ns() == ns(3)
    assert source.due(ns(3.1)) is Action.KILL
    assert source.state is RunState.STALLED
    assert source.due(ns(99)) is None
    assert "3.1 s" in source.detail


def test_silence_while_starting() -> None:
    """Opening may take 10 s; a sign of life extends that, but only data makes the source UP."""
    source = Supervision()
    source.launched(0)
    source.received(ns(5), data=False)
    assert source.state is RunState.STARTING
    assert source.due(ns(14)) is None
    assert source.due(ns(15.1)) is Action.KILL


def test_waiting_for_a_core_is_not_silence() -> None:
    """The time for which its process waits for a core does not count while it starts, nor while it is up."""
    source = Supervision()
    source.launched(0)
    for second in range(1, 91):  # it gets a tenth of a core
        assert source.due(ns(second), partial(ns, 0.9 * second)) is None
    assert source.due(ns(105), lambda: ns(94)) is Action.KILL
    assert "105.0 s" in source.detail
    source.lost(ns(105), source.kill_reason, source.detail)
    source.launched(ns(200))
    assert source.next_ns() == ns(210)
    source.received(ns(201), data=True)
    assert source.due(ns(201), lambda: ns(50)) is None
    assert source.due(ns(205), lambda: ns(52)) is None
    assert source.next_ns() == ns(201 + 3 + 2)
    assert source.due(ns(206.5), lambda: ns(52)) is Action.KILL


def test_only_waits_since_the_last_message_count() -> None:
    """A process that has waited for hours in a year of work is killed as soon as any other, up to a second later."""
    source, waited_s = up(), 0.0
    for second in range(3600):
        waited_s += 0.5
        source.received(ns(second), data=True)
        assert source.due(ns(second), partial(ns, waited_s)) is None
    assert source.due(ns(3599 + 4), partial(ns, waited_s)) is Action.KILL


def test_signs_of_life_while_up() -> None:
    """A source that sends signs of life and no data is not killed."""
    source = up()
    for second in range(1, 30):
        source.received(ns(second), data=False)
        assert source.due(ns(second)) is None


def test_back_off_doubles_to_its_cap() -> None:
    """The waits are 0.25 s, 0.5 s, ... up to 30 s, for any number of losses."""
    source, now_s, waits_s = Supervision(jitter=lambda: 1.0), 0.0, []
    for _ in range(2000):
        source.launched(ns(now_s))
        waits_s.append(source.lost(ns(now_s), "exited", "died"))
        assert source.state is RunState.BACKING_OFF
        assert source.due(ns(now_s + waits_s[-1] - 0.01)) is None
        now_s += waits_s[-1] + 0.01
        assert source.due(ns(now_s)) is Action.LAUNCH
    assert waits_s[:9] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert set(waits_s[8:]) == {30}
    assert source.losses == {"exited": 2000}


@given(st.floats(0, 1), st.integers(0, 12))
def test_jitter_is_at_most_half(chance: float, tries: int) -> None:
    """Randomness shortens the wait by at most half and never lengthens it."""
    source = Supervision(jitter=lambda: chance)
    for _ in range(tries + 1):
        wait_s = source.lost(0, "failed", "")
    full_s = min(30, 0.25 * 2**tries)
    assert full_s / 2 <= wait_s <= full_s


def test_refusals_have_a_back_off_of_their_own() -> None:
    """Refusals double their own wait up to their own cap; data or another failure resets it."""
    source = Supervision(Timeouts(backoff_cap_s=3.0), jitter=lambda: 1.0)
    for _ in range(9):
        assert source.lost(0, "failed", "nobody") <= 3
    waits_s = [source.lost(0, "failed", "no", 300.0) for _ in range(12)]
    assert waits_s == [*(0.25 * 2**n for n in range(11)), 300]
    assert source.lost(0, "failed", "nobody") == 3
    assert source.lost(0, "failed", "no", 300.0) == 0.25
    source.launched(0)
    source.received(0, data=True)
    assert source.lost(0, "failed", "no", 300.0) == 0.25


@pytest.mark.parametrize(("good_s", "wait_s"), [(9.0, 1.0), (10.5, 0.25)])
def test_good_data_resets_the_back_off(good_s: float, wait_s: float) -> None:
    """The back-off starts again only after 10 s with data."""
    source = Supervision(jitter=lambda: 1.0)
    source.lost(0, "exited", "")
    source.lost(0, "exited", "")
    source.launched(0)
    source.received(ns(1), data=True)
    source.received(ns(1 + good_s), data=True)
    assert source.lost(ns(20), "exited", "") == wait_s


def test_an_end_is_final() -> None:
    """A source that has ended is neither started nor killed."""
    source = up()
    source.ended()
    assert source.due(ns(1e6)) is None
    assert source.next_ns() is None


def test_timeouts_are_used() -> None:
    """Other time-outs change when the process is killed."""
    source = Supervision(Timeouts(open_s=1, read_s=0.5))
    source.launched(0)
    assert source.due(ns(0.9)) is None
    source.received(ns(0.9), data=True)
    assert source.due(ns(1.3)) is None
    assert source.due(ns(1.5)) is Action.KILL


def test_a_flapping_source_does_not_fill_the_disk() -> None:
    """Of one loss a second for a day, 10 lines and one a minute are logged; the others are counted."""
    limit = LogLimit()
    held = [limit.admit(ns(1000 + second)) for second in range(86_401)]
    written = [each for each in held if each is not None]
    assert len(written) == pytest.approx(10 + 24 * 60, abs=2)
    assert sum(written) == 86_401 - len(written)


def test_a_condemned_source_is_killed_and_restarted() -> None:
    """Only a source that is up can be condemned, once; it is then lost for the given reason."""
    source = up()
    assert source.condemn("frozen", "its video is frozen")
    assert (source.state, source.kill_reason) == (RunState.STALLED, "frozen")
    assert not source.condemn("frozen", "again")
    source.lost(ns(1), source.kill_reason, source.detail)
    assert source.losses == {"frozen": 1}
    assert not source.condemn("frozen", "while it backs off")
    assert source.due(ns(60)) is Action.LAUNCH
    source.launched(ns(60))
    assert source.due(ns(71)) is Action.KILL
    assert source.kill_reason == "stalled"
