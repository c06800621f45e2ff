"""Measures of one class equal scikit-learn's, with any weights and any ties; d' equals SciPy's normal quantile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from perceiverd.evaluation.ranking import Ranking, discriminability, recording_draws

ROWS = st.lists(
    st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40
)


@given(ROWS)
def test_measures_equal_those_of_scikit_learn(rows: list[tuple[int, bool, int, int]]) -> None:
    """Average precision and area under the ROC curve of each draw are those of the weighted rows, ties included."""
    scores = np.array([score for score, *_ in rows], np.float32) / 7
    truth = np.array([present for _, present, *_ in rows])
    weights = np.array([own for *_, one, other in rows for own in (one, other)], np.uint16).reshape(-1, 2)
    precision, area = Ranking(scores, truth).measures(weights)
    for draw in range(2):
        own = weights[:, draw]
        if not own[truth].sum() or not own[~truth].sum():
            continue
        assert precision[draw] == pytest.approx(average_precision_score(truth, scores, sample_weight=own))
        assert area[draw] == pytest.approx(roc_auc_score(truth, scores, sample_weight=own))


def test_a_draw_without_a_positive_has_no_measure() -> None:
    """A draw that misses every positive row gives NaN, and so does a class without one."""
    scores, truth = np.array([0.5, 0.2], np.float32), np.array([True, False])
    precision, area = Ranking(scores, truth).measures(np.array([[0], [3]], np.uint16))
    assert np.isnan(precision).all() and np.isnan(area).all()
    assert np.isnan(Ranking(scores, ~truth & truth).average_precision(np.ones((2, 1), np.uint16))).all()


@pytest.mark.parametrize("area", [0.02, 0.5, 0.77, 0.973])
def test_discriminability_is_the_distance_of_two_normal_distributions(area: float) -> None:
    """It is sqrt(2) times the normal quantile of the area; without an overlap it is infinite."""
    assert discriminability(area) == pytest.approx(math.sqrt(2) * norm.ppf(area))
    assert (discriminability(1.0), discriminability(0.0)) == (math.inf, -math.inf)
    assert math.isnan(discriminability(math.nan))


def test_each_draw_has_as_many_recordings_as_there_are() -> None:
    """The first column has each recording once; the others sum to the number of recordings and differ."""
    draws = recording_draws(7, 50)
    assert draws.shape == (7, 51)
    assert (draws[:, 0] == 1).all() and (draws.sum(axis=0) == 7).all()
    assert len(np.unique(draws.T, axis=0)) > 40
    assert recording_draws(0, 5).shape == (0, 6)
