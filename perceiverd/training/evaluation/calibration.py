"""Calibration: a scale and a shift for each label, so that of the windows with a score of 0.8 four in five are right.

A label's score is sigmoid(scale * logit + shift) (Platt 1999). A few recordings a class can't bear two free numbers,
so each class is drawn towards one fit of all classes together, the more the fewer recordings it has: the two numbers
are the mode under a normal prior about the pooled ones, a recording counting as one observation however many windows
it has. How wide the prior is, held-out recordings decide: the width that predicts them best.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import Label
from perceiverd.core.logs import log_event
from perceiverd.model.card import CALIBRATION_FILE, Calibration, Card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.data.ambient import HOP_S, Stream
from perceiverd.training.evaluation.false_alarms import event_levels, stream_levels
from perceiverd.training.evaluation.heldout import FEWEST, HeldOut
from perceiverd.training.evaluation.metrics import Facts
from perceiverd.training.evaluation.scores import ScoringModel, sigmoid
from perceiverd.training.evaluation.thresholds import ThresholdCounts, by_recording, choose, clip_levels
from perceiverd.training.evaluation.video import HeldOutPictures

logger = logging.getLogger("perceiverd.training")

FOLDS = 5
WIDTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the prior: standard deviation of a class's log odds where the pooled score is one half."""
SLOPE = 0.25
"""The standard deviation of the scale, in pooled scales, for a width of 1."""
STEPS = 30  # of Newton's method; five usually do

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class PlattScaling:
    """score = sigmoid(scale * logit + shift)."""

    scale: float
    shift: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """Windows of which something is known."""

    logits: Logits
    """(N, classes)"""
    facts: Facts
    """(N, classes): 1 there, 0 absent, -1 unknown."""
    recordings: NDArray[np.str_]
    """(N,)"""

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """(N, classes): of each class each recording counts as one, windows of which nothing is known not at all."""
        names, which = np.unique(self.recordings, return_inverse=True)
        known = self.facts >= 0
        counts = np.zeros((len(names), known.shape[1]))
        np.add.at(counts, which, known)
        return np.asarray(known / np.maximum(counts[which], 1))

    @property
    def classes(self) -> list[int]:
        """Those with enough recordings of their own, and with some that lack them."""
        return [
            c
            for c in range(self.facts.shape[1])
            if (self.facts[:, c] == 0).any() and len(set(self.recordings[self.facts[:, c] == 1])) >= FEWEST
        ]

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            np.concatenate([self.logits, other.logits]),
            np.concatenate([self.facts, other.facts]),
            np.concatenate([self.recordings, other.recordings]),
        )

    def part(self, rows: NDArray[np.bool_]) -> Evidence:
        """Some of the windows."""
        return Evidence(self.logits[rows], self.facts[rows], self.recordings[rows])


@dataclass(frozen=True)
class FittedCalibration:
    """The calibration of every class."""

    pooled: PlattScaling
    own: dict[int, PlattScaling]
    """Of the classes that have evidence of their own."""
    width: float

    def line(self, c: int) -> PlattScaling:
        """Of one class; the pooled one where it has none of its own."""
        return self.own.get(c, self.pooled)

    def scores(self, logits: Logits) -> NDArray[np.float32]:
        """Calibrated (N, classes)."""
        lines = [self.line(c) for c in range(logits.shape[1])]
        scale, shift = (np.array([getattr(one, name) for one in lines], np.float32) for name in ("scale", "shift"))
        return sigmoid(scale * logits + shift)


def fit_platt(
    logits: NDArray[np.floating],
    truth: NDArray[np.floating],
    weights: NDArray[np.floating],
    centre: PlattScaling | None = None,
    width: float = np.inf,
) -> PlattScaling:
    """The line of the greatest likelihood, or posterior about `centre`, by Newton's method on a convex function."""
    centre = centre or PlattScaling(1.0, 0.0)
    if width == 0:
        return centre
    # Counted from where the pooled score is one half, scale and shift hardly hang together.
    middle = -centre.shift / centre.scale
    x = np.stack([logits - middle, np.ones_like(logits)], axis=-1).astype(np.float64)  # (N, 2)
    start = np.array([centre.scale, 0.0])
    precision = np.diag(1 / np.array([SLOPE * width * centre.scale, width]) ** 2)
    found = start.copy()
    for _ in range(STEPS):
        p = sigmoid(x @ found).astype(np.float64)
        gradient = x.T @ (weights * (p - truth)) + precision @ (found - start)
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x + precision + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        found -= step * min(1.0, 2.0 / np.abs(step).max(initial=1e-12))
        if np.abs(step).max() < 1e-9:
            break
    scale = max(float(found[0]), 0.05 * centre.scale)  # a falling score would turn a class's meaning round
    return PlattScaling(scale, float(found[1]) - scale * middle)


def fit_pooled(evidence: Evidence, classes: Sequence[int]) -> PlattScaling:
    """The one line of these classes together."""
    known = evidence.facts[:, classes] >= 0
    truth = (evidence.facts[:, classes] == 1)[known].astype(np.float64)
    return fit_platt(evidence.logits[:, classes][known], truth, evidence.weights[:, classes][known])


def fit(evidence: Evidence, classes: Sequence[int], width: float) -> FittedCalibration:
    """The pooled line of these classes, and one of each."""
    weights, pooled, own = evidence.weights, fit_pooled(evidence, classes), {}
    for c in classes:
        mine = evidence.facts[:, c] >= 0
        truth = (evidence.facts[mine, c] == 1).astype(np.float64)
        own[c] = fit_platt(evidence.logits[mine, c], truth, weights[mine, c], pooled, width)
    return FittedCalibration(pooled, own, width)


def folds(evidence: Evidence, seed: int = 0) -> Iterator[NDArray[np.bool_]]:
    """FOLDS masks of windows, each recording in one; recordings with alike facts are spread evenly."""
    names, first, which = np.unique(evidence.recordings, return_index=True, return_inverse=True)
    rng = np.random.default_rng(seed)
    kinds = [tuple(np.flatnonzero(evidence.facts[row] == 1)) for row in first]
    order = sorted(rng.permutation(len(names)), key=lambda i: kinds[i])
    fold = np.empty(len(names), np.intp)
    fold[order] = np.arange(len(names)) % FOLDS
    for number in range(FOLDS):
        yield fold[which] == number


def cross_fitted(evidence: Evidence, classes: Sequence[int], width: float) -> NDArray[np.float32]:
    """Scores (N, classes) of windows by calibrations that knew nothing of their recordings."""
    out = np.empty(evidence.logits.shape, np.float32)
    for held in folds(evidence):
        out[held] = fit(evidence.part(~held), classes, width).scores(evidence.logits[held])
    return out


def log_loss(scores: NDArray[np.floating], evidence: Evidence, classes: Sequence[int]) -> float:
    """Mean over the classes of the cross-entropy of what is known, a recording counting as one."""
    p = np.clip(scores[:, classes].astype(np.float64), 1e-7, 1 - 1e-7)
    weights = evidence.weights[:, classes]
    losses = np.where(evidence.facts[:, classes] == 1, -np.log(p), -np.log1p(-p)) * weights
    return float((losses.sum(axis=0) / weights.sum(axis=0)).mean())


def best_width(evidence: Evidence, classes: Sequence[int]) -> tuple[float, dict[float, float]]:
    """The width that predicts held-out recordings best, and the loss of each."""
    losses = {width: log_loss(cross_fitted(evidence, classes, width), evidence, classes) for width in WIDTHS}
    return min(losses, key=losses.__getitem__), losses


def audio_evidence(logits: Logits, held: HeldOut) -> Evidence:
    """What held-out sounds tell."""
    return Evidence(logits, held.window_facts, held.window_recordings)


def picture_evidence(logits: Logits, shown: HeldOutPictures) -> Evidence:
    """What held-out pictures tell; a picture counts as a recording."""
    return Evidence(logits, shown.facts, np.array([f"picture:{number}" for number in shown.picture]))


def calibrate(
    card: Card, held: HeldOut, shown: HeldOutPictures | None, quiet: Iterator[Stream]
) -> tuple[FittedCalibration, list[ThresholdCounts]]:
    """Lines and thresholds of a model from held-out sounds, pictures where it sees, and streams of nothing."""
    student = ScoringModel(card)
    evidence = audio_evidence(student.logits(held.mel, None), held)
    heard = len(evidence.logits)
    if shown is not None:
        evidence = evidence + picture_evidence(student.logits(None, shown.frames), shown)
    classes = evidence.classes
    width, losses = best_width(evidence, classes)
    shown_losses = [f"{each:g}:{loss:.5f}" for each, loss in losses.items()]
    log_event(logger, logging.INFO, "calibration-fitted", classes=len(classes), width=f"{width:g}", losses=shown_losses)
    fitted = fit(evidence, classes, width)
    crossed = cross_fitted(evidence, classes, width)
    recordings = np.asarray(held.recordings)
    values, facts = by_recording(clip_levels(held, crossed[:heard]), held.facts, recordings)
    if shown is not None:
        views = [np.flatnonzero(shown.picture == number) for number in np.unique(shown.picture)]
        seen = np.stack([event_levels(crossed[heard + rows], HOP_S) for rows in views])
        values, facts = np.concatenate([values, seen]), np.concatenate([facts, shown.facts[[r[0] for r in views]]])
    lines = [fitted.line(label.index) for label in card.labels]
    now = replace(card, calibration=tuple(Calibration(line.scale, line.shift) for line in lines))
    counted = choose(values, facts, stream_levels(Tagger(now), quiet))
    return fitted, counted


def write(folder: Path, labels: Sequence[Label], fitted: FittedCalibration, counted: Sequence[ThresholdCounts]) -> None:
    """`calibration.tsv` of a model, whole or not at all; its further columns say what it rests on."""
    partial = folder / f"{CALIBRATION_FILE}.part"
    with partial.open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        table.writerow("mid name scale shift threshold basis recordings found lacking false restless".split())
        for label, one in zip(labels, counted, strict=True):
            line = fitted.line(label.index)
            basis = "own" if label.index in fitted.own else "pooled"
            figures = (f"{line.scale:.4f}", f"{line.shift:.4f}", f"{one.threshold:.2f}")
            counts = (one.recordings, one.found, one.lacking, one.false, "yes" if one.restless else "no")
            table.writerow([label.mid, label.name, *figures, basis, *counts])
    os.replace(partial, folder / CALIBRATION_FILE)
