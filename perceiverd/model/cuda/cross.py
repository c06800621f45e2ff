"""A cross-attend that reads each grid with a `Reader` and merges the results. It gives what `CrossAttend` gives.

Sizes are static and nothing waits for the device, so that a CUDA graph can hold it: windows without a modality are
masked, not left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from perceiverd.model.attention import CrossAttend
from perceiverd.model.cuda.reading import Content, GridQueries, GridTables, Reader
from perceiverd.model.factorised import TokenGrid, folded_projections, projected_queries

Queries = tuple[dict[str, GridQueries], Tensor]
"""Queries of each grid, and scores of the constants (B or 1, R, n)."""


class SeparableCrossAttend:
    """A cross-attend over token grids. Weights are folded in float64; `R`, the rows, is heads times latents."""

    def __init__(
        self,
        cross: CrossAttend,
        grids: Mapping[str, TokenGrid],
        tables: Mapping[str, GridTables],
        constants: Tensor,
        latents: Tensor | None,
        reader: Reader,
        half: torch.dtype | None,
    ) -> None:
        """`constants` (n, C): tokens that every window has. `latents` (N, D): give them if they are always the same.

        `half`: the type in which what was read is multiplied with the values' projection; None keeps that of `latents`.
        """
        self._cross, self._tables, self._reader = cross, tables, reader
        self._heads = cross.attention.heads
        key, value, bias = folded_projections(cross)
        weight = cross.attention.key.weight
        tokens = F.layer_norm(constants.double(), constants.shape[-1:], eps=cross.input_norm.eps)  # (n, C)
        self._values = {name: (grid.basis.mT @ value).to(half or weight.dtype) for name, grid in grids.items()}
        self._constant_values = (tokens @ value).to(half or weight.dtype)  # (H, n, s)
        self._bias = bias.to(weight)
        self._keys: dict[str, Tensor] = {}
        self._fixed: Queries | None = None
        if latents is None:
            self._keys = {name: (key @ grid.basis).to(weight) for name, grid in grids.items()}  # (H, s, U)
            self._constant_keys = (key @ tokens.mT).to(weight)  # (H, s, n)
        else:
            q = projected_queries(cross, latents[None].double())
            rows = {name: (q @ (key @ grid.basis)).flatten(1, 2).to(weight) for name, grid in grids.items()}
            self._fixed = self._in_parts(rows), (q @ (key @ tokens.mT)).flatten(1, 2).to(weight)

    def __call__(self, latents: Tensor, contents: Mapping[str, Content]) -> Tensor:
        """Latents (B, N, D) after reading; each window has at least one modality, unless there are constants."""
        queries, constant_scores = self._fixed or self._project(latents)
        reads = {name: self._reader(queries[name], self._tables[name], content) for name, content in contents.items()}
        log_sums = [constant_scores.expand(len(latents), -1, -1)]  # (B, R, n)
        log_sums += [read.log_sum[..., None] for read in reads.values()]  # (B, R, 1)
        sizes = [each.shape[-1] for each in log_sums]
        constant_shares, *shares = torch.cat(log_sums, dim=-1).softmax(dim=-1).split(sizes, dim=-1)
        out = self._projected(constant_shares, self._constant_values)
        for (name, read), share in zip(reads.items(), shares, strict=True):
            out = out + self._projected(read.values * share, self._values[name])
        out = out.transpose(1, 2).flatten(2) + self._bias  # (B, N, H * s)
        if self._heads > 1:
            out = self._cross.attention.out(out)
        return self._cross.finish(latents, out)

    def _projected(self, rows: Tensor, values: Tensor) -> Tensor:
        """(B, H, N, s) from rows (B, R, channels) and values (H, channels, s)."""
        found: Tensor = rows.unflatten(1, (self._heads, -1)).to(values.dtype) @ values
        return found.to(rows.dtype)

    def _project(self, latents: Tensor) -> Queries:
        q = projected_queries(self._cross, latents)  # (B, H, N, W / H)
        q = q.to(latents.dtype)
        rows = {name: (q @ key).flatten(1, 2) for name, key in self._keys.items()}  # (B, R, U)
        return self._in_parts(rows), (q @ self._constant_keys).flatten(1, 2)

    def _in_parts(self, rows: Mapping[str, Tensor]) -> dict[str, GridQueries]:
        return {name: GridQueries.of(queries, self._tables[name]) for name, queries in rows.items()}
