"""Calibration: lines that are found again, drawn together where there is little, and written so that they are read."""

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
    write,
)
from perceiverd.training.evaluation.scores import sigmoid
from perceiverd.training.evaluation.thresholds import ThresholdCounts


def drawn(recordings: int, lines: list[PlattScaling], seed: int = 0, windows: int = 4) -> Evidence:
    """Windows whose truth is drawn from the lines; those of a recording differ a little."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0, 2, (recordings, len(lines)))
    truth = rng.random(centre.shape) < sigmoid(
        np.array([one.scale for one in lines]) * centre + np.array([one.shift for one in lines])
    )
    return Evidence(
        np.repeat(centre, windows, axis=0).astype(np.float32),
        np.repeat(truth, windows, axis=0).astype(np.int8),
        np.repeat([f"r{n}" for n in range(recordings)], windows),
    )


def test_a_line_is_found_again() -> None:
    """With many recordings Platt's fit finds the scale and shift that the truth was drawn by."""
    evidence = drawn(20_000, [PlattScaling(1.7, -0.6)], windows=1)
    found = fit_platt(evidence.logits[:, 0], evidence.facts[:, 0].astype(float), evidence.weights[:, 0])
    assert found.scale == pytest.approx(1.7, abs=0.08)
    assert found.shift == pytest.approx(-0.6, abs=0.08)


def test_without_freedom_the_centre_stays() -> None:
    """A width of 0 leaves the pooled line, a wide one the class's own, and one between lies between."""
    evidence = drawn(40, [PlattScaling(1.0, 2.0)])
    centre = PlattScaling(1.0, -1.0)
    shifts = [
        fit_platt(
            evidence.logits[:, 0], evidence.facts[:, 0].astype(float), evidence.weights[:, 0], centre, width
        ).shift
        for width in (0.0, 0.5, 50.0)
    ]
    assert shifts[0] == -1.0 < shifts[1] < shifts[2]


def test_separable_truth_gives_a_finite_line() -> None:
    """Where every positive is above every negative the prior keeps the scale finite, and it never falls below 0."""
    logits = np.array([-2.0, -1.0, 1.0, 2.0], np.float32)
    for truth in ([0, 0, 1, 1], [1, 1, 0, 0]):
        found = fit_platt(logits, np.array(truth), np.ones(4), PlattScaling(1.0, 0.0), 1.0)
        assert 0 < found.scale < 10 and math.isfinite(found.shift)


def test_many_windows_of_a_recording_count_once() -> None:
    """The same recording cut into more windows leaves every line as it was."""
    few, many = (drawn(60, [PlattScaling(1.0, 1.0), PlattScaling(2.0, -1.0)], windows=n) for n in (1, 5))
    one, other = (fit(evidence, [0, 1], 1.0) for evidence in (few, many))
    assert one.pooled.shift == pytest.approx(other.pooled.shift, abs=1e-6)
    assert one.own[1].scale == pytest.approx(other.own[1].scale, abs=1e-6)


def test_unknown_is_no_evidence() -> None:
    """Windows of which nothing is known change no line, and a class of them alone gets the pooled one."""
    evidence = drawn(60, [PlattScaling(1.0, 1.0), PlattScaling(1.0, 1.0)])
    facts = evidence.facts.copy()
    facts[:, 1] = -1
    one = Evidence(evidence.logits, facts, evidence.recordings)
    assert one.classes == [0]
    fitted = fit(one, one.classes, 1.0)
    assert fitted.line(1) == fitted.pooled
    more = one + Evidence(100 + evidence.logits, np.full_like(facts, -1), evidence.recordings)
    assert fit(more, [0], 1.0).own[0].shift == pytest.approx(fitted.own[0].shift)


def test_no_recording_judges_its_own_fit() -> None:
    """Folds part recordings, not windows; each window is in exactly one, and each fold has some of each kind."""
    evidence = drawn(50, [PlattScaling(1.0, 0.0)])
    masks = np.array(list(folds(evidence)))
    assert (masks.sum(axis=0) == 1).all()
    for name in np.unique(evidence.recordings):
        assert len({tuple(mask) for mask in masks[:, evidence.recordings == name].T}) == 1
    assert all(0 < evidence.facts[mask].mean() < 1 for mask in masks)


def test_cross_fitting_beats_bare_scores_that_are_wrong() -> None:
    """Where logits say too little by half, calibrated scores of unseen recordings are nearer to the truth."""
    evidence = drawn(400, [PlattScaling(2.0, 0.5)] * 3)
    width, losses = best_width(evidence, [0, 1, 2])
    assert width in losses
    crossed = cross_fitted(evidence, [0, 1, 2], width)
    assert log_loss(crossed, evidence, [0, 1, 2]) < log_loss(sigmoid(evidence.logits), evidence, [0, 1, 2]) - 0.02


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The table is the one that a model's card reads, and says what each line rests on."""
    labels = (Label(0, "/m/a", "Dog, barking"), Label(1, "/m/b", "Cat"))
    counted = [ThresholdCounts(0.3, 8, 6, 200, 1, False), ThresholdCounts(0.95, 0, 0, 0, 0, True)]
    write(tmp_path, labels, FittedCalibration(PlattScaling(1.5, -0.25), {0: PlattScaling(1.25, 0.5)}, 1.0), counted)
    dog, cat = read_calibration(tmp_path / "calibration.tsv", labels)
    assert (dog.scale, dog.shift, dog.threshold) == (1.25, 0.5, 0.3)
    assert (cat.scale, cat.shift, cat.threshold) == (1.5, -0.25, 0.95)
    text = (tmp_path / "calibration.tsv").read_text()
    assert "Dog, barking" in text and "own\t8\t6\t200\t1\tno" in text and "pooled\t0\t0\t0\t0\tyes" in text
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.tsv"]
