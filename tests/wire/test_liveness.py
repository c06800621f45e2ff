"""Liveness: when a daemon counts as stale, and when that is over; without a socket."""

import math

import pytest

from perceiverd.wire.client import STALE_INTERVALS, STALE_LEAST_S, Liveness, Stale
from tests.support.messages import hello, scores


def test_a_daemon_is_stale_once() -> None:
    """The beginning is reported once, after STALE_LEAST_S at first, and the end with the next message."""
    liveness = Liveness(now_s=100)
    assert liveness.due_s == 100 + STALE_LEAST_S
    assert liveness.check(100 + STALE_LEAST_S - 0.01) is None
    assert liveness.check(104) == Stale(4, over=False)
    assert liveness.check(200) is None
    assert liveness.due_s == math.inf
    assert liveness.received(scores(), 210) == Stale(110, over=True)
    assert liveness.received(scores(), 211) is None


@pytest.mark.parametrize(("interval_s", "limit_s"), [(0.1, STALE_LEAST_S), (1, 3), (20, 20 * STALE_INTERVALS)])
def test_the_limit_is_three_heartbeats(interval_s: float, limit_s: float) -> None:
    """It follows the interval in the daemon's hello, but is never below STALE_LEAST_S."""
    liveness = Liveness(now_s=0)
    liveness.received(hello(status_interval_s=interval_s), 10)
    assert liveness.due_s == pytest.approx(10 + limit_s)
