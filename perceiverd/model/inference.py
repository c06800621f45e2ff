"""A Perceiver ready to score windows: whatever doesn't depend on a window is worked out once, when it is made.

Gives the logits of the network it is made from. That network must not change afterwards: some of its weights have been
folded into tables by then, and others are still read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from perceiverd.model.attention import CrossAttend, FactorisedCross, FixedQuery, TokenGrid
from perceiverd.model.encoding import position_factors
from perceiverd.model.perceiver import ByteArray, Perceiver, QueryHead

ROWS = 4096
"""At most so many latents go through the network together, or one window's: memory doesn't grow with the batch, and
what a layer leaves for the next is found in the cache."""


class Inference:
    """Logits (B, classes) of a network in evaluation mode, equal to those of `Perceiver.forward`.

    Cross-attends are factorised where that is less to compute: nearly always, but for many heads over wide content.
    """

    @torch.inference_mode()
    def __init__(self, network: Perceiver, factorised: bool | None = None) -> None:
        """`factorised`: whether to use that form; None is where it pays."""
        trunk, latents, tokens = network.trunk, network.latents, network.bytes
        self._windows = max(1, ROWS // trunk.latents)
        self._grids = token_grids(tokens, trunk.latents * trunk.cross_heads)
        turns = range(trunk.cross_attends)
        crosses = [cast(CrossAttend, network.crosses[min(turn, len(network.crosses) - 1)]) for turn in turns]
        pays = factorised_cost(crosses[0], self._grids) < plain_cost(crosses[0], self._grids)
        self.factorised = pays if factorised is None else factorised
        # Of a network that is factorised only parts are kept, so that its table of positions, a row for every token,
        # is gone with it.
        self._plain = None if self.factorised else network
        if not self.factorised:
            self._grids = {}
            return
        self._latents, self._blocks, self._stems, self._head = latents, network.blocks, tokens.stems, network.head
        constants = latents.new_zeros(0, tokens.width) if tokens.constants is None else tokens.constants
        self._eps = crosses[0].input_norm.eps
        self._crosses = [
            FactorisedCross(cross, self._grids, constants, None if turn else latents)
            for turn, cross in enumerate(crosses)
        ]
        for grid in self._grids.values():
            grid.settle(latents)
        head = network.head
        self._query = FixedQuery(head.attend, head.query) if isinstance(head, QueryHead) else None

    @torch.inference_mode()
    def __call__(self, contents: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits (B, classes); see `Perceiver.forward`. A masked token is not even looked at."""
        score = self._plain or self._score
        batch = len(next(iter(contents.values())))
        parts = []
        for first in range(0, batch, self._windows):
            rows = slice(first, first + self._windows)
            part = {name: content[rows] for name, content in contents.items()}
            parts.append(score(part, {name: here[rows] for name, here in (present or {}).items()}))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _score(self, contents: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        keys = self._keys(contents, present)
        latents = self._latents.expand(len(next(iter(contents.values()))), -1, -1)
        for turn, cross in enumerate(self._crosses):
            latents = cross(latents, keys)
            for layer in self._blocks[min(turn, len(self._blocks) - 1)]:  # type: ignore[attr-defined]
                latents = layer(latents)
        pooled = self._query(latents)[:, 0] if self._query else latents.mean(dim=1)
        return self._head.out(pooled)  # type: ignore[no-any-return]

    def _keys(
        self, contents: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """The tokens that are there as keys, and of which windows they are (None: of all)."""
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, grid in self._grids.items():
            if (content := contents.get(name)) is None:
                continue
            rows = None
            if (here := present.get(name)) is not None and not bool(here.all()):
                rows = here.nonzero()[:, 0]
                if not len(rows):
                    continue
                content = content[rows]
            content = self._stems[name](content) if name in self._stems else content
            found[name] = grid.keys(content, self._eps), rows
        return found


def token_grids(tokens: ByteArray, rows: int) -> dict[str, TokenGrid]:
    """The modalities of a byte array, each on its grid, for so many rows of queries."""
    found = {}
    for modality in tokens.modalities:
        content, padding = modality.content, tokens.padding[modality.name].double()
        spread = padding.new_zeros(tokens.width, content + sum(modality.grid))
        spread[:content, :content] = torch.eye(content)
        spread[content : modality.width, content:] = position_factors(modality)
        # Of the ones on each axis there is always one: the first axis carries the modality's channels too.
        spread[modality.width :, content : content + modality.grid[0]] = padding[:, None]
        found[modality.name] = TokenGrid(modality.grid, content, spread, rows)
    return found


def plain_cost(cross: CrossAttend, grids: Mapping[str, TokenGrid]) -> float:
    """Multiply-adds of a cross-attend that project every token, score it and sum it up."""
    attention = cross.attention
    width, channels = attention.key.weight.shape
    tokens, rows = sum(grid.tokens for grid in grids.values()), next(iter(grids.values())).rows
    return float(tokens * 2 * width * (channels + rows // attention.heads))


def factorised_cost(cross: CrossAttend, grids: Mapping[str, TokenGrid]) -> float:
    """The same of its factorised form: keys of few channels, one row for each query and head, tables and blocks."""
    width = cross.attention.key.weight.shape[0] // cross.attention.heads
    return sum(grid.cost + 2 * grid.rows * width * grid.spread.shape[1] for grid in grids.values())
