"""Calibration: known scalings are found again, drawn together if there are few recordings, written and read back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.labels import Label
from perceiverd.model.card import read_calibration
from perceiverd.training.evaluation.calibration import (
    Evidence,
    FittedCalibration,
    PlattScaling,
    best_width,
    cross_fitted,
    fit,
    fit_platt,
    folds,
    log_loss,
    pooled_check,
    write,
)
from perceiverd.training.evaluation.scores import sigmoid
from perceiverd.training.evaluation.thresholds import ThresholdCounts


def drawn(recordings: int, scalings: list[PlattScaling], seed: int = 0, windows: int = 4) -> Evidence:
    """Windows whose truth is drawn from the scalings; all windows of a recording are equal."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 2, (recordings, len(scalings)))
    truth = rng.random(centre.shape) < sigmoid(
        np.array([one.scale for one in scalings]) * centre + np.array([one.shift for one in scalings])
    )
    return Evidence(
        np.repeat(centre, windows, axis=0).astype(np.float32),
        np.repeat(truth, windows, axis=0).astype(np.int8),
        np.repeat([f"r{n}" for n in range(recordings)], windows),
    )


def test_a_known_scaling_is_found_again() -> None:
    """With many recordings the fit finds the scale and shift that the truth was drawn with."""
    evidence = drawn(20_000, [PlattScaling(1.7, -0.6)], windows=1)
    found = fit_platt(evidence.logits[:, 0], evidence.facts[:, 0].astype(float), evidence.weights[:, 0])
    assert found.scale == pytest.approx(1.7, abs=0.08)
    assert found.shift == pytest.approx(-0.6, abs=0.08)


def test_a_width_of_zero_gives_the_centre() -> None:
    """A width of 0 gives the pooled scaling, a large one the class's own, and one between lies between."""
    evidence = drawn(40, [PlattScaling(1.0, 2.0)])
    centre = PlattScaling(1.0, -1.0)
    shifts = [
        fit_platt(
            evidence.logits[:, 0], evidence.facts[:, 0].astype(float), evidence.weights[:, 0], centre, width
        ).shift
        for width in (0.0, 0.5, 50.0)
    ]
    assert shifts[0] == -1.0 < shifts[1] < shifts[2]


def test_separable_truth_gives_a_finite_scaling() -> None:
    """If every positive is above every negative, the prior keeps the scale finite; a scale is never below 0."""
    logits = np.array([-2.0, -1.0, 1.0, 2.0], np.float32)
    for truth in ([0, 0, 1, 1], [1, 1, 0, 0]):
        found = fit_platt(logits, np.array(truth), np.ones(4), PlattScaling(1.0, 0.0), 1.0)
        assert 0 < found.scale < 10 and math.isfinite(found.shift)


def test_many_windows_of_a_recording_count_once() -> None:
    """Cutting the same recordings into more windows changes no scaling."""
    few, many = (drawn(60, [PlattScaling(1.0, 1.0), PlattScaling(2.0, -1.0)], windows=n) for n in (1, 5))
    one, other = (fit(evidence, [0, 1], 1.0) for evidence in (few, many))
    assert one.pooled.shift == pytest.approx(other.pooled.shift, abs=1e-6)
    assert one.own[1].scale == pytest.approx(other.own[1].scale, abs=1e-6)


def test_unknown_is_no_evidence() -> None:
    """Unknown windows change no scaling, and a class with unknown windows alone gets the pooled one."""
    evidence = drawn(60, [PlattScaling(1.0, 1.0), PlattScaling(1.0, 1.0)])
    facts = evidence.facts.copy()
    facts[:, 1] = -1
    one = Evidence(evidence.logits, facts, evidence.recordings)
    assert one.classes == [0]
    fitted = fit(one, one.classes, 1.0)
    assert fitted.scaling(1) == fitted.pooled
    more = one + Evidence(100 + evidence.logits, np.full_like(facts, -1), evidence.recordings)
    assert fit(more, [0], 1.0).own[0].shift == pytest.approx(fitted.own[0].shift)


def test_folds_separate_recordings() -> None:
    """All windows of a recording are in one fold; each window is in exactly one; each fold has some of each kind."""
    evidence = drawn(50, [PlattScaling(1.0, 0.0)])
    masks = np.array(list(folds(evidence)))
    assert (masks.sum(axis=0) == 1).all()
    for name in np.unique(evidence.recordings):
        assert len({tuple(mask) for mask in masks[:, evidence.recordings == name].T}) == 1
    assert all(0 < evidence.facts[mask].mean() < 1 for mask in masks)


def test_cross_fitting_improves_wrong_scores() -> None:
    """If logits are too small by half, calibrated scores of unseen recordings are nearer to the truth."""
    evidence = drawn(400, [PlattScaling(2.0, 0.5)] * 3)
    width, losses = best_width(evidence, [0, 1, 2])
    assert width in losses
    crossed = cross_fitted(evidence, [0, 1, 2], width)
    assert log_loss(crossed, evidence, [0, 1, 2]) < log_loss(sigmoid(evidence.logits), evidence, [0, 1, 2]) - 0.02


def test_the_written_table_is_read(tmp_path: Path) -> None:
    """A model card reads the table, which also has the recordings behind each threshold."""
    labels = (Label(0, "/m/a", "Dog, barking"), Label(1, "/m/b", "Cat"))
    counted = [ThresholdCounts(0.3, 8, 6, 200, 1, False), ThresholdCounts(0.95, 0, 0, 0, 0, True)]
    write(tmp_path, labels, FittedCalibration(PlattScaling(1.5, -0.25), {0: PlattScaling(1.25, 0.5)}, 1.0), counted)
    dog, cat = read_calibration(tmp_path / "calibration.tsv", labels)
    assert (dog.scale, dog.shift, dog.threshold) == (1.25, 0.5, 0.3)
    assert (cat.scale, cat.shift, cat.threshold) == (1.5, -0.25, 0.95)
    text = (tmp_path / "calibration.tsv").read_text()
    assert "Dog, barking" in text and "own\t8\t6\t200\t1\tno" in text and "pooled\t0\t0\t0\t0\tyes" in text
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.tsv"]


def test_the_pooled_check_leaves_the_class_out() -> None:
    """If all classes need the same scaling, that of the others is better than none, and than a teacher of noise."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (800, 3)).astype(np.float32)
    facts = (rng.random((800, 3)) < 1 / (1 + np.exp(-(2 * logits - 1)))).astype(np.int8)
    names = np.array([f"r{n}" for n in range(800)])
    noise = Evidence(rng.normal(0, 1, (800, 3)).astype(np.float32), facts, names)
    found = pooled_check(Evidence(logits, facts, names), noise, [0, 1, 2])
    assert found["pooled"] < found["bare scores"]
    assert found["pooled"] < found["pooled and drawn to the teacher"]
