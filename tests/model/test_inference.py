"""The factorised form against the plain one: the same logits, whatever is missing, however sharp the scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from perceiverd.model import attention, inference
from perceiverd.model.attention import TokenGrid, read_blocks, read_blocks_anywhere
from perceiverd.model.geometry import Modality, Trunk
from perceiverd.model.inference import Inference, token_grids
from perceiverd.model.perceiver import Perceiver

SOUND = Modality("audio", (11,), patch=(7,), bands=2, resolution=(35,))
SIGHT = Modality("video", (2, 3, 5), patch=(1, 1, 13), bands=3)
WIDE = Modality("video", (4, 27, 25), patch=(1, 1, 2), bands=5)
"""Narrow content on many places: cut into several blocks on every axis but time."""

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


def make(sight: Modality = SIGHT, std: float = 0.5, **changes: Any) -> Perceiver:
    torch.manual_seed(5)
    network = Perceiver((SOUND, sight), Trunk(**{**SIZES, **changes}), 17).double().eval()
    for parameter in network.parameters():  # biases too, and scores far from flat
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
@pytest.mark.parametrize("sight", [SIGHT, WIDE], ids=["small", "blocks"])
def test_logits_equal_the_plain_form(sight: Modality, changes: dict[str, Any], missing: dict[str, list[bool]]) -> None:
    """Both forms agree to 1e-10 in float64, for windows that lack a modality beside windows that don't."""
    network = make(sight, **changes)
    plain, fast = both(network, contents(network), missing)
    assert distance(fast, plain) < 1e-10


def test_many_blocks_are_read() -> None:
    """The wide grid is cut along both of its long axes, so that merging is tested too."""
    grid = token_grids(make(WIDE).bytes, rows=9)["video"]
    assert sum(count > 1 for count in grid.counts) >= 2


@pytest.mark.parametrize("std", [0.02, 0.5, 1.5])
def test_single_precision_is_kept(std: float) -> None:
    """In float32 the factorised form is 1e-5 from the float64 logits, or as near as the plain form is."""
    network = make(WIDE, std)
    seen = contents(network)
    with torch.no_grad():
        true = network(seen)
    network, seen = network.float(), {name: content.float() for name, content in seen.items()}
    plain, fast = both(network, seen, {})
    assert distance(fast, true) < max(1e-5, 4 * distance(plain, true))


def test_sharp_scores_stay_exact() -> None:
    """Scores hundreds apart, where one token takes all, give the plain form's logits and no infinity."""
    network = make(WIDE, cross_attends=1)
    for cross in network.crosses:
        cross.attention.query.weight.data *= 40  # type: ignore[union-attr, operator]
    plain, fast = both(network, contents(network), {"audio": [True, False, True]})
    assert distance(fast, plain) < 1e-10


def test_masked_tokens_are_not_read() -> None:
    """Whatever stands in a modality that a window lacks, even what is no number, its logits don't show it."""
    network = make()
    seen = contents(network)
    seen["audio"][1] = float("nan")
    fast = Inference(network, factorised=True)(seen, {"audio": torch.tensor([True, False, True])})
    assert fast.isfinite().all()


@pytest.mark.parametrize("name", ["audio", "video"])
def test_a_modality_may_be_left_out(name: str) -> None:
    """A batch in which no window has sound needs no sound at all; so with sight."""
    network = make(constants=1)
    plain, fast = both(network, {name: contents(network)[name]}, {})
    assert distance(fast, plain) < 1e-10


def test_a_batch_goes_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch too large for the cache is cut, and each window keeps its logits."""
    network = make()
    seen, present = contents(network, 5), {"audio": torch.tensor([True, False, False, True, True])}
    whole = Inference(network, factorised=True)(seen, present)
    monkeypatch.setattr(inference, "ROWS", 2 * SIZES["latents"])
    torch.testing.assert_close(Inference(network, factorised=True)(seen, present), whole)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


def test_the_byte_array_is_never_built() -> None:
    """No tensor of the factorised form is as large as the byte array, nor half of it."""
    sight = Modality("video", (6, 27, 25), patch=(1, 1, 2), bands=20)
    network = make(sight, latents=4, cross_attends=2)
    tokens = sum(m.tokens for m in network.bytes.modalities)
    seen, ready = contents(network, 1), Inference(network, factorised=True)
    with Largest() as largest:
        ready(seen)
    assert 0 < largest.numel < tokens * network.bytes.width / 2


def test_the_portable_reading_equals_the_kernels() -> None:
    """Where there is no kernel for it, blocks are read with plain products to the same result and the same sums."""
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.randn(2, 3, 7, 8, dtype=torch.float64)
    for found, wanted in zip(read_blocks_anywhere(queries, keys), read_blocks(queries, keys), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("held", [1, 150, 10**6])
def test_the_portable_reading_holds_few_scores(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are read in groups of a bounded number of scores, the last one smaller, to the same result."""
    torch.manual_seed(0)
    monkeypatch.setattr(attention, "SCORES", held)
    queries, keys = torch.randn(1, 11, 5, 2, dtype=torch.float64), torch.randn(1, 11, 13, 2, dtype=torch.float64)
    with Largest() as largest:
        found = read_blocks_anywhere(queries, keys)
    assert largest.numel <= max(held, 5 * 13, keys.numel())
    for one, wanted in zip(found, read_blocks(queries, keys), strict=True):
        torch.testing.assert_close(one, wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_processors_logits() -> None:
    """In both forms, with a modality missing, what CUDA gives in float32 is what the processor gives."""
    network = make(WIDE).float()
    seen = {name: content.float() for name, content in contents(network).items()}
    there = torch.tensor([True, False, True])
    for factorised in (True, False):
        wanted = Inference(network.cpu(), factorised)(seen, {"audio": there})
        ready = Inference(network.cuda(), factorised)
        found = ready({name: content.cuda() for name, content in seen.items()}, {"audio": there.cuda()})
        assert distance(found.cpu(), wanted) < 1e-4


def test_it_is_used_where_it_pays() -> None:
    """Many positions and one head are factorised; many heads that read wide content are read as published."""
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


def test_a_grid_cuts_what_is_cheapest() -> None:
    """The public checkpoint's video is read in blocks of 72 channels in place of its 704."""
    spread = torch.zeros(704, 48 + 16 + 56 + 56, dtype=torch.float64)
    grid = TokenGrid((16, 56, 56), 48, spread, 784)
    assert grid.width == 72 and grid.tokens == 50_176
