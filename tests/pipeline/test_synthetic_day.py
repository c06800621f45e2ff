"""Some hours of an invented day: each planted event is found, and none of them twice."""

from tests.support.synthetic_day import run


def test_each_planted_event_is_found_once() -> None:
    """In two hours of noise 40 planted events give 40 events, none doubled; windows alone give hundreds more."""
    (windows, runs, tracked), _ = run(hours=2, count=40, seed=2)
    assert (tracked.found, tracked.missed, tracked.doubled) == (40, 0, 0)
    assert tracked.false < runs.false / 5 < windows.false / 5
    assert runs.doubled > 5
