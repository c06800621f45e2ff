"""A cross-attend for inference that never builds the byte array, its keys or its values.

It gives what `attention.CrossAttend` gives, up to rounding. It knows grids of tokens, but not what a modality is.

A token is x = S u. The vector u is long but sparse: it holds the token's content and, for every axis of the grid, a one
at the token's place. S holds the position features of every place and the modality's own channels. With
LN(x) = gamma (x - mean) / sigma + beta:

    q Wk LN(x) = centred(q Wk gamma) S u / sigma + a term that is equal for all tokens; a softmax ignores it
    Wv LN(x)   = centred(Wv gamma) S u / sigma + Wv beta, equal for all tokens; the attention weights sum to 1

`centred` subtracts the mean of each row, so the token's own mean drops out. Every token's key and value is therefore
u / sigma. A block of neighbouring tokens has few places, so u is cut to those: in a block of 8 x 8 x 8 tokens of the
public checkpoint's video, u has 48 + 8 + 8 + 8 channels, and x has 704. A stock kernel attends to each block. Blocks
and modalities are then merged by the logarithms of their softmax sums, as flash attention merges its blocks (Dao et
al. 2022, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from perceiverd.model.attention import CrossAttend
from perceiverd.model.blocks import block_cost, block_width, choose_block

MAX_SCORES = 2**24
"""Scores held at once if no kernel attends to the blocks. The public checkpoint's sizes have 41 million."""


class TokenGrid:
    """The tokens of one modality: x = `basis` @ u, with u = [content | a one at the token's place on each axis]."""

    def __init__(self, grid: Sequence[int], content: int, basis: Tensor, rows: int) -> None:
        """Choose the blocks and compute what is fixed for all windows.

        `content`: channels of a token's content. `basis`: (C, content + sum(grid)), float64; no channel may be used by
        two axes, or by the content and an axis. `rows`: the number of queries times heads that will read the tokens.
        """
        self.grid, self.content, self.rows, self.basis = tuple(grid), content, rows, basis
        self.block = choose_block(self.grid, content, rows)
        self.counts = tuple(n // b for n, b in zip(self.grid, self.block, strict=True))
        """Blocks along each axis."""
        self.width = block_width(content, self.block)
        """Channels of u within a block, zero padding included."""
        self._padding = self.width - content - sum(self.block)
        # For LN's mean and sigma: sum and squared deviation of each token's fixed channels, from sums over the axes.
        self.fixed = basis.shape[0] - content
        parts = basis[:, content:].split(self.grid, dim=1)
        total = self._outer_sum([part.sum(0) for part in parts])  # (M,)
        square = self._outer_sum([part.square().sum(0) for part in parts])  # (M,)
        self.fixed_mean = total / max(self.fixed, 1)
        self.fixed_deviation = square - total * self.fixed_mean
        self._one_hot = self._one_hot_places()

    def _one_hot_places(self) -> Tensor:
        """(*block, width - content): the part of u after the content, for each token of a block."""
        axes = [torch.arange(b, device=self.basis.device) for b in self.block]
        places = torch.cartesian_prod(*axes).reshape(-1, len(self.block))
        parts = [F.one_hot(places[:, axis], b) for axis, b in enumerate(self.block)]
        parts.append(places.new_zeros(len(places), self._padding))
        one_hot: Tensor = torch.cat(parts, dim=1).unflatten(0, self.block).to(self.basis)
        return one_hot

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return math.prod(self.grid)

    @property
    def cost(self) -> float:
        """Cost of reading all tokens, in multiply-adds."""
        return self.tokens * block_cost(self.block, self.content, self.rows)

    def finish(self, like: Tensor) -> None:
        """Drop `basis` and convert the per-window tables to the type of `like`. Call it after folding in float64."""
        del self.basis  # it is folded into the tables of the cross-attends
        self.fixed_mean, self.fixed_deviation, self._one_hot = (
            x.to(like.dtype) for x in (self.fixed_mean, self.fixed_deviation, self._one_hot)
        )

    def normalised_tokens(self, content: Tensor, eps: float) -> Tensor:
        """(B, blocks, tokens of a block, width): u / sigma of every token, from content (B, M, K)."""
        scale = self._in_blocks(self._inverse_sigma(content, eps)[..., None])
        tokens = content.new_empty(len(content), *self.counts, *self.block, self.width)
        torch.mul(self._in_blocks(content), scale, out=tokens[..., : self.content])
        torch.mul(self._one_hot, scale, out=tokens[..., self.content :])
        axes = len(self.grid)
        return tokens.flatten(axes + 1, -2).flatten(1, axes)

    def _inverse_sigma(self, content: Tensor, eps: float) -> Tensor:
        """(B, M): 1 / sigma of LN over all channels, from content (B, M, K) and the table of the fixed channels.

        The squared deviations of both groups of channels are pooled as in Chan, Golub and LeVeque 1983.
        """
        k, fixed = self.content, self.fixed
        total = content.sum(-1)
        mean = total / k
        deviation = content.square().sum(-1) - total * mean + self.fixed_deviation
        deviation += (mean - self.fixed_mean).square() * (k * fixed / (k + fixed))
        return (deviation.clamp(min=0) / (k + fixed) + eps).rsqrt()

    def block_queries(self, queries: Tensor) -> Tensor:
        """(B, blocks, R, width) from queries (B, R, content + sum(grid)): the channels that each block's tokens use."""
        content, *axes = queries.split([self.content, *self.grid], dim=-1)
        parts = [self._for_each_block(content)]
        parts += [self._for_each_block(part, axis) for axis, part in enumerate(axes)]
        parts.append(parts[0].new_zeros(()).expand(*parts[0].shape[:-1], self._padding))
        return torch.cat(parts, dim=-1).flatten(1, len(self.grid))

    def _for_each_block(self, part: Tensor, axis: int | None = None) -> Tensor:
        """(B, *counts, R, channels): the content's channels, or those of the places that a block has on `axis`."""
        batch, counts = len(part), [1] * len(self.grid)
        if axis is not None:
            counts[axis] = self.counts[axis]
            part = part.unflatten(-1, (-1, self.block[axis])).transpose(1, 2)  # (B, blocks, R, b)
        part = part.reshape(batch, *counts, *part.shape[-2:])
        return part.expand(-1, *self.counts, -1, -1)

    def merge_blocks(self, read: Tensor, shares: Tensor) -> Tensor:
        """(B, R, content + sum(grid)): the blocks' results (B, blocks, R, width), weighted by (B, blocks, R).

        Content is summed over all blocks, a place on an axis over the blocks that have it. `read` is overwritten.
        """
        weighted = read.mul_(shares[..., None]).unflatten(1, self.counts)  # (B, *counts, R, width)
        content, *axes, _ = weighted.split([self.content, *self.block, self._padding], dim=-1)
        dims = range(1, len(self.grid) + 1)
        parts = [content.sum(tuple(dims))]
        for axis, part in zip(dims, axes, strict=True):
            if others := [dim for dim in dims if dim != axis]:
                part = part.sum(others)
            parts.append(part.transpose(1, 2).flatten(2))
        return torch.cat(parts, dim=-1)

    def _outer_sum(self, axes: Sequence[Tensor]) -> Tensor:
        """(M,): for each token, the sum of one number per axis."""
        total = axes[0]
        for axis in axes[1:]:
            total = total[..., None] + axis
        return total.reshape(-1)

    def _in_blocks(self, x: Tensor) -> Tensor:
        """(B, *counts, *block, channels), a view of (B, M, channels)."""
        x = x.unflatten(1, [n for pair in zip(self.counts, self.block, strict=True) for n in pair])
        axes = range(len(self.grid))
        return x.permute(0, *(2 * axis + 1 for axis in axes), *(2 * axis + 2 for axis in axes), -1)


def attend_blocks(queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Attention within each block; `tokens` (B, blocks, M, w) are keys and values, `queries` are (B, blocks, R, w).

    Returns softmax(queries tokens') tokens (B, blocks, R, w), and the logarithm of each softmax's sum (B, blocks, R).
    """
    if tokens.device.type == "cpu":
        # `scaled_dot_product_attention` runs this kernel on a CPU. Only this name also returns the sums.
        read, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(queries, tokens, tokens, scale=1.0)
        return read, log_sums
    return attend_blocks_portable(queries, tokens)


def attend_blocks_portable(queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """`attend_blocks` with plain matrix products, a few blocks at a time: at most MAX_SCORES scores, or one block."""
    step = max(1, MAX_SCORES // (len(tokens) * queries.shape[2] * tokens.shape[2]))
    reads, log_sums = [], []
    for some_queries, some_tokens in zip(queries.split(step, dim=1), tokens.split(step, dim=1), strict=True):
        scores = some_queries @ some_tokens.mT  # (B, step, R, tokens of a block)
        log_sum = scores.logsumexp(-1)
        reads.append(scores.sub_(log_sum[..., None]).exp_() @ some_tokens)
        log_sums.append(log_sum)
    return torch.cat(reads, dim=1), torch.cat(log_sums, dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class GridTokens:
    """The tokens of one modality in a batch of windows."""

    tokens: Tensor
    """`TokenGrid.normalised_tokens` of the windows that have the modality."""
    windows: Tensor | None
    """The indices of those windows in the batch; None if all windows have the modality."""


Queries = tuple[dict[str, Tensor], Tensor]
"""Queries of each grid, cut to blocks (B or 1, blocks, R, width), and scores of the constants (B or 1, R, n)."""


class FactorisedCrossAttend:
    """A cross-attend over token grids for inference. It gives what the `CrossAttend` it is made from gives.

    Weights are folded in float64. `R`, the rows of queries, is heads times latents.
    """

    def __init__(
        self, cross: CrossAttend, grids: Mapping[str, TokenGrid], constants: Tensor, latents: Tensor | None = None
    ) -> None:
        """`constants` (n, C): tokens that every window has. `latents` (N, D): give them if they are always the same."""
        self._cross, self._grids = cross, grids
        self._heads = cross.attention.heads
        key, value, bias = folded_projections(cross)
        dtype = cross.attention.key.weight.dtype
        tokens = F.layer_norm(constants.double(), constants.shape[-1:], eps=cross.input_norm.eps)  # (n, C)
        self._values = {name: (grid.basis.mT @ value).to(dtype) for name, grid in grids.items()}  # (H, U, s)
        self._constant_values = (tokens @ value).to(dtype)  # (H, n, s)
        self._bias = bias.to(dtype)
        self._fixed_queries: Queries | None = None
        if latents is None:
            self._keys = {name: (key @ grid.basis).to(dtype) for name, grid in grids.items()}  # (H, s, U)
            self._constant_keys = (key @ tokens.mT).to(dtype)  # (H, s, n)
        else:
            q = projected_queries(cross, latents[None].double())
            rows = {name: (q @ (key @ grid.basis)).flatten(1, 2).to(dtype) for name, grid in grids.items()}
            scores = (q @ (key @ tokens.mT)).flatten(1, 2).to(dtype)
            self._fixed_queries = self._cut_to_blocks(rows), scores

    def __call__(self, latents: Tensor, inputs: Mapping[str, GridTokens]) -> Tensor:
        """Latents (B, N, D) after reading `inputs`, the tokens of each modality.

        Every window has at least one modality, unless there are constants.
        """
        queries, constant_scores = self._fixed_queries or self._project(latents)
        log_sums = [constant_scores.expand(len(latents), -1, -1)]  # (B, R, n)
        reads: dict[str, Tensor] = {}
        for name, part in inputs.items():
            reads[name], log_sum = self._attend(queries[name], part, len(latents))
            log_sums.append(log_sum.transpose(1, 2))  # (B, R, blocks)
        sizes = [log_sum.shape[-1] for log_sum in log_sums]
        constant_shares, *shares = torch.cat(log_sums, dim=-1).softmax(dim=-1).split(sizes, dim=-1)
        out = self._split_heads(constant_shares) @ self._constant_values  # (B, H, N, s)
        for (name, read), share in zip(reads.items(), shares, strict=True):
            self._add(out, name, read, share.transpose(1, 2), inputs[name].windows)
        out = out.transpose(1, 2).flatten(2) + self._bias  # (B, N, H * s)
        if self._heads > 1:
            out = self._cross.attention.out(out)
        return self._cross.finish(latents, out)

    def _attend(self, queries: Tensor, part: GridTokens, batch: int) -> tuple[Tensor, Tensor]:
        """What the windows that have a modality read in each block, and the log sums of all windows: -inf if absent."""
        if part.windows is not None and len(queries) > 1:
            queries = queries[part.windows]
        read, log_sums = attend_blocks(queries.expand(len(part.tokens), -1, -1, -1), part.tokens)
        if part.windows is not None:
            absent = log_sums.new_full((batch, *log_sums.shape[1:]), -math.inf)
            log_sums = absent.index_copy_(0, part.windows, log_sums)
        return read, log_sums

    def _add(self, out: Tensor, name: str, read: Tensor, shares: Tensor, windows: Tensor | None) -> None:
        """Add to `out` (B, H, N, s) what was read from one modality, weighted by `shares` (B, blocks, R)."""
        merged = self._grids[name].merge_blocks(read, shares if windows is None else shares[windows])
        values = self._split_heads(merged) @ self._values[name]
        if windows is None:
            out += values
        else:
            out.index_add_(0, windows, values)

    def _project(self, latents: Tensor) -> Queries:
        q = projected_queries(self._cross, latents)  # (B, H, N, W / H)
        rows = {name: (q @ key).flatten(1, 2) for name, key in self._keys.items()}  # (B, R, U)
        return self._cut_to_blocks(rows), (q @ self._constant_keys).flatten(1, 2)

    def _cut_to_blocks(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._grids[name].block_queries(queries) for name, queries in rows.items()}

    def _split_heads(self, rows: Tensor) -> Tensor:
        return rows.unflatten(1, (self._heads, -1))  # type: ignore[no-any-return] # (B, H, N, channels)


class FixedQueryCrossAttend:
    """A cross-attend with constant queries (N, D) over inputs without positions. It gives what its `CrossAttend` gives.

    Its key projection is folded into the queries in float64.
    """

    def __init__(self, cross: CrossAttend, queries: Tensor) -> None:
        self._cross, self._queries = cross, queries
        key, value, bias = folded_projections(cross)
        dtype = queries.dtype
        self._keyed_queries = (projected_queries(cross, queries[None].double()) @ key).to(dtype)  # (1, H, N, C)
        self._value, self._bias = value.to(dtype), bias.to(dtype)

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, N, D) from inputs (B, M, C)."""
        norm = self._cross.input_norm
        tokens = F.layer_norm(inputs, norm.normalized_shape, eps=norm.eps)[:, None]  # (B, 1, M, C)
        shares = (self._keyed_queries @ tokens.mT).softmax(dim=-1)  # (B, H, N, M)
        out = (shares @ tokens @ self._value).transpose(1, 2).flatten(2) + self._bias
        if self._cross.attention.heads > 1:
            out = self._cross.attention.out(out)
        return self._cross.finish(self._queries.expand(len(inputs), -1, -1), out)


def projected_queries(cross: CrossAttend, queries: Tensor) -> Tensor:
    """(B, H, N, W / H) from queries (B, N, D), computed in the type of `queries`."""
    norm, linear = cross.query_norm, cross.attention.query
    dtype = queries.dtype
    normal = F.layer_norm(queries, norm.normalized_shape, norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)
    q = F.linear(normal, linear.weight.to(dtype), linear.bias.to(dtype))
    return q.unflatten(-1, (cross.attention.heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]


def folded_projections(cross: CrossAttend) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (H, W / H, C), values (H, C, s) and the values' bias of a cross-attend, for tokens (x - mean) / sigma.

    They include the normalisation's weights, the subtraction of its mean and 1 / sqrt(W / H). With one head they also
    include the output projection, and s is the queries' width; otherwise s is W / H. In float64.
    """
    attention, norm = cross.attention, cross.input_norm
    gamma, beta = norm.weight.double(), norm.bias.double()
    heads = attention.heads
    key = (attention.key.weight.double() * gamma).unflatten(0, (heads, -1))  # (H, W / H, C)
    key = (key - key.mean(-1, keepdim=True)) / math.sqrt(key.shape[1])
    value = attention.value.weight.double()
    bias = value @ beta + attention.value.bias.double()
    value = value * gamma
    if heads == 1:
        out = attention.out.weight.double()
        value, bias = out @ value, out @ bias + attention.out.bias.double()
    value = value - value.mean(-1, keepdim=True)
    return key, value.unflatten(0, (heads, -1)).mT, bias
