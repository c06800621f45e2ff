"""Other implementations do the same work as the public Perceiver."""

import pytest
import torch

from perceiverd.bench import baselines


def test_fused_attention_gives_the_same_logits() -> None:
    """The network of `transformers` gives the same logits as shipped and with fused attention."""
    pytest.importorskip("transformers")
    from tests.support.published import SMALL, published

    perceiver = published(**SMALL)
    audio, frames = torch.rand(1, 5760) * 2 - 1, torch.randint(0, 256, (1, 3, 20, 20, 3), dtype=torch.uint8)
    with torch.inference_mode():
        shipped, fused = (network.score(2) for network in baselines.transformers_networks(perceiver, audio, frames))
    assert shipped.shape == (2, 700)
    torch.testing.assert_close(fused, shipped)
