"""Batches: the same for the same number, with targets from the truth and the teachers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perceiverd.training.distill.batches import audio_targets, joint_targets, video_targets
from tests.support.distilling import BrightWindows, batches_of


def test_a_number_always_gives_the_same_batch(pool: Path) -> None:
    """Batches depend on seed and number alone, so a resumed fit gets the batches it would have got."""
    one, other = batches_of(pool, BrightWindows()), batches_of(pool, BrightWindows())
    for number in range(6):
        a, b = one.make(number), other.make(number)
        assert a.kind == b.kind and torch.equal(a.targets, b.targets)
        assert all(torch.equal(a.contents[name], b.contents[name]) for name in a.contents)
    assert {one.make(number).kind for number in range(30)} == {"audio", "both", "video"}


def test_processes_that_step_together_get_one_kind(pool: Path) -> None:
    """In a group of three processes, the three batches of a step have the same kind and different windows."""
    batches = batches_of(pool, BrightWindows())
    for step in range(5):
        made = [batches.make(number, 3) for number in range(3 * step, 3 * step + 3)]
        assert len({batch.kind for batch in made}) == 1
        assert not torch.equal(made[0].targets, made[1].targets)


def test_truth_overrules_the_teacher() -> None:
    """Known labels are 0 or 1, the others have the teacher's probability. Unknown ones have little weight."""
    teacher = torch.tensor([[0.0, 0.0, float("nan"), 2.0]])
    truth = torch.tensor([[1, 0, -1, -1]], dtype=torch.int8)
    targets, weights = audio_targets(teacher, truth)
    torch.testing.assert_close(targets, torch.tensor([[1.0, 0.0, 0.0, 0.8808]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 1.0, 0.1, 1.0]]))


def test_joint_targets_are_the_larger_of_both() -> None:
    """With both modalities the larger target counts; a label that no image can show keeps the target of the audio."""
    audible, weights = torch.tensor([[0.2, 0.9, 0.3]]), torch.tensor([[0.1, 1.0, 1.0]])
    shown = torch.tensor([[1.0, 0.0, float("nan")]])
    targets, found = joint_targets(audible, weights, shown)
    torch.testing.assert_close(targets, torch.tensor([[1.0, 0.9, 0.3]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, 1.0]]))
    assert video_targets(shown)[1].tolist() == [[1.0, 1.0, pytest.approx(0.1)]]
