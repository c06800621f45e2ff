"""Nodes of cross-attends in both forms. `attention` has the plain form, `factorised` explains the other one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from perceiverd.model.blocks import Blocks, cross_width, token_width
from perceiverd.model.geometry import Geometry, Modality, Trunk
from perceiverd.model.graph.builder import GraphBuilder, Value
from perceiverd.model.graph.folding import Folded, folded_projections, projected_queries
from perceiverd.model.graph.layers import (
    attend,
    batch_of,
    expand,
    layer_norm,
    linear,
    merge_heads,
    mlp,
    split_heads,
)
from perceiverd.model.tables import position_factors

MAX_SCORES = 1 << 22
"""Scores of one window that are computed at once: 16 MB, which a cache holds between two operators."""


class CrossAttends(Protocol):
    """Reads the tokens of a window, once for each cross-attend."""

    def read(self, name: str, latents: Value, *, fixed: bool) -> Value:
        """Rows (B * N, D) that the cross-attend of this name reads for latents, rows (N, D) if `fixed`."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What both forms need of a geometry."""

    latents: int
    width: int
    heads: int
    across: int
    """Query, key and value channels."""
    token: int
    """Channels of a token."""
    constants: int

    @classmethod
    def of(cls, geometry: Geometry) -> Sizes:
        trunk = geometry.trunk
        token = token_width(geometry.modalities, trunk)
        return cls(
            trunk.latents,
            trunk.width,
            trunk.cross_heads,
            cross_width(geometry.modalities, trunk),
            token,
            trunk.constants,
        )

    @property
    def rows(self) -> int:
        """Rows of queries: heads times latents."""
        return self.heads * self.latents


def finish(
    g: GraphBuilder,
    queries: Value,
    read: Value,
    name: str,
    rows: int,
    width: int,
    trunk: Trunk,
    *,
    residual: bool = True,
) -> Value:
    """`attention.CrossAttend.finish` of rows (B * `rows`, width); `queries` may be those of one window."""
    if residual:
        together = g.node("Add", g.reshape(queries, -1, rows, width), g.reshape(read, -1, rows, width))
        read = g.reshape(together, -1, width)
    normal = layer_norm(g, read, f"{name}.mlp_norm", width)
    return g.node("Add", read, mlp(g, normal, f"{name}.mlp", width, trunk.widening, trunk.gelu))


class PlainCrossAttends:
    """Keys and values are projected for every token of a byte array."""

    def __init__(
        self, g: GraphBuilder, sizes: Sizes, modalities: tuple[Modality, ...], contents: Mapping[str, Value]
    ) -> None:
        """`contents`: (B, 1, M, K) of each modality that the graph has."""
        self._g, self._sizes = g, sizes
        self._tokens = sum(m.tokens for m in modalities) + sizes.constants
        self._batch = batch_of(g, contents[modalities[0].name])
        parts = [self._tokens_of(modality, contents[modality.name]) for modality in modalities]
        if sizes.constants:
            constants = g.weight("bytes.constants", sizes.constants, sizes.token)
            parts.append(expand(g, constants, self._batch, sizes.constants, sizes.token))
        self._bytes = g.concat(*parts, axis=1)  # (B, M, C)

    def _tokens_of(self, modality: Modality, content: Value) -> Value:
        """(B, M, C): content, positions, learned channels."""
        g, axes = self._g, len(modality.grid)
        positions: Value | None = None
        factors = np.split(position_factors(modality), np.cumsum(modality.grid)[:-1], axis=1)
        for axis, part in enumerate(factors):
            shape = [-1 if i == axis else 1 for i in range(axes)]
            features = g.floats(part.T.reshape(*shape, len(part)))
            positions = features if positions is None else g.node("Add", positions, features)
        assert positions is not None
        width = len(factors[0])
        parts = [g.reshape(content, -1, modality.tokens, modality.content)]
        parts.append(expand(g, g.reshape(positions, modality.tokens, width), self._batch, modality.tokens, width))
        if learned := self._sizes.token - modality.width:
            padding = g.weight(f"bytes.padding.{modality.name}", learned)
            parts.append(expand(g, padding, self._batch, modality.tokens, learned))
        else:
            g.weight(f"bytes.padding.{modality.name}", 0)
        return g.concat(*parts, axis=2)

    def read(self, name: str, latents: Value, *, fixed: bool) -> Value:
        g, n = self._g, self._sizes
        attention = f"{name}.attention"
        tokens = layer_norm(g, self._bytes, f"{name}.input_norm", n.token)
        rows = g.reshape(tokens, -1, n.token)
        key, value = (linear(g, rows, f"{attention}.{part}", n.token, n.across) for part in ("key", "value"))
        normal = layer_norm(g, latents, f"{name}.query_norm", n.width)
        query = linear(g, normal, f"{attention}.query", n.width, n.across)
        query = g.node("Mul", query, g.floats((n.across // n.heads) ** -0.5))
        read = attend(
            g,
            split_heads(g, query, n.latents, n.heads, n.across),
            split_heads(g, key, self._tokens, n.heads, n.across, keys=True),
            split_heads(g, value, self._tokens, n.heads, n.across),
        )
        return linear(g, merge_heads(g, read, n.across), f"{attention}.out", n.across, n.width)


class FactorisedCrossAttends:
    """No byte array, no keys and no values: see `factorised`."""

    def __init__(
        self,
        g: GraphBuilder,
        sizes: Sizes,
        modalities: tuple[Modality, ...],
        contents: Mapping[str, Value],
        blocks: Mapping[str, Blocks],
    ) -> None:
        """`contents`: (B, blocks, tokens of a block, K) of each modality that the graph has."""
        self._g, self._sizes = g, sizes
        self._batch = batch_of(g, contents[modalities[0].name])
        self._grids = {m.name: BlockedTokens(g, sizes, m, blocks[m.name], contents[m.name]) for m in modalities}

    def read(self, name: str, latents: Value, *, fixed: bool) -> Value:
        g, n = self._g, self._sizes
        folded = folded_projections(g, name, n.token, n.across, n.heads, n.width)
        double = projected_queries(g, name, latents, n.width, n.across, n.heads, n.latents, exact=fixed)
        log_sums, constants = [], ""
        if n.constants:
            tokens = g.node(
                "LayerNormalization",
                g.weight64("bytes.constants", n.constants, n.token),
                g.constant(np.ones(n.token)),
                axis=-1,
                epsilon=1e-5,
            )
            keys = g.node("MatMul", folded.key, g.transpose(tokens, 1, 0))  # (H, s, n)
            scores = g.node("MatMul", double, keys if fixed else folded.single(g, keys))
            scores = g.reshape(folded.single(g, scores) if fixed else scores, -1, n.rows, n.constants)
            log_sums.append(expand(g, scores, self._batch, n.rows, n.constants))
            constants = folded.single(g, g.node("MatMul", tokens, folded.value))  # (H, n, s)
        reads: dict[str, Value] = {}
        for modality, grid in self._grids.items():
            queries = grid.block_queries(self._rows(grid, folded, double, fixed=fixed))
            reads[modality], log_sum = grid.attend(queries)
            log_sums.append(g.transpose(log_sum, 0, 2, 1))  # (B, R, blocks)
        counts = [*([n.constants] if n.constants else []), *(grid.count for grid in self._grids.values())]
        shares = g.split(g.node("Softmax", g.concat(*log_sums, axis=2), axis=-1), *counts, axis=2)
        out = ""
        if n.constants:
            out = g.node("MatMul", self._heads(shares[0], n.constants), constants)
            shares = shares[1:]
        for (modality, grid), share in zip(self._grids.items(), shares, strict=True):
            merged = self._heads(grid.merge(reads[modality], g.transpose(share, 0, 2, 1)), grid.channels)
            value = folded.single(g, grid.fold_value(folded))  # (H, U, s)
            part = g.node("MatMul", merged, value)  # (B, H, N, s)
            out = g.node("Add", out, part) if out else part
        rows = merge_heads(g, out, folded.outputs)
        rows = g.node("Add", rows, folded.single(g, folded.bias))
        return linear(g, rows, f"{name}.attention.out", n.across, n.width) if n.heads > 1 else rows

    def _rows(self, grid: BlockedTokens, folded: Folded, queries: Value, *, fixed: bool) -> Value:
        """(B or 1, R, content + sum of the grid)."""
        g, key = self._g, grid.fold_key(folded)
        rows = g.node("MatMul", queries, key if fixed else folded.single(g, key))
        rows = g.reshape(rows, -1, self._sizes.rows, grid.channels)
        return folded.single(g, rows) if fixed else rows

    def _heads(self, rows: Value, channels: int) -> Value:
        return self._g.reshape(rows, -1, self._sizes.heads, self._sizes.latents, channels)


class BlockedTokens:
    """The tokens u / sigma of one modality, block by block: `factorised.TokenGrid`."""

    def __init__(self, g: GraphBuilder, sizes: Sizes, modality: Modality, blocks: Blocks, content: Value) -> None:
        self._g, self._rows, self._blocks = g, sizes.rows, blocks
        self.count, self.size = math.prod(blocks.counts), math.prod(blocks.block)
        """Blocks, and tokens of a block."""
        self.channels = blocks.content + sum(blocks.grid)
        """Channels of u before it is cut to a block."""
        self._fixed = sizes.token - blocks.content
        """Channels of a token after its content."""
        learned = sizes.token - modality.width
        places = np.zeros((1, sum(blocks.grid)))
        places[0, : blocks.grid[0]] = 1  # every token has one place on the first axis: it carries the learned channels
        factors = g.constant(position_factors(modality).astype(np.float64))
        padding = g.reshape(g.weight64(f"bytes.padding.{modality.name}", learned), learned, 1)
        parts = [factors, g.node("Mul", padding, g.constant(places))] if learned else [factors]
        self._basis = g.concat(*parts, axis=0)  # (C - K, sum of the grid), float64
        self._tokens = self._normalised(content)

    def fold_key(self, folded: Folded) -> Value:
        """(H, s, U), float64."""
        return self._fold(folded.key, axis=2)

    def fold_value(self, folded: Folded) -> Value:
        """(H, U, s), float64."""
        return self._g.transpose(self._fold(self._g.transpose(folded.value, 0, 2, 1), axis=2), 0, 2, 1)

    def _fold(self, weights: Value, axis: int) -> Value:
        """(H, s, U): the channels of the content as they are, those after it times the basis."""
        g = self._g
        if not self._fixed:
            return weights
        content, fixed = g.split(weights, self._blocks.content, self._fixed, axis=axis)
        return g.concat(content, g.node("MatMul", fixed, self._basis), axis=axis)

    def _normalised(self, content: Value) -> Value:
        """(B, blocks, tokens of a block, width) of content (B, blocks, tokens of a block, K)."""
        g, k, fixed = self._g, self._blocks.content, self._fixed
        fixed_mean, fixed_deviation = self._fixed_sums()
        total = g.reduce("Sum", content, -1, keep=True)
        mean = g.node("Mul", total, g.floats(1 / k))
        square = g.reduce("SumSquare", content, -1, keep=True)
        deviation = g.node("Add", g.node("Sub", square, g.node("Mul", total, mean)), fixed_deviation)
        apart = g.node("Sub", mean, fixed_mean)
        apart = g.node("Mul", g.node("Mul", apart, apart), g.floats(k * fixed / (k + fixed)))
        deviation = g.node("Max", g.node("Add", deviation, apart), g.floats(0.0))
        variance = g.node("Add", g.node("Mul", deviation, g.floats(1 / (k + fixed))), g.floats(1e-5))
        scale = g.node("Reciprocal", g.node("Sqrt", variance))  # (B, blocks, tokens, 1)
        one_hot = g.floats(self._one_hot()[None, None])
        return g.concat(g.node("Mul", content, scale), g.node("Mul", one_hot, scale), axis=3)

    def _fixed_sums(self) -> tuple[Value, Value]:
        """(blocks, tokens of a block, 1): mean and squared deviation of each token's channels after its content."""
        g, blocks = self._g, self._blocks
        if not self._fixed:
            return g.floats(0.0), g.floats(0.0)
        total = self._outer_sum(g.reduce("Sum", self._basis, 0))
        square = self._outer_sum(g.reduce("SumSquare", self._basis, 0))
        mean = g.node("Mul", total, g.constant(np.float64(1 / self._fixed).reshape(1)))
        deviation = g.node("Sub", square, g.node("Mul", total, mean))
        axes = range(len(blocks.grid))
        order = [*(2 * axis for axis in axes), *(2 * axis + 1 for axis in axes)]
        sizes = [n for pair in zip(blocks.counts, blocks.block, strict=True) for n in pair]
        return tuple(  # type: ignore[return-value]
            g.reshape(g.transpose(g.reshape(g.cast(each, 1), *sizes), *order), self.count, self.size, 1)
            for each in (mean, deviation)
        )

    def _outer_sum(self, places: Value) -> Value:
        """(*grid): for each token, the sum of one number per axis."""
        g, grid = self._g, self._blocks.grid
        parts = g.split(places, *grid, axis=0)
        total = ""
        for axis, part in enumerate(parts):
            part = g.reshape(part, *(-1 if i == axis else 1 for i in range(len(grid))))
            total = g.node("Add", total, part) if total else part
        return total

    def _one_hot(self) -> np.ndarray:
        """(tokens of a block, width - content)."""
        blocks = self._blocks
        places = np.stack(np.meshgrid(*map(np.arange, blocks.block), indexing="ij"), axis=-1).reshape(self.size, -1)
        parts = [np.eye(n, dtype=np.float32)[places[:, axis]] for axis, n in enumerate(blocks.block)]
        return np.concatenate([*parts, np.zeros((self.size, blocks.padding), np.float32)], axis=1)

    def block_queries(self, rows: Value) -> Value:
        """(B or 1, blocks, R, width) of rows (B or 1, R, U): the channels that each block's tokens use."""
        g, blocks = self._g, self._blocks
        content, *axes = g.split(rows, blocks.content, *blocks.grid, axis=2)
        parts = [self._for_each_block(content, None)]
        parts += [self._for_each_block(part, axis) for axis, part in enumerate(axes)]
        if blocks.padding:
            zeros = g.floats(np.zeros((*(1,) * (len(blocks.grid) + 1), 1, blocks.padding)))
            parts.append(g.node("Expand", zeros, self._block_shape(rows, blocks.padding)))
        return g.reshape(g.concat(*parts, axis=-1), -1, self.count, self._rows, blocks.width)

    def _for_each_block(self, part: Value, axis: int | None) -> Value:
        """(B or 1, *counts, R, channels): the content's channels, or those of a block's places on `axis`."""
        g, blocks = self._g, self._blocks
        counts, channels = [1] * len(blocks.grid), blocks.content
        if axis is not None:
            counts[axis], channels = blocks.counts[axis], blocks.block[axis]
            part = g.transpose(g.reshape(part, -1, self._rows, counts[axis], channels), 0, 2, 1, 3)
        whole = self._block_shape(part, channels)
        return g.node("Expand", g.reshape(part, -1, *counts, self._rows, channels), whole)

    def _block_shape(self, like: Value, channels: int) -> Value:
        g = self._g
        return g.concat(batch_of(g, like), g.ints(*self._blocks.counts, self._rows, channels), axis=0)

    def attend(self, queries: Value) -> tuple[Value, Value]:
        """What each block gives (B, blocks, R, width), and the logarithms of its softmax's sums (B, blocks, R).

        A few blocks at a time: the scores of all would be the largest tensor by far.
        """
        g = self._g
        step = max(1, MAX_SCORES // (self._rows * self.size))
        sizes = [min(step, self.count - at) for at in range(0, self.count, step)]
        reads, log_sums = [], []
        for some, tokens in zip(g.split(queries, *sizes, axis=1), g.split(self._tokens, *sizes, axis=1), strict=True):
            scores = g.node("MatMul", some, g.transpose(tokens, 0, 1, 3, 2))  # (B, step, R, tokens of a block)
            shares = g.node("Softmax", scores, axis=-1)
            # log(sum(exp(s))) = s - log(share) for each score s; the largest one has the most accurate share.
            best, share = (g.reduce("Max", each, -1) for each in (scores, shares))
            log_sums.append(g.node("Sub", best, g.node("Log", share)))
            reads.append(g.node("MatMul", shares, tokens))
        return g.concat(*reads, axis=1), g.concat(*log_sums, axis=1)

    def merge(self, read: Value, shares: Value) -> Value:
        """(B, R, U): what the blocks gave (B, blocks, R, width), weighted by shares (B, blocks, R)."""
        g, blocks = self._g, self._blocks
        weighted = g.node("Mul", read, g.node("Unsqueeze", shares, g.ints(-1)))
        sizes = [blocks.content, *blocks.block, *([blocks.padding] if blocks.padding else [])]
        content, *axes = g.split(weighted, *sizes, axis=3)
        parts = [g.reduce("Sum", content, 1)]
        for axis, part in enumerate(axes[: len(blocks.grid)]):
            part = g.reshape(part, -1, *blocks.counts, self._rows, blocks.block[axis])
            others = [1 + other for other in range(len(blocks.grid)) if other != axis]
            part = g.reduce("Sum", part, *others) if others else part  # (B, blocks on the axis, R, b)
            parts.append(g.reshape(g.transpose(part, 0, 2, 1, 3), -1, self._rows, blocks.grid[axis]))
        return g.concat(*parts, axis=2)
