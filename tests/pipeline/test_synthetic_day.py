"""Some hours of a made-up day: what was planted is found, and nothing of it twice."""

from tests.support.synthetic_day import run


def test_what_is_planted_is_found_once() -> None:
    """In two hours of noise 40 planted events make 40, none doubled; windows alone would make hundreds more."""
    (windows, runs, tracked), _ = run(hours=2, count=40, seed=2)
    assert (tracked.found, tracked.missed, tracked.doubled) == (40, 0, 0)
    assert tracked.false < runs.false / 5 < windows.false / 5
    assert runs.doubled > 5
