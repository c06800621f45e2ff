"""The factorised form gives the plain form's logits, whatever modality is missing and however sharp the scores are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perceiverd.model import inference
from perceiverd.model.cuda.precision import exact_float32
from perceiverd.model.geometry import Modality, Trunk
from perceiverd.model.inference import Inference, token_grids
from perceiverd.model.perceiver import Perceiver
from tests.support.tensors import LargestTensor

AUDIO = Modality("audio", (11,), patch=(7,), bands=2, resolution=(35,))
VIDEO = Modality("video", (2, 3, 5), patch=(1, 1, 13), bands=3)
WIDE = Modality("video", (4, 27, 25), patch=(1, 1, 2), bands=5)
"""Narrow content on many places: it is cut into several blocks on every axis except time."""

SIZES: dict[str, Any] = {"latents": 9, "width": 12, "cross_attends": 3, "layers": 1, "heads": 3, "widening": 2}
CHANGES: list[dict[str, Any]] = [
    {},
    {"shared": True},
    {"cross_heads": 5, "cross_width": 35},
    {"head": "query", "query_width": 14, "query_residual": False, "gelu": "tanh"},
    {"constants": 2, "cross_attends": 1},
    {"modality_channels": 0},
]
MISSING: list[dict[str, list[bool]]] = [
    {},
    {"audio": [True, False, True]},
    {"audio": [True, False, True], "video": [True, True, False]},
    {"video": [False, False, False]},
]


def make(video: Modality = VIDEO, std: float = 0.5, **changes: Any) -> Perceiver:
    torch.manual_seed(5)
    network = Perceiver((AUDIO, video), Trunk(**{**SIZES, **changes}), 17).double().eval()
    for parameter in network.parameters():  # so that biases are not zero and scores are far from equal
        torch.nn.init.normal_(parameter, std=std)
    return network


def contents(network: Perceiver, batch: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(6)
    return {m.name: torch.randn(batch, m.tokens, m.values, dtype=torch.float64) for m in network.bytes.modalities}


@torch.no_grad()
def both(network: Perceiver, seen: dict[str, Tensor], missing: dict[str, list[bool]]) -> tuple[Tensor, Tensor]:
    present = {name: torch.tensor(there) for name, there in missing.items()}
    return network(seen, present), Inference(network, factorised=True)(seen, present)


def distance(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, over the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("missing", MISSING, ids=lambda missing: "+".join(missing) or "nothing")
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "+".join(changes) or "published")
@pytest.mark.parametrize("video", [VIDEO, WIDE], ids=["small", "blocks"])
def test_logits_equal_the_plain_form(video: Modality, changes: dict[str, Any], missing: dict[str, list[bool]]) -> None:
    """Both forms agree to 1e-10 in float64, also if some windows of the batch lack a modality."""
    network = make(video, **changes)
    plain, fast = both(network, contents(network), missing)
    assert distance(fast, plain) < 1e-10


def test_the_wide_grid_has_many_blocks() -> None:
    """The wide grid is cut along both of its long axes, so the tests above also cover merging."""
    grid = token_grids(make(WIDE).bytes, rows=9)["video"]
    assert sum(count > 1 for count in grid.counts) >= 2


@pytest.mark.parametrize("std", [0.02, 0.5, 1.5])
def test_single_precision_is_accurate(std: float) -> None:
    """In float32 the factorised form is within 1e-5 of the float64 logits, or as close as the plain form is."""
    network = make(WIDE, std)
    seen = contents(network)
    with torch.no_grad():
        true = network(seen)
    network, seen = network.float(), {name: content.float() for name, content in seen.items()}
    plain, fast = both(network, seen, {})
    assert distance(fast, true) < max(1e-5, 4 * distance(plain, true))


def test_sharp_scores_stay_exact() -> None:
    """Scores that differ by hundreds, so that one token takes all, give the plain form's logits and no infinity."""
    network = make(WIDE, cross_attends=1)
    for cross in network.crosses:
        cross.attention.query.weight.data *= 40  # type: ignore[union-attr, operator]
    plain, fast = both(network, contents(network), {"audio": [True, False, True]})
    assert distance(fast, plain) < 1e-10


def test_masked_tokens_are_not_read() -> None:
    """If a window lacks a modality, the values there have no effect on its logits, not even NaN."""
    network = make()
    seen = contents(network)
    seen["audio"][1] = float("nan")
    fast = Inference(network, factorised=True)(seen, {"audio": torch.tensor([True, False, True])})
    assert fast.isfinite().all()


@pytest.mark.parametrize("name", ["audio", "video"])
def test_a_modality_may_be_left_out(name: str) -> None:
    """If no window of a batch has audio, the audio is left out; the same holds for video."""
    network = make(constants=1)
    plain, fast = both(network, {name: contents(network)[name]}, {})
    assert distance(fast, plain) < 1e-10


def test_a_large_batch_is_processed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large batch is processed in parts, and each window keeps its logits."""
    network = make()
    seen, present = contents(network, 5), {"audio": torch.tensor([True, False, False, True, True])}
    whole = Inference(network, factorised=True)(seen, present)
    monkeypatch.setattr(inference, "MAX_LATENTS", 2 * SIZES["latents"])
    torch.testing.assert_close(Inference(network, factorised=True)(seen, present), whole)


def test_the_byte_array_is_never_built() -> None:
    """No tensor of the factorised form reaches half the size of the byte array."""
    video = Modality("video", (6, 27, 25), patch=(1, 1, 2), bands=20)
    network = make(video, latents=4, cross_attends=2)
    tokens = sum(m.tokens for m in network.bytes.modalities)
    seen, ready = contents(network, 1), Inference(network, factorised=True)
    with LargestTensor() as largest:
        ready(seen)
    assert 0 < largest.numel < tokens * network.bytes.width / 2


@pytest.mark.gpu
def test_a_gpu_gives_the_logits_of_the_cpu() -> None:
    """In both forms, with a modality missing, CUDA gives the logits of the CPU in float32."""
    network = make(WIDE).float()
    seen = {name: content.float() for name, content in contents(network).items()}
    there = torch.tensor([True, False, True])
    for factorised in (True, False):
        wanted = Inference(network.cpu(), factorised)(seen, {"audio": there})
        ready = Inference(network.cuda(), factorised)
        with exact_float32():
            found = ready({name: content.cuda() for name, content in seen.items()}, {"audio": there.cuda()})
        assert distance(found.cpu(), wanted) < 1e-4


def test_the_cheaper_form_is_used() -> None:
    """Many positions and one head use the factorised form; many heads over wide content use the plain form."""
    narrow = Modality("video", (4, 28, 28), patch=(1, 4, 4, 3), bands=16)
    assert Inference(Perceiver((narrow,), Trunk(64, 32, 1, 1, 4), 3).eval()).factorised
    wide = Modality("video", (1, 4, 4), patch=(1, 16, 16, 3), bands=2)
    heads = Trunk(64, 32, 1, 1, 4, cross_heads=8, cross_width=64)
    network = Perceiver((wide,), heads, 3).eval()
    ready = Inference(network)
    assert not ready.factorised
    seen = {"video": torch.randn(2, 16, 768)}
    with torch.no_grad():
        torch.testing.assert_close(ready(seen), network(seen))
