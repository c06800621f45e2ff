"""`reading.read_plainly` as PyTorch's `flex_attention`, with the tables of the axes in its `score_mod`.

The library has one weighted sum, so the values carry a one at the token's place on each axis beside the content: they
are several times as wide as the content, and in memory. `kernel` avoids that; `make gpu-check` times both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from perceiverd.model.cuda.reading import Content, GridQueries, GridRead, GridTables

CHANNEL_MULTIPLE = 16
"""Keys and values are padded to a multiple of this; smaller widths have no kernel."""


class FlexReader:
    """A `Reader`."""

    def __init__(self, half: torch.dtype | None) -> None:
        """`half`: the type of products; None is that of the queries."""
        self._half = half

    def __call__(self, queries: GridQueries, tables: GridTables, content: Content) -> GridRead:
        dtype = self._half or queries.content.dtype
        tokens = content.gathered(queries.content.dtype)  # (B, M, K)
        inverse = tables.inverse_sigma(tokens)  # (B, M)
        batch, rows = len(tokens), queries.content.shape[1]
        values = torch.cat([tokens, _places(tables.grid, tokens)], dim=-1) * inverse[..., None]  # (B, M, U)
        q, k, v = (
            F.pad(x, (0, -x.shape[-1] % CHANNEL_MULTIPLE)).to(dtype)[:, None]
            for x in (queries.content.expand(batch, -1, -1), tokens, values)
        )
        found, aux = attend(q.device)(q, k, v, score_mod=_score_mod(queries, tables, inverse), scale=1.0)
        read = found[:, 0, :, : tables.width].to(queries.content.dtype)
        here = content.present[:, None]
        log_sum = aux.lse[:, 0].to(read.dtype)
        return GridRead((read * here[..., None]).reshape(batch, rows, -1), log_sum.masked_fill(~here, -math.inf))


def _places(grid: tuple[int, ...], like: Tensor) -> Tensor:
    """(B, M, sum of the grid): a one at the token's place on each axis."""
    axes = torch.meshgrid(*(torch.arange(n, device=like.device) for n in grid), indexing="ij")
    parts = [F.one_hot(axis.reshape(-1), n) for axis, n in zip(axes, grid, strict=True)]
    return torch.cat(parts, dim=1).to(like.dtype).expand(len(like), -1, -1)


def _score_mod(queries: GridQueries, tables: GridTables, inverse: Tensor) -> Callable[..., Tensor]:
    """Adds the tables of up to three axes at a token's place, then divides by its sigma."""
    _, n1, n2 = (1, 1, *tables.grid)[-3:]
    missing = [torch.zeros_like(queries.axes[0][..., :1])] * (3 - len(queries.axes))
    first, second, third = (*missing, *queries.axes)
    each = int(len(first) > 1)

    def score(s: Tensor, b: Tensor, h: Tensor, row: Tensor, token: Tensor) -> Tensor:
        window = b * each
        table = first[window, row, token // (n1 * n2)]
        table = table + second[window, row, token // n2 % n1] + third[window, row, token % n2]
        return (s + table) * inverse[b, token]

    return score


@lru_cache(maxsize=4)
def attend(device: torch.device) -> Callable[..., tuple[Tensor, Any]]:
    """`flex_attention` with the logarithms of its sums; compiled on a GPU, where it would otherwise hold all scores."""

    def call(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
        return flex_attention(q, k, v, return_aux=AuxRequest(lse=True), **options)

    return torch.compile(call, dynamic=False) if device.type == "cuda" else call
