"""Whether scores mean what they say: of the windows scored about 0.8, how many are right.

A window counts for the labels of which something is known; a recording counts as one, however many windows it has.
Shares hold for the mixture of classes in the held-out set, where each of some fifty is about as common.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.training.evaluation.calibration import Evidence, PlattScaling, fit_platt, fit_pooled, log_loss
from perceiverd.training.evaluation.charts import Dot, Panel, diagonal
from perceiverd.training.evaluation.metrics import ROUNDS, Interval
from perceiverd.training.evaluation.scores import sigmoid

EDGES = np.array([0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
"""Lower ends of the bins; most windows lack most labels, so the low ones are narrow."""
TOLD = 0.1  # Scores above this are worth telling; all below would hide them in a mean.


@dataclass(frozen=True)
class Bin:
    """Windows of about one score."""

    windows: int
    recordings: int
    score: float
    share: Interval
    """Of the windows, that are right."""


@dataclass(frozen=True)
class Reliability:
    """How far scores are from what is true."""

    bins: tuple[Bin, ...]
    error: Interval
    """Expected calibration error: the mean distance of a bin's score and its share of right windows."""
    told_error: Interval
    """The same over the bins from TOLD on."""
    brier: Interval
    """Mean squared distance of score and truth."""


def measure(scores: NDArray[np.float32], evidence: Evidence, classes: Sequence[int], seed: int = 0) -> Reliability:
    """The reliability of scores (N, classes), with bootstraps by recording."""
    facts, p = evidence.facts[:, classes], scores[:, classes].astype(np.float64)
    rows, columns = np.nonzero(facts >= 0)
    p, y, w = (
        p[rows, columns],
        (facts[rows, columns] == 1).astype(np.float64),
        evidence.weights[:, classes][rows, columns],
    )
    names, who = np.unique(evidence.recordings, return_inverse=True)
    who, which = who[rows], np.searchsorted(EDGES, p, side="right") - 1
    # Of each recording and bin: weight, weighted scores, weighted truths; and of each recording its squared error.
    sums = np.zeros((3, len(names), len(EDGES)))
    for total, values in zip(sums, (w, w * p, w * y), strict=True):
        np.add.at(total, (who, which), values)
    square = np.bincount(who, w * (p - y) ** 2, len(names)).astype(np.float64)

    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), ROUNDS).astype(np.float64)
    spread = [_summary(sums, square, draw) for draw in draws]
    value = _summary(sums, square, np.ones(len(names)))
    intervals = [_interval(v, [one[i] for one in spread]) for i, v in enumerate(value)]
    windows = np.bincount(which, minlength=len(EDGES))
    bins = tuple(
        Bin(
            int(windows[b]),
            int((sums[0, :, b] > 0).sum()),
            float(sums[1, :, b].sum() / sums[0, :, b].sum()),
            intervals[3 + b],
        )
        for b in range(len(EDGES))
        if windows[b]
    )
    return Reliability(bins, *intervals[:3])


def _summary(sums: NDArray[np.float64], square: NDArray[np.float64], draw: NDArray[np.floating]) -> list[float]:
    """Error, error of what is told, Brier score, then each bin's share of right windows; NaN where it is empty."""
    weight, score, truth = np.einsum("r,krb->kb", draw, sums)
    gaps, told = np.abs(score - truth), EDGES >= TOLD
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = [gaps.sum() / weight.sum(), gaps[told].sum() / weight[told].sum(), draw @ square / weight.sum()]
        return [*errors, *(truth / weight)]


def _interval(value: float, draws: Sequence[float]) -> Interval:
    sure = [draw for draw in draws if np.isfinite(draw)]
    low, high = np.percentile(sure, [2.5, 97.5]) if sure else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def pooled_check(ear: Evidence, teacher: Evidence, classes: Sequence[int]) -> dict[str, float]:
    """Log loss of classes each treated as if nothing were known of it, by what could stand in for evidence.

    The model's bare scores; the line of all other classes, which such classes get; and that line drawn towards what
    the teacher thinks, itself calibrated by all other classes.
    """
    losses: dict[str, list[float]] = {"bare scores": [], "pooled": [], "pooled and drawn to the teacher": []}
    for c in classes:
        others = [other for other in classes if other != c]
        own, taught = (fit_pooled(one, others) for one in (ear, teacher))
        opinion = sigmoid(taught.scale * teacher.logits[:, c] + taught.shift).astype(np.float64)
        drawn = fit_platt(ear.logits[:, c], opinion, ear.weights[:, c], own, 1.0)
        for name, line in zip(losses, (PlattScaling(1.0, 0.0), own, drawn), strict=True):
            losses[name].append(log_loss(sigmoid(line.scale * ear.logits + line.shift), ear, [c]))
    return {name: float(np.mean(values)) for name, values in losses.items()}


def table(found: Mapping[str, Reliability]) -> Iterator[str]:
    """Errors by name, as Markdown."""
    yield f"| | calibration error [95 %] | of scores from {TOLD:g} on | Brier score |"
    yield "|---|---|---|---|"
    for name, one in found.items():
        yield f"| {name} | {_four(one.error)} | {one.told_error} | {_four(one.brier)} |"
    yield ""


def bins_table(found: Reliability) -> Iterator[str]:
    """What the scores of each bin came to, as Markdown."""
    yield "| mean score | windows | recordings | right [95 %] |"
    yield "|--:|--:|--:|---|"
    for one in found.bins:
        yield f"| {one.score:.3f} | {one.windows} | {one.recordings} | {one.share} |"
    yield ""


def _four(one: Interval) -> str:
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


def chart(pairs: Mapping[str, tuple[Reliability, Reliability]]) -> str:
    """The reliability plot as SVG: for each set the scores before and after calibration."""
    panels = [
        Panel(title, [("as trained", _dots(before)), ("calibrated", _dots(after))])
        for title, (before, after) in pairs.items()
    ]
    return diagonal(panels, "mean score of windows", "share that is right")


def _dots(one: Reliability) -> list[Dot]:
    """Bins of too few recordings are left out: their share is luck."""
    return [Dot(b.score, b.share.value, b.share.low, b.share.high) for b in one.bins if b.recordings >= 5]
