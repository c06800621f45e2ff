"""Token grids, and attention within blocks, against plain matrix products."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from perceiverd.model import factorised
from perceiverd.model.factorised import TokenGrid, attend_blocks, attend_blocks_portable
from tests.support.tensors import LargestTensor


def test_portable_attention_equals_the_kernel() -> None:
    """Without a kernel, plain products give the same results and the same logarithms of sums."""
    torch.manual_seed(0)
    queries, tokens = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.randn(2, 3, 7, 8, dtype=torch.float64)
    portable, kernel = attend_blocks_portable(queries, tokens), attend_blocks(queries, tokens)
    for found, wanted in zip(portable, kernel, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("limit", [1, 150, 10**6])
def test_portable_attention_holds_few_scores(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are read in groups with a bounded number of scores, the last group smaller; the result is the same."""
    torch.manual_seed(0)
    monkeypatch.setattr(factorised, "MAX_SCORES", limit)
    queries, tokens = torch.randn(1, 11, 5, 2, dtype=torch.float64), torch.randn(1, 11, 13, 2, dtype=torch.float64)
    with LargestTensor() as largest:
        found = attend_blocks_portable(queries, tokens)
    assert largest.numel <= max(limit, 5 * 13, tokens.numel())
    for one, wanted in zip(found, attend_blocks(queries, tokens), strict=True):
        torch.testing.assert_close(one, wanted)


def test_a_grid_is_cut_into_the_cheapest_blocks() -> None:
    """The public checkpoint's video is read in blocks whose tokens have 72 channels instead of 704."""
    basis = torch.zeros(704, 48 + 16 + 56 + 56, dtype=torch.float64)
    grid = TokenGrid((16, 56, 56), 48, basis, 784)
    assert grid.width == 72 and grid.tokens == 50_176


def test_normalised_tokens_give_the_layer_norm() -> None:
    """`basis` times u / sigma, with its mean subtracted, is the layer norm of the token that `basis` times u gives."""
    torch.manual_seed(0)
    axes, content = (4, 6), 3
    basis = torch.zeros(13, content + sum(axes), dtype=torch.float64)
    basis[:content, :content] = torch.eye(content)
    basis[content:8, content : content + 4] = torch.randn(5, 4)
    basis[8:, content + 4 :] = torch.randn(5, 6)
    grid = TokenGrid(axes, content, basis, rows=1)
    assert grid.block == axes  # so the tokens of the only block are in the order of the grid
    values = torch.randn(2, 24, content, dtype=torch.float64)
    places = torch.cartesian_prod(torch.arange(4), torch.arange(6))
    one_hot = torch.cat([functional.one_hot(places[:, 0], 4), functional.one_hot(places[:, 1], 6)], dim=1)
    tokens = torch.cat([values, one_hot.expand(2, -1, -1)], dim=-1) @ basis.T
    found = grid.normalised_tokens(values, 1e-5)[:, 0, :, : content + sum(axes)] @ basis.T
    wanted = functional.layer_norm(tokens, (13,), eps=1e-5)
    torch.testing.assert_close(found - found.mean(-1, keepdim=True), wanted)
