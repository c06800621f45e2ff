"""Levels of events and thresholds, against the daemon's tracker and against a search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import Calibration
from perceiverd.pipeline.rules import EventOptions, resolve
from perceiverd.pipeline.tracker import EventTracker
from perceiverd.training.corrections import levels

HOP_S = 0.5
shares = st.floats(0.01, 0.99)


def has_event(scores: list[float], threshold: float) -> bool:
    """Whether the daemon's tracker begins an event, after a long silence."""
    rules = resolve((Label(0, "user/a", "a"),), (Calibration(threshold=threshold),), EventOptions())
    tracker, found = EventTracker(rules), False
    for at, score in enumerate([0.0] * 4 + scores):
        start_ns = round(at * HOP_S * NS_PER_S)
        changes = tracker.track(np.array([score], np.float32), start_ns, start_ns + round(HOP_S * 1e9), ("audio",))
        found |= any(change.kind == "begin" for change in changes)
    return found


@settings(deadline=None, max_examples=200)
@given(st.lists(shares, min_size=3, max_size=20))
def test_a_level_is_where_the_daemon_stops_to_find_an_event(scores: list[float]) -> None:
    """Below the level there is an event, above it there is none."""
    level = levels.level(np.array([0.0] * 4 + scores), HOP_S)
    assert not has_event(scores, min(0.999, level + 0.01))
    # The tracker begins an event only with a window whose own score reaches `off`, which is below the level by a logit.
    if level > 0.02 and scores[-1] >= level:
        assert has_event(scores, level - 0.01)


@given(st.lists(shares, min_size=1, max_size=9), st.lists(shares, min_size=1, max_size=9), st.none() | shares)
def test_no_threshold_makes_fewer_mistakes(present: list[float], absent: list[float], old: float | None) -> None:
    """Within the allowed range; the old threshold stays if it is as good."""
    found = levels.choose(present, absent, old)

    def mistakes(threshold: float) -> int:
        return sum(each < threshold for each in present) + sum(each >= threshold for each in absent)

    best = min(mistakes(float(each)) for each in 1 / (1 + np.exp(-np.arange(levels.FLOOR, levels.CEILING, 0.05))))
    assert mistakes(found.threshold) <= best
    assert found.present - found.found + found.false == mistakes(found.threshold)
    if old is not None and mistakes(old) <= best:
        assert found.threshold == old


def test_the_threshold_lies_in_the_widest_gap() -> None:
    """Between sounds and background, nearer to neither."""
    assert levels.choose([0.9, 0.8], [0.1, 0.3], None).threshold == pytest.approx(0.567, abs=0.01)
    assert levels.choose([0.9], [], None).threshold == levels.UNMEASURED
    assert levels.choose([], [0.1, 0.2], 0.31).threshold == 0.31
    assert levels.level(np.zeros(0), HOP_S) == 0.0
