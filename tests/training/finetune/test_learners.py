"""The rows of a last layer: their own scale for learning, and the same scores as before."""

from __future__ import annotations

import torch
from torch import nn

from perceiverd.training.finetune.learners import HeadLearner, HeadRows, VectorSet
from perceiverd.training.fitting.distributed import ProcessGroup
from perceiverd.training.fitting.settings import FitSettings

WIDTH, CLASSES = 5, 3


def rows() -> HeadRows:
    torch.manual_seed(4)
    return HeadRows(nn.Linear(WIDTH, CLASSES), CLASSES + 1, [1, 3], torch.full((CLASSES + 1,), -2.0))


def vectors() -> torch.Tensor:
    """Channels with deviations of about 3, 2, 0.01 and 0.001, and a constant one."""
    torch.manual_seed(5)
    return torch.randn(200, WIDTH) * torch.tensor([3.0, 2.0, 0.01, 1e-3, 0.0]) + 7.0


def test_the_scale_keeps_the_scores() -> None:
    """In the new scale, trained rows give what the layer gave; assembled, they are what they were."""
    one, data = rows(), vectors()
    before = data @ one.weight[[1, 3]].T + one.bias[[1, 3]]
    one.standardise(data)
    torch.testing.assert_close(one(data), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.assembled().weight, one.weight, atol=1e-4, rtol=1e-4)


def test_a_quiet_channel_is_not_scaled_up() -> None:
    """A channel with less than the mean deviation is divided by that mean, a louder one by its own deviation."""
    one, data = rows(), vectors()
    one.standardise(data)
    deviation = data.std(dim=0)
    mean = deviation[:4].mean()
    assert deviation[2] < mean < deviation[1]
    torch.testing.assert_close(one.spread, torch.stack([deviation[0], deviation[1], mean, mean, mean]))


def test_constant_vectors_have_a_scale() -> None:
    """If no channel varies, the scale is one."""
    one = rows()
    one.standardise(torch.full((20, WIDTH), 2.0))
    assert one.spread.tolist() == [1.0] * WIDTH


def test_a_label_does_not_learn_that_there_are_pictures() -> None:
    """Only clips of the first label vary in channel 4, so it may not learn from it; windows without the second do."""
    torch.manual_seed(6)
    clips, targets = torch.randn(12, WIDTH), torch.zeros(12, 2)
    targets[:6, 0] = targets[6:, 1] = 1
    clips[6:, 4] = 0
    rehearsed = torch.randn(50, WIDTH)
    rehearsed[:, 4] = 0
    found = VectorSet(1, clips, targets, torch.ones(12, 2), rehearsed, torch.zeros(50, 2))
    assert found.informative().tolist() == [[1, 1, 1, 1, 0], [1] * 5]
    one = rows()
    one.standardise(torch.cat([clips, rehearsed]))
    learner = HeadLearner(one, found, FitSettings(batch=12), 1, ProcessGroup.join(torch.device("cpu")))
    learner.backward(0, torch.amp.GradScaler("cpu", enabled=False))
    gradient = one.trained.weight.grad
    assert gradient is not None and gradient[0, 4] == 0 and gradient[1, 4] != 0 and (gradient[:, :4] != 0).all()
