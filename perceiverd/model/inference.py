"""A Perceiver ready to score windows: what does not depend on a window is computed once, when it is made.

It gives the logits of the network it is made from. That network must not change afterwards: some of its weights are
folded into tables, and others are still read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from perceiverd.model.attention import CrossAttend
from perceiverd.model.blocks import is_factorised_cheaper
from perceiverd.model.encoding import position_factors
from perceiverd.model.factorised import FactorisedCrossAttend, FixedQueryCrossAttend, GridTokens, TokenGrid
from perceiverd.model.perceiver import ByteArray, Perceiver, QueryHead
from perceiverd.model.senses import SensesHead

MAX_LATENTS = 4096
"""Latents that go through the network together, unless one window has more. So memory does not grow with the batch, and
each layer finds the output of the one before in the cache."""


class Inference:
    """Logits (B, classes) of a network in evaluation mode, equal to those of `Perceiver.forward`.

    Cross-attends are factorised if that is cheaper. It nearly always is, except for many heads over wide content.
    """

    @torch.inference_mode()
    def __init__(self, network: Perceiver, factorised: bool | None = None) -> None:
        """`factorised`: whether to use that form; None uses it if it is cheaper."""
        trunk, byte_array = network.trunk, network.bytes
        self._windows = max(1, MAX_LATENTS // trunk.latents)
        """Windows that go through the network together."""
        indices = [min(index, len(network.crosses) - 1) for index in range(trunk.cross_attends)]
        crosses = [cast(CrossAttend, network.crosses[index]) for index in indices]
        grids = token_grids(byte_array, trunk.latents * trunk.cross_heads)
        cheaper = is_factorised_cheaper(byte_array.modalities, trunk)
        self.factorised = cheaper if factorised is None else factorised
        self._score: _Factorised | Perceiver = _Factorised(network, crosses, grids) if self.factorised else network

    @torch.inference_mode()
    def __call__(self, contents: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits (B, classes); see `Perceiver.forward`. The values of a masked token have no effect."""
        batch = len(next(iter(contents.values())))
        logits = []
        for first in range(0, batch, self._windows):
            rows = slice(first, first + self._windows)
            part = {name: content[rows] for name, content in contents.items()}
            logits.append(self._score(part, {name: here[rows] for name, here in (present or {}).items()}))
        return torch.cat(logits) if len(logits) > 1 else logits[0]


class _Factorised:
    """A network with factorised cross-attends.

    It keeps only parts of the network, so that the network's table of positions, a row per token, can be freed.
    """

    def __init__(self, network: Perceiver, crosses: list[CrossAttend], grids: dict[str, TokenGrid]) -> None:
        latents, byte_array, head = network.latents, network.bytes, network.head
        self._latents, self._blocks, self._stems, self._head = latents, network.blocks, byte_array.stems, head
        self._grids, self._eps = grids, crosses[0].input_norm.eps
        constants = latents.new_zeros(0, byte_array.width) if byte_array.constants is None else byte_array.constants
        # Only the first cross-attend always has the same queries.
        self._crosses = [
            FactorisedCrossAttend(cross, grids, constants, None if index else latents)
            for index, cross in enumerate(crosses)
        ]
        for grid in grids.values():
            grid.finish(latents)
        self._senses = head if isinstance(head, SensesHead) else None
        self._query = FixedQueryCrossAttend(head.attend, head.query) if isinstance(head, QueryHead) else None

    def __call__(self, contents: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        batch = len(next(iter(contents.values())))
        inputs, pooled = self._inputs(contents, present)
        if self._senses and not self._senses.reads_latents(pooled):
            return self._senses(None, pooled, present)  # type: ignore[no-any-return]
        latents = self._latents.expand(batch, -1, -1)
        for index, cross in enumerate(self._crosses):
            latents = cross(latents, inputs)
            for layer in self._blocks[min(index, len(self._blocks) - 1)]:  # type: ignore[attr-defined]
                latents = layer(latents)
        if self._senses:
            return self._senses(latents, pooled, present)  # type: ignore[no-any-return]
        read = self._query(latents)[:, 0] if self._query else latents.mean(dim=1)
        return self._head.out(read)  # type: ignore[no-any-return] # (B, classes)

    def _inputs(
        self, contents: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, GridTokens], dict[str, Tensor]]:
        """Of each modality that at least one window has: its tokens, and the mean of its stem's output.

        The mean has a row for each window of the batch; rows of windows without the modality are zero.
        """
        found, pooled = {}, {}
        for name, grid in self._grids.items():
            if (content := contents.get(name)) is None:
                continue
            windows = None
            if (here := present.get(name)) is not None and not bool(here.all()):
                windows = here.nonzero()[:, 0]
                if not len(windows):
                    continue
                content = content[windows]
            if name in self._stems:
                content = self._stems[name].convolve(content)  # type: ignore[operator]
                pooled[name] = _for_all(content.mean(dim=1), windows, len(contents[name]))
                content = self._stems[name].norm(content)  # type: ignore[operator]
            found[name] = GridTokens(grid.normalised_tokens(content, self._eps), windows)
        return found, pooled


def _for_all(rows: Tensor, windows: Tensor | None, batch: int) -> Tensor:
    """Rows (batch, channels), zero except those of `windows`; the rows themselves if `windows` is None."""
    if windows is None:
        return rows
    return rows.new_zeros(batch, rows.shape[1]).index_copy_(0, windows, rows)


def token_grids(byte_array: ByteArray, rows: int) -> dict[str, TokenGrid]:
    """The grid of each modality of a byte array; `rows`: the number of queries times heads that will read it."""
    found = {}
    for modality in byte_array.modalities:
        content, padding = modality.content, byte_array.padding[modality.name].double()
        basis = padding.new_zeros(byte_array.width, content + sum(modality.grid))
        basis[:content, :content] = torch.eye(content)
        basis[content : modality.width, content:] = position_factors(modality)
        # Every token has exactly one place on the first axis, so the places there also carry the modality's channels.
        basis[modality.width :, content : content + modality.grid[0]] = padding[:, None]
        found[modality.name] = TokenGrid(modality.grid, content, basis, rows)
    return found
