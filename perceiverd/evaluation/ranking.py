"""Measures of one class that depend only on the order of its scores, for many weightings of the rows at once.

The weightings are the draws of a bootstrap. The rows are sorted once, so a draw costs one sum over them. Plain arrays
in, plain arrays out.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.integer]
"""(N, draws): how often each draw has each row."""
Values = NDArray[np.float64]
"""(draws,); NaN if a draw lacks what the measure needs."""


class Ranking:
    """The rows of one class, best score first. Rows of equal score share one threshold."""

    def __init__(self, scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> None:
        """`scores` (N,) and `truth` (N,)."""
        self._order = np.argsort(-scores, kind="stable")
        sorted_scores, hits = scores[self._order], truth[self._order]
        ends = np.flatnonzero(np.append(sorted_scores[1:] != sorted_scores[:-1], True)[: len(hits)]) + 1
        starts = np.concatenate([[0], ends[:-1]]).astype(np.intp)
        # Only groups with a positive matter to either measure.
        own = np.unique(np.searchsorted(ends, np.flatnonzero(hits), side="right"))
        self._starts, self._ends = starts[own], ends[own]
        self._positive = np.flatnonzero(hits)

    def average_precision(self, weights: Weights) -> Values:
        """The sum over thresholds of precision times the gain in recall, as `sklearn.metrics.average_precision_score`.

        NaN without a positive.
        """
        return self.measures(weights)[0]

    def measures(self, weights: Weights) -> tuple[Values, Values]:
        """Average precision, and the area under the ROC curve, where a tie counts half (Mann and Whitney 1947)."""
        if not len(self._positive):
            return np.full(weights.shape[1], np.nan), np.full(weights.shape[1], np.nan)
        rows_before, rows_after, rows = _sums(weights[self._order], self._starts, self._ends)
        places = np.searchsorted(self._positive, np.stack([self._starts, self._ends]))
        before, after, positives = _sums(weights[self._order[self._positive]], *places)
        gained, negatives = after - before, rows - positives
        wrong_before, wrong_after = rows_before - before, rows_after - after
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = (gained * (after / np.maximum(rows_after, 1))).sum(axis=0) / positives
            above = (gained * ((wrong_before + wrong_after) / 2)).sum(axis=0)
            return precision, 1 - above / (positives.astype(np.float64) * negatives)


def _sums(
    rows: Weights, starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sums of the rows before each start (groups, draws) and before each end, and of all rows (draws,)."""
    # Sums between the few places that matter are much faster than a running sum over all rows.
    places = np.unique(np.concatenate([[0], starts, ends]))
    inside = places[places < len(rows)]
    running = np.cumsum(np.add.reduceat(rows, inside, axis=0, dtype=np.int64), axis=0)
    before = np.concatenate([np.zeros((1, rows.shape[1]), np.int64), running])
    # A place at the end of the rows is the last entry; one inside is followed by its own segment.
    return before[np.searchsorted(inside, starts)], before[np.searchsorted(inside, ends)], running[-1]


def discriminability(area: float) -> float:
    """d': the distance of two normal distributions of equal variance that have this area under their ROC curve.

    sqrt(2) times the normal quantile of the area (Hershey et al. 2017). Infinite for 0 and 1; NaN for NaN.
    """
    if math.isnan(area) or not 0 < area < 1:
        return math.nan if math.isnan(area) else math.copysign(math.inf, area - 0.5)
    return math.sqrt(2) * NormalDist().inv_cdf(area)


def recording_draws(recordings: int, rounds: int, seed: int = 0) -> NDArray[np.uint16]:
    """(recordings, 1 + rounds): how often each draw has each recording; first the measure itself, with each once."""
    rng = np.random.default_rng(seed)
    if not recordings:
        return np.ones((0, 1 + rounds), np.uint16)
    drawn = rng.multinomial(recordings, np.full(recordings, 1 / recordings), rounds)
    return np.vstack([np.ones((1, recordings), np.int64), drawn]).astype(np.uint16).T.copy()
