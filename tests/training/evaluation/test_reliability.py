"""Reliability, compared with sums made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perceiverd.training.evaluation import reliability
from perceiverd.training.evaluation.calibration import Evidence
from perceiverd.training.evaluation.reliability import bins_table, chart, measure, pooled_check, table


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bootstraps of few draws, so that tests are fast."""
    monkeypatch.setattr(reliability, "ROUNDS", 20)


def evidence(facts: list[list[int]], recordings: list[str]) -> Evidence:
    """Windows with these facts; their logits do not matter."""
    known = np.array(facts, np.int8)
    return Evidence(np.zeros(known.shape, np.float32), known, np.array(recordings))


def test_errors_equal_those_by_hand() -> None:
    """Two bins: score 0.85 with a share of 0.5, and score 0.01 with a share of 0: (2 * 0.35 + 2 * 0.01) / 4."""
    one = evidence([[1], [0], [0], [0]], ["a", "b", "c", "d"])
    scores = np.array([[0.85], [0.85], [0.01], [0.01]], np.float32)
    found = measure(scores, one, [0])
    assert [(b.windows, b.recordings, round(b.score, 2), b.share.value) for b in found.bins] == [
        (2, 2, 0.01, 0.0),
        (2, 2, 0.85, 0.5),
    ]
    assert found.error.value == pytest.approx((2 * 0.35 + 2 * 0.01) / 4)
    assert found.notable_error.value == pytest.approx(0.35)
    assert found.brier.value == pytest.approx((0.15**2 + 0.85**2 + 2 * 0.01**2) / 4)
    assert found.error.low <= found.error.value <= found.error.high


def test_a_recording_counts_as_one() -> None:
    """Three windows of one recording weigh as much as one window of another."""
    one = evidence([[1], [0], [0], [0]], ["a", "b", "b", "b"])
    found = measure(np.full((4, 1), 0.5, np.float32), one, [0])
    assert found.bins[0].share.value == pytest.approx(0.5)
    assert found.error.value == pytest.approx(0)


def test_unknown_windows_are_left_out() -> None:
    """A window whose label is unknown is in no bin."""
    found = measure(np.full((2, 1), 0.5, np.float32), evidence([[1], [-1]], ["a", "b"]), [0])
    assert [b.windows for b in found.bins] == [1]


def test_tables_and_chart_show_every_bin() -> None:
    """Every bin has a line, every name has a row, every pair has a panel."""
    rng = np.random.default_rng(0)
    scores = rng.random((200, 2)).astype(np.float32)
    one = evidence((rng.random((200, 2)) < scores).astype(int).tolist(), [f"r{n}" for n in range(200)])
    found = measure(scores, one, [0, 1])
    assert found.error.value < 0.1
    assert len(list(bins_table(found))) == 3 + len(found.bins)
    assert sum("calibrated" in line for line in table({"bare": found, "calibrated": found})) == 1
    assert chart({"A": (found, found), "B": (found, found)}).count("<g ") == 2


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
