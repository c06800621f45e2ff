"""Measures, compared with counts made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.evaluation.metrics import (
    Interval,
    average_precision,
    bootstrap,
    bootstraps,
    correlation,
    drawn_rows,
    mean_precision,
    mean_precisions,
    ranks,
    rate,
    recall_at,
    recalls_at,
    shares,
)


def test_average_precision_is_the_mean_precision_at_the_positives() -> None:
    """Positives in places 1, 3 and 6 give (1/1 + 2/3 + 3/6) / 3."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    truth = np.array([True, False, True, False, False, True])
    assert average_precision(scores, truth) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)


def test_a_constant_score_gains_nothing() -> None:
    """If all scores are equal, the positives count as the last."""
    assert average_precision(np.zeros(4), np.array([True, False, False, False])) == pytest.approx(1 / 4)


def test_a_class_without_positives_has_no_precision() -> None:
    """Without a positive the measure is NaN, not 0 or 1."""
    assert np.isnan(average_precision(np.ones(3), np.zeros(3, np.bool_)))


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=40))
def test_average_precision_lies_between_chance_and_one(rows: list[tuple[int, bool]]) -> None:
    """It is at most 1, and exactly 1 if every positive is above every negative."""
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    truth = np.array([sure for _, sure in rows])
    if not truth.any():
        return
    found = average_precision(scores, truth)
    separated = truth.all() or scores[truth].min() > scores[~truth].max()
    assert 0 < found <= 1 and (found == pytest.approx(1)) == separated


def test_unknown_rows_count_neither_way() -> None:
    """A high score for an unknown label costs nothing; a class without a positive is left out of the mean."""
    scores = np.array([[0.9, 0.5], [0.8, 0.5], [0.1, 0.5]])
    facts = np.array([[-1, 0], [1, 0], [0, -1]], np.int8)
    assert mean_precision(scores, facts, [0, 1]) == 1.0
    assert math.isnan(mean_precision(scores, facts, [1]))


def test_recall_counts_labels_among_the_best() -> None:
    """Of three present labels, two are among the two best of their rows."""
    scores = np.array([[0.9, 0.8, 0.1], [0.3, 0.2, 0.1]])
    facts = np.array([[1, 0, 1], [0, 1, 0]], np.int8)
    assert recall_at(scores, facts, [0, 1, 2], 2) == pytest.approx(2 / 3)


def test_the_bootstrap_draws_whole_groups() -> None:
    """Rows of a group are always drawn together, so a single group has no spread."""
    values = np.array([0.0, 1.0, 2.0])
    interval = bootstrap(lambda rows: float(values[rows].mean()), ["a", "a", "a"])
    assert (interval.low, interval.value, interval.high) == (1.0, 1.0, 1.0)
    wide = bootstrap(lambda rows: float(values[rows].mean()), ["a", "b", "c"])
    assert wide.low < wide.value == 1.0 < wide.high


def test_several_measures_share_their_draws() -> None:
    """On the same draws, the difference of two equal measures has no spread."""
    values = np.array([0.0, 1.0, 2.0])
    one, other, constant = bootstraps(
        lambda rows: np.array([values[rows].mean(), values[rows].mean() + 1, 1.0]), ["a", "b", "c"]
    )
    assert other.low - one.low == pytest.approx(1)
    assert constant.low == constant.high == 1.0


def test_draws_as_weights_give_the_same() -> None:
    """Measures of all draws at once equal those of rows that are drawn one draw at a time."""
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 9, (41, 5)) / 10
    facts, hits = rng.integers(-1, 2, (41, 5)).astype(np.int8), rng.random(41) < 0.4
    groups, columns = [str(row // 3) for row in range(41)], [0, 2, 3]

    def measure(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        chosen, known = scores[rows], facts[rows]
        return np.array(
            [mean_precision(chosen, known, columns), recall_at(chosen, known, columns, 2), hits[rows].mean()]
        )

    draws = drawn_rows(groups, seed=7)
    found = [
        mean_precisions(scores, facts, columns, draws),
        recalls_at(scores, facts, columns, 2, draws),
        shares(hits, draws),
    ]
    for one, wanted in zip(found, bootstraps(measure, groups, seed=7), strict=True):
        interval = Interval.of(one)
        assert (interval.value, interval.low, interval.high) == pytest.approx(
            (wanted.value, wanted.low, wanted.high), abs=1e-9
        )
    nothing = np.full((41, 5), -1, np.int8)
    assert np.isnan(mean_precisions(scores, nothing, columns, draws)).all()


@pytest.mark.parametrize(
    ("events", "low", "high"),
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (10, 4.795, 18.39), (100, 81.36, 121.6)],
)
def test_rates_have_the_published_intervals(events: int, low: float, high: float) -> None:
    """The exact Poisson limits equal the published tables (Garwood 1936), per unit of exposure."""
    found = rate(events, 2.0)
    assert found.value == events / 2
    assert found.low * 2 == pytest.approx(low, rel=1e-3)
    assert found.high * 2 == pytest.approx(high, rel=1e-3)


def test_equal_values_share_their_rank() -> None:
    """Ranks start at 0; two equal values get the mean of both ranks."""
    assert ranks(np.array([5.0, 1.0, 5.0, 7.0])).tolist() == [1.5, 0.0, 1.5, 3.0]


def test_correlation_equals_numpys() -> None:
    """Rows are correlated one by one; a constant row gives NaN."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 7)), rng.normal(size=(2, 7))
    other[1] = 3
    found = correlation(one, other)
    assert found[0] == pytest.approx(np.corrcoef(one[0], other[0])[0, 1])
    assert np.isnan(found[1])
