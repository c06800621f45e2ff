"""Other implementations do the same work as the public Perceiver."""

from functools import partial
from typing import Any

import pytest
import torch

from perceiverd.bench import baselines, profiling


def test_fused_attention_gives_the_same_logits() -> None:
    """The network of `transformers` gives the same logits as shipped and with fused attention."""
    pytest.importorskip("transformers")
    from tests.support.published import SMALL, published

    perceiver = published(**SMALL)
    audio, frames = torch.rand(1, 5760) * 2 - 1, torch.randint(0, 256, (1, 3, 20, 20, 3), dtype=torch.uint8)
    with torch.inference_mode():
        both = list(baselines.transformers_networks(perceiver, audio, frames))
        shipped, fused = (network.score(2) for network in both)
        operations = [profiling.matmul_flop(partial(network.score, 1)) for network in both]
    assert shipped.shape == (2, 700)
    torch.testing.assert_close(fused, shipped)
    assert operations[0] == pytest.approx(operations[1], rel=0.1)


def test_a_network_that_cannot_be_compiled_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row has no time, but the compiler's reason; its plain form can still be run."""
    layer = torch.nn.Linear(3, 5)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: None)  # what the compiler would do needs seconds

    def score(batch: int, run: Any) -> torch.Tensor:
        if run is not layer:
            raise RuntimeError("InductorError: no C++ compiler\nmore lines")
        return run(torch.zeros(batch, 3))  # type: ignore[no-any-return]

    found = baselines.compiled_network("compiled", layer, score)
    assert found.fault == "RuntimeError: InductorError: no C++ compiler"
    assert found.counted is not None and found.counted(2).shape == (2, 5)
