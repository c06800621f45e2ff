"""What the latents read from one grid of tokens: scores, softmax, and the weighted sums. In plain operators.

`factorised` explains why the key and the value of a token are u / sigma, with u = [content | a one at its place on each
axis]. So a score needs a product with the content only, and one number of a table for each axis:

    score = (content . query + sum over the axes of table[place on the axis]) / sigma

and the weighted sum of u / sigma is a sum of contents and, for each axis, the sums of the weights at each place. No
position, key or value of a token is ever in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiverd.model.factorised import TokenGrid

MAX_SCORES = 2**24
"""Scores that `read_plainly` holds at once, unless one row of queries needs more: 64 MB in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where a token's content is in the memory of one window: value k of token m is at `tokens[m] + channels[k]`."""

    tokens: Tensor
    """(M,), int32."""
    channels: Tensor
    """(K,), int32."""
    scale: float = 1.0
    """The content is the number in memory times this: 1 / 255 for pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """The content of all tokens of one modality in a batch, as it lies in memory."""

    values: Tensor
    """(B, ...) of any type, each window contiguous."""
    layout: Layout
    present: Tensor
    """(B,), False for windows without the modality. What their values are has no effect."""

    def gathered(self, dtype: torch.dtype) -> Tensor:
        """(B, M, K); zeros for windows without the modality."""
        layout = self.layout
        places = layout.tokens[:, None] + layout.channels
        found = self.values.flatten(1)[:, places].to(dtype) * layout.scale
        return torch.where(self.present[:, None, None], found, 0)


class GridTables:
    """What is the same in all windows for one grid: sizes, and each token's fixed channels as LN sees them."""

    def __init__(self, grid: TokenGrid, eps: float, like: Tensor) -> None:
        """`eps`: of the LN. The tables get the type and device of `like`."""
        self.grid, self.channels, self.fixed, self.eps = grid.grid, grid.content, grid.fixed, eps
        self.fixed_mean, self.fixed_deviation = (
            x.to(like).contiguous() for x in (grid.fixed_mean, grid.fixed_deviation)
        )  # (M,)

    @property
    def width(self) -> int:
        """Channels of u."""
        return self.channels + sum(self.grid)

    @property
    def pooled(self) -> float:
        """The weight of the squared distance of two means, where deviations of two groups of channels are pooled."""
        return self.channels * self.fixed / (self.channels + self.fixed)

    def inverse_sigma(self, content: Tensor) -> Tensor:
        """(B, M): 1 / sigma of LN over all channels of tokens with this content (B, M, K)."""
        total = content.sum(-1)
        mean = total / self.channels
        deviation = content.square().sum(-1) - total * mean + self.fixed_deviation
        deviation += (mean - self.fixed_mean).square() * self.pooled
        return (deviation.clamp(min=0) / (self.channels + self.fixed) + self.eps).rsqrt()


@dataclass(frozen=True, slots=True, eq=False)
class GridQueries:
    """Queries (B or 1, R, channels of u), in parts: for the content, and a table for each axis."""

    content: Tensor
    """(B or 1, R, K)."""
    axes: tuple[Tensor, ...]
    """(B or 1, R, n) for each axis."""

    @classmethod
    def of(cls, queries: Tensor, tables: GridTables) -> GridQueries:
        content, *axes = queries.split([tables.channels, *tables.grid], dim=-1)
        return cls(content.contiguous(), tuple(axis.contiguous() for axis in axes))


@dataclass(frozen=True, slots=True, eq=False)
class GridRead:
    """What was read from one grid."""

    values: Tensor
    """(B, R, channels of u): the sum of u / sigma, weighted by the softmax over this grid's tokens; 0 if absent."""
    log_sum: Tensor
    """(B, R): logarithm of the softmax's sum; -inf for windows without the modality."""


Reader = Callable[[GridQueries, GridTables, Content], GridRead]


def read_plainly(queries: GridQueries, tables: GridTables, content: Content) -> GridRead:
    """The plain form, in the type of the queries, some rows at a time."""
    tokens = content.gathered(queries.content.dtype)  # (B, M, K)
    inverse = tables.inverse_sigma(tokens)[:, None]  # (B, 1, M)
    rows = queries.content.shape[1]
    step = max(1, MAX_SCORES // (len(tokens) * tokens.shape[1]))
    parts = [
        _read_rows(
            GridQueries(
                queries.content[:, first : first + step], tuple(a[:, first : first + step] for a in queries.axes)
            ),
            tables.grid,
            tokens,
            inverse,
        )
        for first in range(0, rows, step)
    ]
    values, log_sums = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
    here = content.present[:, None]
    return GridRead(values * here[..., None], log_sums.masked_fill(~here, -math.inf))


def _read_rows(queries: GridQueries, grid: tuple[int, ...], tokens: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, R, channels of u) and log sums (B, R) of these rows."""
    dims = range(2, 2 + len(grid))
    scores = (queries.content @ tokens.mT).unflatten(2, grid)  # (B, R, *grid)
    for dim, axis in zip(dims, queries.axes, strict=True):
        scores = scores + axis.reshape(*axis.shape[:2], *(axis.shape[2] if dim == other else 1 for other in dims))
    flat = scores.flatten(2) * inverse  # (B, R, M)
    log_sum = flat.logsumexp(-1)
    weights = (flat - log_sum[..., None]).exp() * inverse
    spread = weights.unflatten(2, grid)
    marginals = [spread.sum([other for other in dims if other != dim]) if len(grid) > 1 else spread for dim in dims]
    return torch.cat([weights @ tokens, *marginals], dim=2), log_sum
