"""Measures of quality, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.labels import ontology
from perceiverd.training.evaluate import average_precision, bootstrap, own_labels


def test_average_precision_is_the_mean_precision_at_the_positives() -> None:
    """Positives in places 1, 3 and 6 give (1/1 + 2/3 + 3/6) / 3."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = np.array([True, False, True, False, False, True])
    assert average_precision(scores, truth) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)


def test_a_constant_score_earns_no_luck() -> None:
    """Where all scores are equal the positives count as the last."""
    assert average_precision(np.zeros(4), np.array([True, False, False, False])) == pytest.approx(1 / 4)


def test_a_class_without_positives_has_no_precision() -> None:
    """Without a positive the measure is not a number, rather than 0 or 1."""
    assert np.isnan(average_precision(np.ones(3), np.zeros(3, np.bool_)))


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=40))
def test_average_precision_lies_between_chance_and_one(rows: list[tuple[int, bool]]) -> None:
    """It is at most 1, and 1 exactly where every positive is above every negative."""
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    truth = np.array([sure for _, sure in rows])
    if not truth.any():
        return
    found = average_precision(scores, truth)
    separated = truth.all() or scores[truth].min() > scores[~truth].max()
    assert 0 < found <= 1 and (found == pytest.approx(1)) == separated


def test_the_bootstrap_draws_whole_groups() -> None:
    """Rows of one group are always drawn together, so one group has no spread."""
    values = np.array([0.0, 1.0, 2.0])
    interval = bootstrap(lambda rows: float(values[rows].mean()), ["a", "a", "a"])
    assert (interval.low, interval.value, interval.high) == (1.0, 1.0, 1.0)
    wide = bootstrap(lambda rows: float(values[rows].mean()), ["a", "b", "c"])
    assert wide.low < wide.value == 1.0 < wide.high


def test_ancestors_do_not_count_as_a_pictures_own_label() -> None:
    """Of Bark, Dog, Domestic animals and Animal only Bark is the picture's own."""
    names = ontology()
    targets = np.full(527, np.nan, np.float16)
    bark = names.find("Bark")
    above = names.ancestors(bark.mid)
    for label in names.labels:
        if label.mid in above or label.mid == bark.mid:
            targets[label.index] = 1
    assert own_labels(targets) == {bark.index}
