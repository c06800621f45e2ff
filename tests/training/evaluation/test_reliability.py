"""Reliability, against sums made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perceiverd.training.evaluation import reliability
from perceiverd.training.evaluation.calibration import Evidence
from perceiverd.training.evaluation.reliability import bins_table, chart, measure, pooled_check, table


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bootstraps of few draws, so that tests are quick."""
    monkeypatch.setattr(reliability, "ROUNDS", 20)


def evidence(facts: list[list[int]], recordings: list[str]) -> Evidence:
    """Windows with these facts; logits are of no matter."""
    known = np.array(facts, np.int8)
    return Evidence(np.zeros(known.shape, np.float32), known, np.array(recordings))


def test_errors_are_what_they_are_by_hand() -> None:
    """Two bins: 0.85 that is right half the time, and 0.01 that is never: (2 * 0.35 + 2 * 0.01) / 4."""
    one = evidence([[1], [0], [0], [0]], ["a", "b", "c", "d"])
    scores = np.array([[0.85], [0.85], [0.01], [0.01]], np.float32)
    found = measure(scores, one, [0])
    assert [(b.windows, b.recordings, round(b.score, 2), b.share.value) for b in found.bins] == [
        (2, 2, 0.01, 0.0),
        (2, 2, 0.85, 0.5),
    ]
    assert found.error.value == pytest.approx((2 * 0.35 + 2 * 0.01) / 4)
    assert found.told_error.value == pytest.approx(0.35)
    assert found.brier.value == pytest.approx((0.15**2 + 0.85**2 + 2 * 0.01**2) / 4)
    assert found.error.low <= found.error.value <= found.error.high


def test_a_recording_counts_as_one() -> None:
    """Three wrong windows of one recording weigh as much as one right window of another."""
    one = evidence([[1], [0], [0], [0]], ["a", "b", "b", "b"])
    found = measure(np.full((4, 1), 0.5, np.float32), one, [0])
    assert found.bins[0].share.value == pytest.approx(0.5)
    assert found.error.value == pytest.approx(0)


def test_unknown_is_left_out() -> None:
    """A window of which nothing is known is in no bin."""
    found = measure(np.full((2, 1), 0.5, np.float32), evidence([[1], [-1]], ["a", "b"]), [0])
    assert [b.windows for b in found.bins] == [1]


def test_tables_and_chart_are_made_of_it() -> None:
    """Every bin has a line, every name a row, the chart two panels."""
    rng = np.random.default_rng(0)
    scores = rng.random((200, 2)).astype(np.float32)
    one = evidence((rng.random((200, 2)) < scores).astype(int).tolist(), [f"r{n}" for n in range(200)])
    found = measure(scores, one, [0, 1])
    assert found.error.value < 0.1
    assert len(list(bins_table(found))) == 3 + len(found.bins)
    assert sum("calibrated" in line for line in table({"bare": found, "calibrated": found})) == 1
    assert chart({"A": (found, found), "B": (found, found)}).count("<g ") == 2


def test_the_check_knows_nothing_of_the_class_it_judges() -> None:
    """Of classes that need the same line, the others' line is nearly as good as their own, and better than none."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (800, 3)).astype(np.float32)
    facts = (rng.random((800, 3)) < 1 / (1 + np.exp(-(2 * logits - 1)))).astype(np.int8)
    names = np.array([f"r{n}" for n in range(800)])
    noise = Evidence(rng.normal(0, 1, (800, 3)).astype(np.float32), facts, names)
    found = pooled_check(Evidence(logits, facts, names), noise, [0, 1, 2])
    assert found["pooled"] < found["bare scores"]
    assert found["pooled"] < found["pooled and drawn to the teacher"]
