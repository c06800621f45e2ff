"""The report on audio: a small set, a model that is right and one that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.evaluation import metrics
from perceiverd.training.evaluation.audio import TEACHER, agreement_rows, audio_rows, compare
from perceiverd.training.evaluation.heldout import HeldOut, read
from perceiverd.training.evaluation.scores import sigmoid
from tests.support.heldout_set import write

NAMES = [label.name for label in ontology().labels]


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bootstraps of few draws, so that tests are fast."""
    monkeypatch.setattr(metrics, "ROUNDS", 20)


@pytest.fixture
def held(tmp_path: Path) -> HeldOut:
    """A small held-out set."""
    write(tmp_path, "test")
    return read(tmp_path, "test")


def test_a_model_is_compared_on_the_same_draws(held: HeldOut) -> None:
    """A copy of the teacher differs by 0 in every draw; a model that scores 0 is worse."""
    teacher = held.by_clip(np.nan_to_num(sigmoid(held.teacher)))
    scores = {"copy": teacher, "zero": np.zeros_like(teacher), TEACHER: teacher}
    found = compare(scores, held.wide_facts, held.vocabulary, held.recordings)
    _, difference, ratio = found["copy"]
    assert (difference.value, difference.low, difference.high, ratio.value) == (0, 0, 0, 1)
    assert found["zero"][1].high < 0


def test_the_report_has_a_row_for_each_model(held: HeldOut) -> None:
    """A row has name and intervals; with details every measurable class has a row too."""
    teacher = held.by_clip(np.nan_to_num(sigmoid(held.teacher)))
    scores = {"small": teacher, TEACHER: teacher}
    text = "\n".join(audio_rows(held, scores, NAMES, "held-out packages", details=True))
    assert "12 labelled clips of 12 recordings, 36 windows" in text
    assert "| small | 1.000 [1.000, 1.000] | 0.000 [0.000, 0.000] | 1.000 [1.000, 1.000] |" in text
    assert f"| {TEACHER} | 1.000 [1.000, 1.000] |  |  |" in text
    assert "| Chainsaw | 4 | 1.00 | 1.00 |" in text and "| Animal |" in text


def test_a_copy_agrees_completely(held: HeldOut) -> None:
    """A copy of the teacher has all its best labels and correlates with it; noise does not."""
    teacher = held.by_clip(np.nan_to_num(sigmoid(held.teacher)))
    text = "\n".join(agreement_rows(held, teacher, teacher))
    assert "among the model's 3 best: 1.000 [1.000, 1.000]" in text
    assert "for the 3 classes" in text and "1.00 [1.00, 1.00] of the scores" in text
    noise = np.random.default_rng(0).random(teacher.shape).astype(np.float32)
    assert "1.000" not in "\n".join(agreement_rows(held, noise, teacher))
