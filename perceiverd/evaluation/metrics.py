"""Measures and their intervals: average precision, bootstraps by recording, event rates, rank correlation.

Plain arrays in, plain values out. Knows nothing of models or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.evaluation.ranking import Ranking, Weights

ROUNDS = 500
"""Draws of a bootstrap."""
EXACT_EVENTS = 5000
"""Up to this many events a rate has its exact interval; the sums of more would take too long."""
Scores = NDArray[np.floating]
Facts = NDArray[np.int8]
"""What is known about labels: 1 present, 0 absent, -1 unknown."""


@dataclass(frozen=True)
class Interval:
    """A measure with its 95 % interval; NaN if there is too little to measure."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "too few"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> Interval:
        """The interval of values (1 + draws,): the measure itself, then each draw's. Draws without one are ignored."""
        sure = values[1:][np.isfinite(values[1:])]
        low, high = np.percentile(sure, [2.5, 97.5]) if len(sure) else (math.nan, math.nan)
        return cls(float(values[0]), float(low), float(high))


def average_precision(scores: Scores, truth: NDArray[np.bool_]) -> float:
    """Average precision of (N,) scores as scikit-learn defines it; NaN without a positive.

    Equal scores share one threshold, so that a constant score gains nothing.
    """
    return float(Ranking(scores, truth).average_precision(np.ones((len(truth), 1), np.uint16))[0])


def mean_precision(scores: Scores, facts: Facts, columns: Sequence[int]) -> float:
    """Mean average precision of the columns, each over the rows whose label is known; NaN if no column has one."""
    values = []
    for column in columns:
        known = facts[:, column] >= 0
        values.append(average_precision(scores[known, column], facts[known, column] == 1))
    sure = [value for value in values if not math.isnan(value)]
    return float(np.mean(sure)) if sure else float("nan")


def mean_precisions(scores: Scores, facts: Facts, columns: Sequence[int], weights: Weights) -> NDArray[np.float64]:
    """(draws,): `mean_precision` of the rows as often as each draw has them; see `drawn_rows`.

    Each column is sorted once for all draws, so 500 draws cost little more than one.
    """
    values = np.full((len(columns), weights.shape[1]), np.nan)
    for value, column in zip(values, columns, strict=True):
        known = facts[:, column] >= 0
        value[:] = Ranking(scores[known, column], facts[known, column] == 1).average_precision(weights[known])
    sure = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(sure, values, 0).sum(axis=0) / sure.sum(axis=0))


def recall_at(scores: Scores, facts: Facts, columns: Sequence[int], top: int) -> float:
    """The share of the present labels of these columns that are among the `top` best columns of their row."""
    return float(recalls_at(scores, facts, columns, top, np.ones((len(scores), 1), np.uint16))[0])


def recalls_at(scores: Scores, facts: Facts, columns: Sequence[int], top: int, weights: Weights) -> NDArray[np.float64]:
    """(draws,): `recall_at` of the rows as often as each draw has them; NaN without a present label."""
    chosen = scores[:, columns]
    best = np.argsort(np.argsort(-chosen, axis=1), axis=1) < top
    present = facts[:, columns] == 1
    found, there = ((one.sum(axis=1) @ weights.astype(np.float64)) for one in (best & present, present))
    with np.errstate(invalid="ignore"):
        return np.asarray(found / there)


def bootstrap(measure: Callable[[NDArray[np.intp]], float], groups: Sequence[str], seed: int = 0) -> Interval:
    """`measure` of row numbers, with its interval over draws of whole groups with replacement.

    Groups are recordings, because clips cut from one recording are not independent.
    """
    return bootstraps(lambda rows: np.array([measure(rows)]), groups, seed)[0]


def bootstraps(
    measure: Callable[[NDArray[np.intp]], NDArray[np.floating]], groups: Sequence[str], seed: int = 0
) -> list[Interval]:
    """As `bootstrap`, for several measures on the same draws. A measure ignores the draws in which it is NaN."""
    rng = np.random.default_rng(seed)
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(which == i) for i in range(len(names))]
    drawn = (np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(ROUNDS))
    draws = np.array([measure(one) for one in drawn])  # (rounds, measures)
    found = measure(np.arange(len(which)))
    return [Interval.of(values) for values in np.vstack([found, draws]).T]


def drawn_rows(groups: Sequence[str], seed: int = 0) -> NDArray[np.uint16]:
    """(rows, 1 + ROUNDS): how often each draw of `bootstraps` has each row. The first has each row once."""
    rng = np.random.default_rng(seed)
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    drawn = [np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)) for _ in range(ROUNDS)]
    return np.stack([np.ones(len(names), np.intp), *drawn], axis=1)[which].astype(np.uint16)


def shares(hits: NDArray[np.bool_], weights: Weights) -> NDArray[np.float64]:
    """(draws,): the share of hits (rows,) among the rows of each draw; NaN if it has none."""
    with np.errstate(invalid="ignore"):
        return np.asarray(hits @ weights.astype(np.float64) / weights.sum(axis=0, dtype=np.int64))


def rate(events: int, exposure: float) -> Interval:
    """Events per unit of exposure, with the exact Poisson interval (Garwood 1936); NaN without exposure.

    Above EXACT_EVENTS the interval is Byar's approximation (Breslow and Day 1987), which then hardly differs.
    """
    if not exposure:
        return Interval(math.nan, math.nan, math.nan)
    low, high = _poisson_limits(events) if events <= EXACT_EVENTS else _byar_limits(events)
    return Interval(events / exposure, low / exposure, high / exposure)


def _poisson_limits(events: int) -> tuple[float, float]:
    logs = np.array([math.lgamma(k + 1) for k in range(events + 1)])

    def at_most(count: int, mean: float) -> float:
        steps = np.arange(count + 1)
        return float(np.exp(steps * math.log(mean) - mean - logs[: count + 1]).sum())

    def solve(count: int, chance: float) -> float:
        low, high = 0.0, 10.0 + 4.0 * (count + 1)
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(count, middle) > chance else (low, middle)
        return low

    return solve(events - 1, 0.975) if events else 0.0, solve(events, 0.025)


def _byar_limits(events: int) -> tuple[float, float]:
    def limit(count: int, sign: int) -> float:
        return float(count * (1 - 1 / (9 * count) + sign * 1.959964 / (3 * math.sqrt(count))) ** 3)

    return limit(events, -1), limit(events + 1, 1)


def ranks(values: Scores) -> NDArray[np.float64]:
    """Ranks 0, 1, ... along the last axis; equal values get the mean of their ranks."""
    rows = np.atleast_2d(values)
    out = np.empty(rows.shape)
    for row, into in zip(rows, out, strict=True):
        _, place, counts = np.unique(row, return_inverse=True, return_counts=True)
        into[:] = (counts.cumsum() - (counts + 1) / 2)[place]
    return out.reshape(np.shape(values))


def correlation(one: Scores, other: Scores) -> NDArray[np.float64]:
    """Pearson's correlation along the last axis; NaN if one side is constant."""
    a = one - one.mean(axis=-1, keepdims=True, dtype=np.float64)
    b = other - other.mean(axis=-1, keepdims=True, dtype=np.float64)
    spread = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    found = np.divide((a * b).sum(axis=-1), spread, out=np.full(spread.shape, np.nan), where=spread > 0)
    return np.asarray(found, np.float64)


def quartiles(values: Scores) -> str:
    """`median [lower quartile, upper quartile]` without NaN."""
    low, middle, high = np.nanpercentile(values, [25, 50, 75])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
