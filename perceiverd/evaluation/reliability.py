"""Whether scores are probabilities: of the windows that score about 0.8, how many have the label.

A window counts for its known labels. All windows of a recording together count as one. Shares hold for the classes of
the held-out set, where each of about fifty is equally common.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.evaluation.charts import Dot, Panel, diagonal
from perceiverd.evaluation.metrics import ROUNDS, Facts, Interval
from perceiverd.evaluation.ranking import recording_draws

EDGES = np.array([0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
"""Lower ends of the bins. Low bins are narrow, because most windows lack most labels."""
NOTABLE = 0.1
"""Scores from here on also get an error of their own, because the many lower ones dominate the mean."""


@dataclass(frozen=True)
class Bin:
    """Windows of about one score."""

    windows: int
    recordings: int
    score: float
    share: Interval
    """Share of the windows that have the label."""


@dataclass(frozen=True)
class Reliability:
    """How far scores are from the truth."""

    bins: tuple[Bin, ...]
    error: Interval
    """Expected calibration error: the mean distance between a bin's score and its share of windows with the label."""
    notable_error: Interval
    """The same over the bins from NOTABLE on."""
    brier: Interval
    """Mean squared distance between score and truth."""


def recording_weights(facts: Facts, recordings: NDArray[np.str_] | NDArray[np.intp]) -> NDArray[np.float64]:
    """(N, classes) of windows: for each class, each recording weighs 1 in all, and unknown windows weigh 0."""
    names, which = np.unique(recordings, return_inverse=True)
    known = facts >= 0
    counts = np.zeros((len(names), known.shape[1]))
    np.add.at(counts, which, known)
    return np.asarray(known / np.maximum(counts[which], 1))


def measure(
    scores: NDArray[np.float32], facts: Facts, recordings: NDArray[np.str_], classes: Sequence[int], seed: int = 0
) -> Reliability:
    """The reliability of scores (N, classes) of windows of these `recordings` (N,), with bootstraps by recording."""
    names, owners = np.unique(recordings, return_inverse=True)
    return measure_draws(scores, facts, owners, classes, recording_draws(len(names), ROUNDS, seed))[0]


def measure_draws(
    scores: NDArray[np.float32],
    facts: Facts,
    owners: NDArray[np.intp],
    classes: Sequence[int],
    draws: NDArray[np.integer],
) -> tuple[Reliability, NDArray[np.float64]]:
    """As `measure`, on given draws (recordings, 1 + rounds); and the values (1 + rounds, 3) of its three errors.

    `owners` (N,): the recording of each window.
    """
    weights, facts = recording_weights(facts, owners)[:, classes], facts[:, classes]
    rows, columns = np.nonzero(facts >= 0)
    p = scores[:, classes].astype(np.float64)[rows, columns]
    y, w = (facts[rows, columns] == 1).astype(np.float64), weights[rows, columns]
    owner, which = owners[rows], np.searchsorted(EDGES, p, side="right") - 1
    # For each recording and bin: weight, weighted scores, weighted truths. For each recording: its squared error.
    sums = np.zeros((3, len(draws), len(EDGES)))
    for total, values in zip(sums, (w, w * p, w * y), strict=True):
        np.add.at(total, (owner, which), values)
    square = np.bincount(owner, w * (p - y) ** 2, len(draws)).astype(np.float64)
    spread = np.array([_summary(sums, square, draw.astype(np.float64)) for draw in draws.T])
    intervals = [Interval.of(values) for values in spread.T]
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
    return Reliability(bins, *intervals[:3]), spread[:, :3]


def _summary(sums: NDArray[np.float64], square: NDArray[np.float64], draw: NDArray[np.floating]) -> list[float]:
    """Error, notable error, Brier score, then each bin's share of windows with the label; NaN for an empty bin."""
    weight, score, truth = np.einsum("r,krb->kb", draw, sums)
    gaps, notable = np.abs(score - truth), EDGES >= NOTABLE
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = [gaps.sum() / weight.sum(), gaps[notable].sum() / weight[notable].sum(), draw @ square / weight.sum()]
        return [*errors, *(truth / weight)]


def table(found: Mapping[str, Reliability]) -> Iterator[str]:
    """Errors by name, as Markdown."""
    yield f"| | calibration error [95 %] | for scores from {NOTABLE:g} | Brier score |"
    yield "|---|---|---|---|"
    for name, one in found.items():
        yield f"| {name} | {_four(one.error)} | {one.notable_error} | {_four(one.brier)} |"
    yield ""


def bins_table(found: Reliability) -> Iterator[str]:
    """Each bin's score and share, as Markdown."""
    yield "| mean score | windows | recordings | have the label [95 %] |"
    yield "|--:|--:|--:|---|"
    for one in found.bins:
        yield f"| {one.score:.3f} | {one.windows} | {one.recordings} | {one.share} |"
    yield ""


def _four(one: Interval) -> str:
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


def chart(found: Mapping[str, Sequence[Reliability]]) -> str:
    """The reliability plot as SVG, for each set before calibration and, if there is a second one, after it."""
    states = ("as trained", "calibrated")
    panels = [
        Panel(title, [(state, dots(one.bins)) for state, one in zip(states, both, strict=False)])
        for title, both in found.items()
    ]
    return diagonal(panels, "mean score of windows", "share with the label")


def dots(bins: Sequence[Bin]) -> list[Dot]:
    """Bins of fewer than 5 recordings are left out, because their share is mostly chance."""
    return [Dot(b.score, b.share.value, b.share.low, b.share.high) for b in bins if b.recordings >= 5]
