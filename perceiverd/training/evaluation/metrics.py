"""Figures and how sure they are: average precision, bootstraps by recording, rates of rare events, rank correlation.

Plain arrays in, plain values out; knows nothing of models or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 500  # of a bootstrap
Scores = NDArray[np.floating]
Facts = NDArray[np.int8]
"""What is known: 1 there, 0 not there, -1 unknown."""


@dataclass(frozen=True)
class Interval:
    """A measure with an interval of 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def average_precision(scores: Scores, truth: NDArray[np.bool_]) -> float:
    """Mean precision at the positives of (N,) scores, best first; ties count at their worst; NaN without a positive."""
    if not truth.any():
        return float("nan")
    # Among equal scores the negatives come first, so that a constant score earns no luck.
    order = np.lexsort((truth, -scores))
    hits = truth[order].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    return float(precision[truth[order]].mean())


def mean_precision(scores: Scores, facts: Facts, columns: Sequence[int]) -> float:
    """Mean of the columns' average precision, each over the rows where its label is known; NaN where none has one."""
    values = []
    for column in columns:
        known = facts[:, column] >= 0
        values.append(average_precision(scores[known, column], facts[known, column] == 1))
    sure = [value for value in values if not math.isnan(value)]
    return float(np.mean(sure)) if sure else float("nan")


def recall_at(scores: Scores, facts: Facts, columns: Sequence[int], top: int) -> float:
    """Of the labels that are there, among these columns, the share that is among the row's `top` best columns."""
    chosen = scores[:, columns]
    best = np.argsort(np.argsort(-chosen, axis=1), axis=1) < top
    there = facts[:, columns] == 1
    return float(best[there].mean()) if there.any() else float("nan")


def bootstrap(measure: Callable[[NDArray[np.intp]], float], groups: Sequence[str], seed: int = 0) -> Interval:
    """`measure` of row numbers, and its spread when whole groups are drawn anew.

    Clips cut from one recording are not independent, so recordings are drawn, not clips.
    """
    return bootstraps(lambda rows: np.array([measure(rows)]), groups, seed)[0]


def bootstraps(
    measure: Callable[[NDArray[np.intp]], NDArray[np.floating]], groups: Sequence[str], seed: int = 0
) -> list[Interval]:
    """As `bootstrap`, of several measures on the same draws; a draw in which one is no number is not one of its own."""
    rng = np.random.default_rng(seed)
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(which == i) for i in range(len(names))]
    drawn = (np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(ROUNDS))
    draws = np.array([measure(one) for one in drawn])  # (rounds, measures)
    found = measure(np.arange(len(which)))
    intervals = []
    for value, spread in zip(found, draws.T, strict=True):
        sure = spread[np.isfinite(spread)]
        low, high = np.percentile(sure, [2.5, 97.5]) if len(sure) else (math.nan, math.nan)
        intervals.append(Interval(float(value), float(low), float(high)))
    return intervals


def rate(events: int, exposure: float) -> Interval:
    """Events per unit of exposure, with the exact Poisson interval (Garwood 1936)."""

    def at_most(count: int, mean: float) -> float:
        term = total = math.exp(-mean)
        for k in range(1, count + 1):
            term *= mean / k
            total += term
        return total

    def solve(count: int, chance: float) -> float:
        low, high = 0.0, 10.0 + 4.0 * (count + 1)
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(count, middle) > chance else (low, middle)
        return low

    lowest = solve(events - 1, 0.975) if events else 0.0
    return Interval(events / exposure, lowest / exposure, solve(events, 0.025) / exposure)


def ranks(values: Scores) -> NDArray[np.float64]:
    """Places 0, 1, ... along the last axis; equal values share the mean of theirs."""
    rows = np.atleast_2d(values)
    out = np.empty(rows.shape)
    for row, into in zip(rows, out, strict=True):
        _, place, counts = np.unique(row, return_inverse=True, return_counts=True)
        into[:] = (counts.cumsum() - (counts + 1) / 2)[place]
    return out.reshape(np.shape(values))


def correlation(one: Scores, other: Scores) -> NDArray[np.float64]:
    """Pearson's along the last axis; NaN where one side does not vary."""
    a = one - one.mean(axis=-1, keepdims=True, dtype=np.float64)
    b = other - other.mean(axis=-1, keepdims=True, dtype=np.float64)
    spread = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    found = np.divide((a * b).sum(axis=-1), spread, out=np.full(spread.shape, np.nan), where=spread > 0)
    return np.asarray(found, np.float64)


def quartiles(values: Scores) -> str:
    """`median [lower quartile, upper quartile]` of what is a number."""
    low, middle, high = np.nanpercentile(values, [25, 50, 75])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
