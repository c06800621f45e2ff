"""Calibration: a scale and a shift for each label, so that scores are probabilities.

A label's score is sigmoid(scale * logit + shift) (Platt 1999). A few recordings per class are too few for two free
numbers. So each class is drawn towards one fit of all classes together, the more, the fewer recordings it has: scale
and shift are the mode under a normal prior around the pooled values. A recording counts as one observation, however
many windows it has. The prior's width is the one that predicts held-out recordings best.
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
from perceiverd.evaluation.metrics import Facts
from perceiverd.evaluation.reliability import recording_weights
from perceiverd.model.card import CALIBRATION_FILE, Calibration, Card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.data.ambient import HOP_S, AmbientStream
from perceiverd.training.evaluation.false_alarms import event_levels, stream_levels
from perceiverd.training.evaluation.heldout import FEWEST, HeldOut
from perceiverd.training.evaluation.scores import ScoringModel, sigmoid
from perceiverd.training.evaluation.thresholds import Levels, ThresholdCounts, by_recording, choose, clip_levels
from perceiverd.training.evaluation.video import HeldOutPictures

logger = logging.getLogger("perceiverd.training")

FOLDS = 5
WIDTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Candidates for the width of the prior: standard deviation of a class's log odds at a pooled score of 0.5."""
SLOPE = 0.25
"""Standard deviation of the scale over the pooled scale, for a width of 1."""
STEPS = 30
"""The most steps of Newton's method; five are usually enough."""

UNTAUGHT = -20.0
"""Logit of a label that the teacher lacks."""

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class PlattScaling:
    """score = sigmoid(scale * logit + shift)."""

    scale: float
    shift: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """Windows with what is known about them."""

    logits: Logits
    """(N, classes)"""
    facts: Facts
    """(N, classes): 1 present, 0 absent, -1 unknown."""
    recordings: NDArray[np.str_]
    """(N,)"""

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """(N, classes), as in `recording_weights`."""
        return recording_weights(self.facts, self.recordings)

    @property
    def classes(self) -> list[int]:
        """The classes with enough recordings, and with some recording that lacks them."""
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
    """For the classes with recordings of their own."""
    width: float

    def scaling(self, c: int) -> PlattScaling:
        """The scaling of one class; the pooled one if it has none of its own."""
        return self.own.get(c, self.pooled)

    def scores(self, logits: Logits) -> NDArray[np.float32]:
        """Calibrated (N, classes)."""
        scalings = [self.scaling(c) for c in range(logits.shape[1])]
        scale = np.array([one.scale for one in scalings], np.float32)
        shift = np.array([one.shift for one in scalings], np.float32)
        return sigmoid(scale * logits + shift)


def fit_platt(
    logits: NDArray[np.floating],
    truth: NDArray[np.floating],
    weights: NDArray[np.floating],
    centre: PlattScaling | None = None,
    width: float = np.inf,
) -> PlattScaling:
    """The most likely scaling of (N,) logits, under a prior around `centre`, by Newton's method on a convex function.

    `truth` and `weights` are (N,). With an infinite `width` there is no prior; with 0 the result is `centre`.
    """
    centre = centre or PlattScaling(1.0, 0.0)
    if width == 0:
        return centre
    # Relative to the logit at which the pooled score is 0.5, scale and shift are nearly independent.
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
    scale = max(float(found[0]), 0.05 * centre.scale)  # with a negative scale a high logit would mean absence
    return PlattScaling(scale, float(found[1]) - scale * middle)


def fit_pooled(evidence: Evidence, classes: Sequence[int]) -> PlattScaling:
    """One scaling of these classes together."""
    known = evidence.facts[:, classes] >= 0
    truth = (evidence.facts[:, classes] == 1)[known].astype(np.float64)
    return fit_platt(evidence.logits[:, classes][known], truth, evidence.weights[:, classes][known])


def fit(evidence: Evidence, classes: Sequence[int], width: float) -> FittedCalibration:
    """The pooled scaling of these classes, and one of each."""
    weights, pooled, own = evidence.weights, fit_pooled(evidence, classes), {}
    for c in classes:
        known = evidence.facts[:, c] >= 0
        truth = (evidence.facts[known, c] == 1).astype(np.float64)
        own[c] = fit_platt(evidence.logits[known, c], truth, weights[known, c], pooled, width)
    return FittedCalibration(pooled, own, width)


def folds(evidence: Evidence, seed: int = 0) -> Iterator[NDArray[np.bool_]]:
    """FOLDS masks of windows. Each recording is in one; recordings with equal facts are spread evenly."""
    names, first, which = np.unique(evidence.recordings, return_index=True, return_inverse=True)
    rng = np.random.default_rng(seed)
    kinds = [tuple(np.flatnonzero(evidence.facts[row] == 1)) for row in first]
    order = sorted(rng.permutation(len(names)), key=lambda i: kinds[i])
    fold = np.empty(len(names), np.intp)
    fold[order] = np.arange(len(names)) % FOLDS
    for number in range(FOLDS):
        yield fold[which] == number


def cross_fitted(evidence: Evidence, classes: Sequence[int], width: float) -> NDArray[np.float32]:
    """Scores (N, classes) of windows, each by a calibration without the window's recording."""
    out = np.empty(evidence.logits.shape, np.float32)
    for held in folds(evidence):
        out[held] = fit(evidence.part(~held), classes, width).scores(evidence.logits[held])
    return out


def log_loss(scores: NDArray[np.floating], evidence: Evidence, classes: Sequence[int]) -> float:
    """Mean over the classes of the cross-entropy of known windows; each recording weighs 1."""
    p = np.clip(scores[:, classes].astype(np.float64), 1e-7, 1 - 1e-7)
    weights = evidence.weights[:, classes]
    losses = np.where(evidence.facts[:, classes] == 1, -np.log(p), -np.log1p(-p)) * weights
    return float((losses.sum(axis=0) / weights.sum(axis=0)).mean())


def pooled_check(model: Evidence, teacher: Evidence, classes: Sequence[int]) -> dict[str, float]:
    """Mean log loss of classes, if each is calibrated without recordings of its own, in three ways.

    Bare: uncalibrated scores. Pooled: the scaling of all other classes. Drawn to the teacher: the pooled scaling, with
    the teacher's scores, calibrated by all other classes, as the truth.
    """
    losses: dict[str, list[float]] = {"bare scores": [], "pooled": [], "pooled and drawn to the teacher": []}
    for c in classes:
        others = [other for other in classes if other != c]
        own, taught = (fit_pooled(one, others) for one in (model, teacher))
        opinion = sigmoid(taught.scale * teacher.logits[:, c] + taught.shift).astype(np.float64)
        drawn = fit_platt(model.logits[:, c], opinion, model.weights[:, c], own, 1.0)
        for name, scaling in zip(losses, (PlattScaling(1.0, 0.0), own, drawn), strict=True):
            losses[name].append(log_loss(sigmoid(scaling.scale * model.logits + scaling.shift), model, [c]))
    return {name: float(np.mean(values)) for name, values in losses.items()}


def best_width(evidence: Evidence, classes: Sequence[int]) -> tuple[float, dict[float, float]]:
    """The width that predicts held-out recordings best, and the log loss of each width."""
    losses = {width: log_loss(cross_fitted(evidence, classes, width), evidence, classes) for width in WIDTHS}
    return min(losses, key=losses.__getitem__), losses


def audio_evidence(logits: Logits, held: HeldOut) -> Evidence:
    """The evidence of held-out recordings."""
    return Evidence(logits, held.window_facts, held.window_recordings)


def picture_evidence(logits: Logits, pictures: HeldOutPictures) -> Evidence:
    """The evidence of held-out pictures; a picture counts as a recording."""
    return Evidence(logits, pictures.facts, np.array([f"picture:{number}" for number in pictures.picture]))


def calibrate(
    card: Card,
    held: HeldOut,
    pictures: HeldOutPictures | None,
    ambient: Iterator[AmbientStream],
    *,
    keep: bool = False,
) -> tuple[FittedCalibration, list[ThresholdCounts]]:
    """Scalings and thresholds of a model; with `keep`, the scores stay as they are, and only thresholds are set.

    They come from held-out recordings, from pictures if the model takes video, and from streams without events.
    """
    model = ScoringModel(card)
    evidence = audio_evidence(model.logits(held.mel, None), held)
    windows = len(evidence.logits)
    if pictures is not None:
        evidence = evidence + picture_evidence(model.logits(None, pictures.frames), pictures)
    classes = evidence.classes
    as_trained = log_loss(sigmoid(evidence.logits), evidence, classes)
    width, losses = (0.0, {0.0: as_trained}) if keep else best_width(evidence, classes)
    shown_losses = [f"{each:g}:{loss:.5f}" for each, loss in losses.items()]
    log_event(logger, logging.INFO, "calibration-fitted", classes=len(classes), width=f"{width:g}", losses=shown_losses)
    fitted = FittedCalibration(PlattScaling(1.0, 0.0), {}, 0.0) if keep else fit(evidence, classes, width)
    crossed = sigmoid(evidence.logits) if keep else cross_fitted(evidence, classes, width)
    recordings = np.asarray(held.recordings)
    values, facts = by_recording(clip_levels(held, crossed[:windows]), held.facts, recordings)
    teacher = sigmoid(np.nan_to_num(held.teacher, nan=UNTAUGHT))
    taught, _ = by_recording(clip_levels(held, teacher), held.facts, recordings)
    if pictures is not None:
        levels, known = _picture_levels(crossed[windows:], pictures)
        values, facts = np.concatenate([values, levels]), np.concatenate([facts, known])
    scalings = [fitted.scaling(label.index) for label in card.labels]
    calibrated = replace(card, calibration=tuple(Calibration(one.scale, one.shift) for one in scalings))
    return fitted, choose(values, facts, stream_levels(Tagger(calibrated), ambient), taught)


def _picture_levels(scores: NDArray[np.float32], pictures: HeldOutPictures) -> tuple[Levels, Facts]:
    """Event levels and facts (pictures, classes), from scores (windows, classes)."""
    views = [np.flatnonzero(pictures.picture == number) for number in np.unique(pictures.picture)]
    levels = np.stack([event_levels(scores[rows], HOP_S) for rows in views])
    return levels, pictures.facts[[rows[0] for rows in views]]


def write(folder: Path, labels: Sequence[Label], fitted: FittedCalibration, counted: Sequence[ThresholdCounts]) -> None:
    """Write a model's calibration.tsv atomically. Its last columns show the recordings behind each threshold."""
    partial = folder / f"{CALIBRATION_FILE}.part"
    with partial.open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        table.writerow("mid name scale shift threshold basis recordings found lacking false restless".split())
        for label, one in zip(labels, counted, strict=True):
            scaling = fitted.scaling(label.index)
            basis = "own" if label.index in fitted.own else "pooled"
            figures = (f"{scaling.scale:.4f}", f"{scaling.shift:.4f}", f"{one.threshold:.2f}")
            counts = (one.recordings, one.found, one.lacking, one.false, "yes" if one.restless else "no")
            table.writerow([label.mid, label.name, *figures, basis, *counts])
    os.replace(partial, folder / CALIBRATION_FILE)
