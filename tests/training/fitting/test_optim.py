"""The optimiser and the learning rate, compared with formulas written out here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perceiverd.training.fitting.optim import Lamb, rate_factor


def test_the_rate_rises_and_falls_to_zero() -> None:
    """The learning rate starts low, peaks after the warm-up and ends at zero."""
    shares = [rate_factor(share, 0.1) for share in (0.0, 0.1, 0.55, 1.0)]
    assert shares[0] == pytest.approx(0.01) and shares[1] == pytest.approx(1)
    assert shares[2] == pytest.approx(0.5) and shares[3] == pytest.approx(0)


def test_lamb_steps_as_its_paper_says() -> None:
    """Three steps on two layers equal algorithm 2 of You et al. (2020), written out in double precision."""
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(3, 4)), rng.normal(size=5)]
    parameters = [torch.nn.Parameter(torch.from_numpy(layer.copy())) for layer in layers]
    optimiser = Lamb(parameters, lr=0.01, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    moments = [(np.zeros_like(layer), np.zeros_like(layer)) for layer in layers]
    for step in range(1, 4):
        for at, parameter in enumerate(parameters):
            gradient = rng.normal(size=layers[at].shape)
            parameter.grad = torch.from_numpy(gradient.copy())
            m, v = moments[at]
            m, v = 0.9 * m + 0.1 * gradient, 0.98 * v + 0.02 * gradient**2
            moments[at] = m, v
            update = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.98**step)) + 1e-6) + 0.1 * layers[at]
            layers[at] = layers[at] - 0.01 * np.linalg.norm(layers[at]) / np.linalg.norm(update) * update
        optimiser.step()
    for layer, parameter in zip(layers, parameters, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), layer, rtol=1e-9)
