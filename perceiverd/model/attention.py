"""Attention as the Perceiver uses it: one set of inputs read by another, or by itself.

First the plain form: queries, keys and values are projected for every token, as in the paper. Then the factorised form
of a cross-attend: the same numbers, for inference, without the byte array, its keys or its values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention of queries (B, N, query_width) to inputs (B, M, input_width).

    `width` query, key and value channels are split over `heads`; the result has `query_width` channels.
    """

    def __init__(self, query_width: int, input_width: int, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels cannot be split over {heads} heads")
        self.heads = heads
        self.query = nn.Linear(query_width, width)
        self.key = nn.Linear(input_width, width)
        self.value = nn.Linear(input_width, width)
        self.out = nn.Linear(width, query_width)

    def forward(self, queries: Tensor, inputs: Tensor, seen: Tensor | None = None) -> Tensor:
        """Read `inputs`; `seen` (B, M) is False at tokens that must not be read."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, N or M, width / H)
            for project, x in ((self.query, queries), (self.key, inputs), (self.value, inputs))
        )
        mask = None if seen is None else seen[:, None, None, :]  # (B, 1, 1, M)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, H, N, width / H)
        return self.out(read.transpose(1, 2).flatten(2))  # type: ignore[no-any-return] # (B, N, query_width)


class Mlp(nn.Sequential):
    """Linear, GELU, linear; `widening` times as many channels between. `gelu`: `erf`, exact, or `tanh`, nearly so."""

    def __init__(self, width: int, widening: int, gelu: str = "erf") -> None:
        bend = nn.GELU(approximate="tanh" if gelu == "tanh" else "none")
        super().__init__(nn.Linear(width, widening * width), bend, nn.Linear(widening * width, width))


class CrossAttend(nn.Module):
    """Pre-LN block: latents (B, N, D) read a byte array (B, M, C), each with its own normalisation, then an MLP.

    `residual`: the latents are added to what they read.
    """

    def __init__(
        self,
        query_width: int,
        input_width: int,
        width: int,
        heads: int,
        widening: int,
        gelu: str = "erf",
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.query_norm = nn.LayerNorm(query_width)
        self.input_norm = nn.LayerNorm(input_width)
        self.attention = Attention(query_width, input_width, width, heads)
        self.mlp_norm = nn.LayerNorm(query_width)
        self.mlp = Mlp(query_width, widening, gelu)

    def forward(self, queries: Tensor, inputs: Tensor, seen: Tensor | None = None) -> Tensor:
        return self.finish(queries, self.attention(self.query_norm(queries), self.input_norm(inputs), seen))

    def finish(self, queries: Tensor, read: Tensor) -> Tensor:
        """What follows attention: the residual and the MLP."""
        x = queries + read if self.residual else read
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class SelfAttend(nn.Module):
    """Pre-LN block: latents (B, N, D) read themselves, then an MLP."""

    def __init__(self, width: int, heads: int, widening: int, gelu: str = "erf") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, width, width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, widening, gelu)

    def forward(self, latents: Tensor) -> Tensor:
        normal = self.norm(latents)
        x = latents + self.attention(normal, normal)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


def initialise(module: nn.Module) -> None:
    """Weights as the paper's code draws them: truncated normal, variance 1 / fan-in; biases zero."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        # A normal truncated at two sigma has a standard deviation of 0.8796.
        sigma = module.weight[0].numel() ** -0.5 / 0.87962566103423978
        nn.init.trunc_normal_(module.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)


# ---------------------------------------------------------------------------------------------- factorised form
# A token is x = S u. u is long but sparse: the token's content, and on every axis a one at its place; S holds the
# axes' position features and the modality's own channels. With LN(x) = gamma (x - mean) / sigma + beta,
#
#     q Wk LN(x) = centred(q Wk gamma) S u / sigma + what is the same for all tokens, which a softmax forgets
#     Wv LN(x)   = centred(Wv gamma) S u / sigma + Wv beta, the same for all tokens, which shares that sum to 1 keep
#
# where `centred` takes away a row's mean, and with it the token's. So all tokens' keys and values are u / sigma. In a
# block of neighbours few places occur, and u is cut to these: for a block of 16 x 8 x 8 of the public checkpoint's
# video to 48 + 16 + 8 + 8 channels in place of 704. A stock kernel reads every block; then blocks and modalities are
# merged by the logarithms of their sums, as a flash attention merges its own.

ALIGN = 8
"""Channels of a block's tokens are a multiple of this: a kernel read 71 a fifth slower than 72."""
MERGE = 120
"""What merging one number of a block's result costs, in multiply-adds of a matrix product: measured, roughly."""
SCORES = 2**24
"""Scores that are held at once where no kernel reads the blocks: less than half of the public sizes' 41 million."""


class TokenGrid:
    """The tokens of one modality: `x = spread @ u` for each, u being [content | a one at its place on each axis]."""

    def __init__(self, grid: Sequence[int], content: int, spread: Tensor, rows: int) -> None:
        """`spread`: (C, content + sum(grid)), float64, no channel used by two axes or by content and an axis.

        `rows`: how many queries will read the tokens, which decides into which blocks they are cut.
        """
        self.grid, self.content, self.rows, self.spread = tuple(grid), content, rows, spread
        self.block = block_of(self.grid, content, rows)
        self.counts = tuple(n // b for n, b in zip(self.grid, self.block, strict=True))
        self.width = width_of(content, self.block)
        """Channels of u within a block, with zeros to an even width."""
        # Mean and squared deviations of what is fixed, summed from the axes: a table of all tokens, two numbers each.
        self._fixed = spread.shape[0] - content
        parts = spread[:, content:].split(self.grid, dim=1)
        total = self._over_grid([part.sum(0) for part in parts])
        square = self._over_grid([part.square().sum(0) for part in parts])
        self._mean = total / max(self._fixed, 1)
        self._deviation = square - total * self._mean
        axes = [torch.arange(b, device=spread.device) for b in self.block]
        places = torch.cartesian_prod(*axes).reshape(-1, len(self.block))
        marks = [F.one_hot(places[:, axis], b) for axis, b in enumerate(self.block)]
        marks.append(places.new_zeros(len(places), self.width - content - sum(self.block)))
        self._marks = torch.cat(marks, dim=1).unflatten(0, self.block).to(spread)  # (*block, width - content)

    @property
    def tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def cost(self) -> float:
        """What reading all tokens takes, in multiply-adds."""
        return self.tokens * cost_of(self.block, self.content, self.rows)

    def settle(self, like: Tensor) -> None:
        """Bring what is read per window to the type of `like`, once everything is worked out in float64."""
        del self.spread  # folded into the cross-attends' tables
        self._mean, self._deviation, self._marks = (
            x.to(like.dtype) for x in (self._mean, self._deviation, self._marks)
        )

    def keys(self, content: Tensor, eps: float) -> Tensor:
        """(B, blocks, tokens of a block, width): u / sigma of every token, from content (B, M, K)."""
        k, fixed = self.content, self._fixed
        total = content.sum(-1)
        mean = total / k
        deviation = content.square().sum(-1) - total * mean + self._deviation
        deviation += (mean - self._mean).square() * (k * fixed / (k + fixed))
        scale = self._blocked((deviation.clamp(min=0) / (k + fixed) + eps).rsqrt()[..., None])
        keys = content.new_empty(len(content), *self.counts, *self.block, self.width)
        torch.mul(self._blocked(content), scale, out=keys[..., :k])
        torch.mul(self._marks, scale, out=keys[..., k:])
        axes = len(self.grid)
        return keys.flatten(axes + 1, -2).flatten(1, axes)

    def queries(self, tables: Tensor) -> Tensor:
        """(B, blocks, R, width): the part of each row (B, R, content + sum(grid)) that a block's tokens can meet."""
        content, *axes = tables.split([self.content, *self.grid], dim=-1)
        parts = []
        for axis, part in enumerate([content, *axes]):
            shape = [1] * len(self.grid)
            if axis:
                shape[axis - 1] = self.counts[axis - 1]
                part = part.unflatten(-1, (-1, self.block[axis - 1])).transpose(1, 2)  # (B, blocks, R, b)
            part = part.reshape(len(tables), *shape, *part.shape[-2:])
            parts.append(part.expand(-1, *self.counts, -1, -1))
        parts.append(parts[0].new_zeros(()).expand(*parts[0].shape[:-1], self.width - self.content - sum(self.block)))
        return torch.cat(parts, dim=-1).flatten(1, len(self.grid))

    def merge(self, read: Tensor, shares: Tensor) -> Tensor:
        """(B, R, content + sum(grid)): blocks' results (B, blocks, R, width), weighted by (B, blocks, R), in place.

        Content is summed over all blocks, the places on an axis over those that have them.
        """
        weighted = read.mul_(shares[..., None]).unflatten(1, self.counts)  # (B, *counts, R, width)
        spare = self.width - self.content - sum(self.block)
        content, *axes, _ = weighted.split([self.content, *self.block, spare], dim=-1)
        dims = range(1, len(self.grid) + 1)
        parts = [content.sum(tuple(dims))]
        for axis, part in zip(dims, axes, strict=True):
            if others := [dim for dim in dims if dim != axis]:
                part = part.sum(others)
            parts.append(part.transpose(1, 2).flatten(2))
        return torch.cat(parts, dim=-1)

    def _over_grid(self, axes: Sequence[Tensor]) -> Tensor:
        """(M,): the sums of one number from each axis."""
        total = axes[0]
        for axis in axes[1:]:
            total = total[..., None] + axis
        return total.reshape(-1)

    def _blocked(self, x: Tensor) -> Tensor:
        """(B, *counts, *block, channels), a view of (B, M, channels)."""
        x = x.unflatten(1, [n for pair in zip(self.counts, self.block, strict=True) for n in pair])
        axes = range(len(self.grid))
        return x.permute(0, *(2 * axis + 1 for axis in axes), *(2 * axis + 2 for axis in axes), -1)


def width_of(content: int, block: Sequence[int]) -> int:
    return -(-(content + sum(block)) // ALIGN) * ALIGN


def block_of(grid: Sequence[int], content: int, rows: int) -> tuple[int, ...]:
    """The block, dividing the grid, with which least is to be done: large ones are wide, small ones many to merge."""
    divisors = [[b for b in range(1, n + 1) if n % b == 0] for n in grid]
    return min(product(*divisors), key=lambda block: cost_of(block, content, rows))


def cost_of(block: Sequence[int], content: int, rows: int) -> float:
    """What one token of such a block takes, in multiply-adds: its score and its share for each row, and the merging."""
    return width_of(content, block) * rows * (2 + MERGE / math.prod(block))


def read_blocks(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Every block's softmax(queries keys') keys (B, blocks, R, w), and the logarithm of its sum (B, blocks, R)."""
    if keys.device.type == "cpu":
        # What `scaled_dot_product_attention` runs on a CPU, called by its own name for the sums that it gives beside.
        read, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(queries, keys, keys, scale=1.0)
        return read, sums
    return read_blocks_anywhere(queries, keys)


def read_blocks_anywhere(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """The same where there is no such kernel: in groups of blocks that have no more than SCORES, or of one."""
    step = max(1, SCORES // (len(keys) * queries.shape[2] * keys.shape[2]))
    reads, sums = [], []
    for some, tokens in zip(queries.split(step, dim=1), keys.split(step, dim=1), strict=True):
        scores = some @ tokens.mT  # (B, step, R, tokens of a block)
        total = scores.logsumexp(-1)
        reads.append(scores.sub_(total[..., None]).exp_() @ tokens)
        sums.append(total)
    return torch.cat(reads, dim=1), torch.cat(sums, dim=1)


class FactorisedCross:
    """A cross-attend over token grids, ready for inference: equal to the `CrossAttend` it is made from.

    `constants` (n, C) are tokens that every window has. Where `queries` (N, D) are given, they are the latents that
    will always come, and all that depends on them alone is worked out here. Weights are folded in float64.
    """

    def __init__(
        self, cross: CrossAttend, grids: Mapping[str, TokenGrid], constants: Tensor, queries: Tensor | None = None
    ) -> None:
        self._cross, self._grids = cross, grids
        attention, heads = cross.attention, cross.attention.heads
        key, value, bias = _folded(cross)
        like = attention.key.weight
        self._values = {name: (grid.spread.mT @ value).to(like.dtype) for name, grid in grids.items()}  # (H, U, s)
        tokens = F.layer_norm(constants.double(), constants.shape[-1:], eps=cross.input_norm.eps)  # (n, C)
        self._constant_values = (tokens @ value).to(like.dtype)  # (H, n, s)
        self._bias = bias.to(like.dtype)
        self._fixed: tuple[dict[str, Tensor], Tensor] | None = None
        if queries is None:
            self._keys = {name: (key @ grid.spread).to(like.dtype) for name, grid in grids.items()}  # (H, s, U)
            self._constant_keys = (key @ tokens.mT).to(like.dtype)  # (H, s, n)
        else:
            q = _queries(cross, queries[None].double())
            tables = {name: (q @ (key @ grid.spread)).flatten(1, 2).to(like.dtype) for name, grid in grids.items()}
            scores = (q @ (key @ tokens.mT)).flatten(1, 2).to(like.dtype)
            self._fixed = {name: grids[name].queries(table) for name, table in tables.items()}, scores
        self._heads = heads

    def __call__(self, latents: Tensor, keys: Mapping[str, tuple[Tensor, Tensor | None]]) -> Tensor:
        """Latents (B, N, D) after reading.

        `keys` has for each modality `TokenGrid.keys` of the windows that have it, and which of the batch these are;
        None where all have it. Every window has a modality, or there are constants.
        """
        batch = len(latents)
        queries, scores = self._fixed or self._asked(latents)
        reads: list[tuple[str, Tensor, Tensor | None]] = []
        sums = [scores.expand(batch, -1, -1)]  # (B, R, n)
        for name, (tokens, rows) in keys.items():
            asking = queries[name] if rows is None or len(queries[name]) == 1 else queries[name][rows]
            read, logs = read_blocks(asking.expand(len(tokens), -1, -1, -1), tokens)
            if rows is not None:
                logs = logs.new_full((batch, *logs.shape[1:]), -math.inf).index_copy_(0, rows, logs)
            reads.append((name, read, rows))
            sums.append(logs.transpose(1, 2))  # (B, R, blocks)
        shares = torch.cat(sums, dim=-1).softmax(dim=-1).split([part.shape[-1] for part in sums], dim=-1)
        out = self._spread_heads(shares[0]) @ self._constant_values  # (B, H, N, s)
        for (name, read, rows), share in zip(reads, shares[1:], strict=True):
            share = share.transpose(1, 2) if rows is None else share.transpose(1, 2)[rows]
            part = self._spread_heads(self._grids[name].merge(read, share)) @ self._values[name]
            if rows is None:
                out += part
            else:
                out.index_add_(0, rows, part)
        out = out.transpose(1, 2).flatten(2) + self._bias  # (B, N, H * s)
        if self._heads > 1:
            out = self._cross.attention.out(out)
        return self._cross.finish(latents, out)

    def _asked(self, latents: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        q = _queries(self._cross, latents)  # (B, H, N, s)
        tables = {name: (q @ key).flatten(1, 2) for name, key in self._keys.items()}  # (B, R, U)
        blocks = {name: self._grids[name].queries(table) for name, table in tables.items()}
        return blocks, (q @ self._constant_keys).flatten(1, 2)

    def _spread_heads(self, rows: Tensor) -> Tensor:
        return rows.unflatten(1, (self._heads, -1))  # type: ignore[no-any-return]


class FixedQuery:
    """A cross-attend whose queries (N, D) never change, over inputs without positions: equal to its `CrossAttend`."""

    def __init__(self, cross: CrossAttend, queries: Tensor) -> None:
        self._cross, self._queries = cross, queries
        key, value, bias = _folded(cross)
        like = queries.dtype
        self._asked = (_queries(cross, queries[None].double()) @ key).to(like)  # (1, H, N, C)
        self._value, self._bias = value.to(like), bias.to(like)

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, N, D) from inputs (B, M, C)."""
        norm = self._cross.input_norm
        tokens = F.layer_norm(inputs, norm.normalized_shape, eps=norm.eps)[:, None]  # (B, 1, M, C)
        shares = (self._asked @ tokens.mT).softmax(dim=-1)  # (B, H, N, M)
        out = (shares @ tokens @ self._value).transpose(1, 2).flatten(2) + self._bias
        if self._cross.attention.heads > 1:
            out = self._cross.attention.out(out)
        return self._cross.finish(self._queries.expand(len(inputs), -1, -1), out)


def _queries(cross: CrossAttend, queries: Tensor) -> Tensor:
    """(B, H, N, W / H), in the type of `queries`, whatever that of the weights."""
    norm, linear = cross.query_norm, cross.attention.query
    like = queries.dtype
    normal = F.layer_norm(queries, norm.normalized_shape, norm.weight.to(like), norm.bias.to(like), norm.eps)
    q = F.linear(normal, linear.weight.to(like), linear.bias.to(like))
    return q.unflatten(-1, (cross.attention.heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]


def _folded(cross: CrossAttend) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (H, W / H, C), values (H, C, s) and the values' bias of a cross-attend, for tokens (x - mean) / sigma.

    The normalisation's weights, its mean and 1 / sqrt(W / H) are in them; with one head the output projection too, and
    s is the queries' width; else s is W / H. In float64.
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
