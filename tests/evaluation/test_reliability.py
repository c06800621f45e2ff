"""Reliability, compared with sums made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from perceiverd.evaluation import reliability
from perceiverd.evaluation.metrics import Facts
from perceiverd.evaluation.reliability import bins_table, chart, measure, table


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bootstraps of few draws, so that tests are fast."""
    monkeypatch.setattr(reliability, "ROUNDS", 20)


def known(facts: list[list[int]]) -> Facts:
    return np.array(facts, np.int8)


def test_errors_equal_those_by_hand() -> None:
    """Two bins: score 0.85 with a share of 0.5, and score 0.01 with a share of 0: (2 * 0.35 + 2 * 0.01) / 4."""
    scores = np.array([[0.85], [0.85], [0.01], [0.01]], np.float32)
    found = measure(scores, known([[1], [0], [0], [0]]), np.array(list("abcd")), [0])
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
    facts = known([[1], [0], [0], [0]])
    found = measure(np.full((4, 1), 0.5, np.float32), facts, np.array(list("abbb")), [0])
    assert found.bins[0].share.value == pytest.approx(0.5)
    assert found.error.value == pytest.approx(0)


def test_unknown_windows_are_left_out() -> None:
    """A window whose label is unknown is in no bin."""
    found = measure(np.full((2, 1), 0.5, np.float32), known([[1], [-1]]), np.array(["a", "b"]), [0])
    assert [b.windows for b in found.bins] == [1]


def test_tables_and_chart_show_every_bin() -> None:
    """Every bin has a line, every name has a row, every pair has a panel."""
    rng = np.random.default_rng(0)
    scores = rng.random((200, 2)).astype(np.float32)
    facts = (rng.random((200, 2)) < scores).astype(np.int8)
    found = measure(scores, facts, np.array([f"r{n}" for n in range(200)]), [0, 1])
    assert found.error.value < 0.1
    assert len(list(bins_table(found))) == 3 + len(found.bins)
    assert sum("calibrated" in line for line in table({"bare": found, "calibrated": found})) == 1
    assert chart({"A": (found, found), "B": (found, found)}).count("<g ") == 2
