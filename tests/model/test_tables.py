"""Positions in single precision repeat the published code, which used PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perceiverd.model.tables import axis_features


@pytest.mark.parametrize("tokens", [2, 7, 56, 1_920])
@pytest.mark.parametrize("mu", [3, 112, 1_920])
def test_single_precision_repeats_the_published_code(tokens: int, mu: int) -> None:
    """`single` gives the positions of PyTorch in float32 bit by bit, and its sines to the last bits."""
    x, frequencies = torch.linspace(-1, 1, tokens), torch.linspace(1, mu / 2, 5)
    angles = x[:, None] * frequencies * np.pi
    wanted = torch.cat([x[:, None], angles.sin(), angles.cos()], dim=1).numpy()
    found = axis_features(tokens, 5, mu, single=True)
    assert np.array_equal(found[:, 0], wanted[:, 0])
    np.testing.assert_allclose(found, wanted, atol=3e-7)
