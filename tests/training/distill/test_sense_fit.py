"""Fitting the classifiers of the senses: they learn, the table stays, and the same seed gives the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perceiverd.core.errors import ConfigError
from perceiverd.model.geometry import Audio, Geometry, Modality, SenseGeometry, StemGeometry, Trunk
from perceiverd.model.senses import Sense
from perceiverd.training.distill import sense_fit
from perceiverd.training.distill.sense_fit import SenseSteps, SenseWindows

LABELS, CHANNELS = 7, 13
STEPS = SenseSteps(80, 3e-2, seed=3)


def sense(classes: int) -> Sense:
    torch.manual_seed(2)
    stem = StemGeometry(layers=(f"conv 3/2 {CHANNELS}",))
    found = Sense(Modality("video", (1, 2, 3), (1, 2, 2, 3), 1, stem=stem, sense=SenseGeometry(LABELS, classes)))
    if classes:
        with torch.no_grad():
            found.table[:LABELS] = torch.eye(LABELS)
    return found


def windows() -> SenseWindows:
    """Three hundred windows whose label is the largest of the first seven channels."""
    torch.manual_seed(1)
    pooled = torch.rand(300, CHANNELS)
    targets = torch.eye(LABELS)[pooled[:, :LABELS].argmax(dim=1)]
    return SenseWindows(pooled, targets, torch.ones(300, LABELS), torch.zeros(LABELS))


@pytest.mark.parametrize("classes", [0, 11])
def test_a_classifier_learns_and_its_table_stays(classes: int) -> None:
    """The loss falls; two fits give the same bits; what each class implies does not change."""
    one, other = sense(classes), sense(classes)
    before, after = sense_fit.fit(one, windows(), STEPS)
    assert after < 0.8 * before
    sense_fit.fit(other, windows(), STEPS)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    if classes:
        assert torch.equal(one.table, sense(classes).table)


@pytest.mark.parametrize("classes", [0, 11])
def test_a_part_of_the_start_stays(classes: int) -> None:
    """The fitted weights are averaged with the first ones; what each class implies does not change."""
    one, start = sense(classes), sense(classes)
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            if name != "table":
                parameter.add_(1)
    sense_fit.draw_back(one, start, 0.3)
    for (name, found), first in zip(one.named_parameters(), start.parameters(), strict=True):
        moved = 0.0 if name == "table" else 0.7
        torch.testing.assert_close(found - first, torch.full_like(first, moved), msg=name)


def test_well_known_labels_are_lowered_less() -> None:
    """A label of which many windows tell needs less; the classifier of video has one strength."""
    known = torch.tensor([0, 0, 0.14, 0.16, 1, 1, 1])
    strengths = sense_fit.fair_share("audio", known).strength
    assert strengths.tolist() == pytest.approx([1, 1, 1, 0.35, 0.35, 0.35, 0.35])
    assert sense_fit.fair_share("video", known).strength.tolist() == [0.75] * LABELS


def test_pools_become_windows(noises: Path) -> None:
    """A window's vector is the mean of its tokens, and its targets are the teacher's scores."""
    found = sense_fit.audible([noises])
    assert found.pooled.shape == (50, 1024) and found.targets.shape == found.weights.shape == (50, 527)
    teacher = np.load(noises / "00000.teacher.npy").astype(np.float32)
    np.testing.assert_allclose(found.targets, 1 / (1 + np.exp(-teacher)), atol=1e-4)


def test_another_head_has_no_classifier(tmp_path: Path) -> None:
    """A geometry with another head is refused."""
    audio = Audio(rate_hz=16_000, samples=1_600, form="mel", patch=(5, 16), bands=1)
    geometry = Geometry(527, Trunk(4, 8, 1, 1, 2), audio)
    with pytest.raises(ConfigError, match=r"trunk\.head is not senses"):
        sense_fit.begun(geometry, tmp_path, tmp_path, 1)
