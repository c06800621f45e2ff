"""Labels that come up in vain get lower: by how much, and what stays."""

from __future__ import annotations

import math

import pytest
import torch

from perceiverd.model.geometry import Modality, SenseGeometry, StemGeometry
from perceiverd.model.senses import Sense
from perceiverd.training.distill import sense_levels
from perceiverd.training.distill.sense_levels import DEEPEST, SURE, FairShare, lower

LABELS, CHANNELS = 7, 5


def sense(classes: int = 0) -> Sense:
    torch.manual_seed(4)
    stem = StemGeometry(layers=(f"conv 3/2 {CHANNELS}",))
    return Sense(Modality("video", (1, 2, 3), (1, 2, 2, 3), 1, stem=stem, sense=SenseGeometry(LABELS, classes)))


def constant(*logits: float) -> Sense:
    """A classifier that always says the same."""
    found = sense()
    with torch.no_grad():
        found.direct.weight.zero_()
        found.direct.bias.copy_(torch.tensor(logits))
    return found


def fair(strength: float, share: float = 0.1, top: int = 2) -> FairShare:
    return FairShare(top, share, torch.full((LABELS,), strength))


def test_a_label_that_always_comes_up_in_vain_is_lowered() -> None:
    """It falls by the logarithm of how much too often it comes up; labels that do not come up stay."""
    one = constant(-2.0, -2.5, -3, -4, -5, -6, -7)
    drop = lower(one, torch.zeros(31, CHANNELS), torch.zeros(31, LABELS, dtype=torch.bool), fair(0.5))
    wanted = [0.5 * math.log((1 - 1 / (1 + math.exp(-logit))) / 0.1) for logit in (-2.0, -2.5)]
    torch.testing.assert_close(drop, torch.tensor([*wanted, 0, 0, 0, 0, 0]))
    torch.testing.assert_close(
        one.direct.bias.detach(), torch.tensor([-2 - wanted[0], -2.5 - wanted[1], -3, -4, -5, -6, -7])
    )


def test_a_label_that_is_there_does_not_come_up_in_vain() -> None:
    """Windows that have the label do not count."""
    one, present = constant(2.0, -2.5, -3, -4, -5, -6, -7), torch.zeros(31, LABELS, dtype=torch.bool)
    present[:, 0] = True
    assert lower(one, torch.zeros(31, CHANNELS), present, fair(0.5))[0] == 0
    assert one.direct.bias[0].item() == 2.0


@pytest.mark.parametrize("classes", [0, 11])
def test_scores_stay_in_order_and_sure_ones_stay_high(classes: int) -> None:
    """A label's logit becomes a rising line of what it was; at SURE it is lowered by at most DEEPEST."""
    one, before, pooled = sense(classes), sense(classes), torch.randn(997, CHANNELS)
    drop = lower(one, pooled, torch.zeros(997, LABELS, dtype=torch.bool), fair(3.0, share=0.01, top=3))
    assert (drop > DEEPEST).any()
    with torch.no_grad():
        new, old = one(pooled), before(pooled)
    slopes = (new[1:] - new[:1]) / (old[1:] - old[:1])
    assert (slopes.std(dim=0) < 1e-2 * slopes.mean(dim=0)).all() and (slopes.mean(dim=0) > 0.99).all()
    at_sure = new[0] + slopes.mean(dim=0) * (SURE - old[0])
    torch.testing.assert_close(SURE - at_sure, drop.clamp(max=DEEPEST), atol=0.05, rtol=0)


def test_windows_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of the parts does not change the result."""
    pooled, present = torch.randn(101, CHANNELS), torch.rand(101, LABELS) < 0.2
    whole = lower(sense(), pooled, present, fair(1.0))
    monkeypatch.setattr(sense_levels, "CHUNK", 13)
    torch.testing.assert_close(lower(sense(), pooled, present, fair(1.0)), whole)
