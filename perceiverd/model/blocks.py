"""Which form of a cross-attend is cheaper, and into which blocks a grid of tokens is cut. Numbers only: loads no torch.

`factorised` explains what blocks are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from perceiverd.model.geometry import Modality, Trunk

CHANNEL_MULTIPLE = 8
"""Channels of u within a block are padded to a multiple of this: a kernel was a fifth slower with 71 than with 72."""
MERGE_COST = 120
"""Cost of merging one number of a block's result, in multiply-adds of a matrix product; a rough measurement."""

GRID_COST = 2e7
"""What the many small operators of the factorised form take for one grid, beside its products, in multiply-adds. Fitted
to both engines: with the bundled model's 132 tokens the form is slower by 0.6 ms, though it has fewer products."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the grid of one modality is cut."""

    grid: tuple[int, ...]
    block: tuple[int, ...]
    """Tokens of a block along each axis."""
    content: int
    """Channels of a token's content."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(n // b for n, b in zip(self.grid, self.block, strict=True))

    @property
    def width(self) -> int:
        """Channels of u within a block, zero padding included."""
        return block_width(self.content, self.block)

    @property
    def padding(self) -> int:
        """Channels of u that are always zero."""
        return self.width - self.content - sum(self.block)


def block_width(content: int, block: Sequence[int]) -> int:
    """Channels of u within a block, padded to a multiple of CHANNEL_MULTIPLE."""
    return -(-(content + sum(block)) // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


def choose_block(grid: Sequence[int], content: int, rows: int) -> tuple[int, ...]:
    """The cheapest block that divides the grid: large blocks have wide tokens, small ones need much merging."""
    divisors = [[b for b in range(1, n + 1) if n % b == 0] for n in grid]
    return min(product(*divisors), key=lambda block: block_cost(block, content, rows))


def block_cost(block: Sequence[int], content: int, rows: int) -> float:
    """Cost of one token in such a block, in multiply-adds: score and weighted sum for each row, and its merging."""
    return block_width(content, block) * rows * (2 + MERGE_COST / math.prod(block))


def is_factorised_cheaper(modalities: Sequence[Modality], trunk: Trunk) -> bool:
    """Whether the factorised form of a cross-attend costs less than the plain one."""
    return factorised_cost(modalities, trunk) < plain_cost(modalities, trunk)


def token_width(modalities: Sequence[Modality], trunk: Trunk) -> int:
    """Channels of a token in the byte array."""
    return max(modality.width for modality in modalities) + trunk.modality_channels


def cross_width(modalities: Sequence[Modality], trunk: Trunk) -> int:
    """Query, key and value channels of a cross-attend."""
    return trunk.cross_width or token_width(modalities, trunk)


def plain_cost(modalities: Sequence[Modality], trunk: Trunk) -> float:
    """Multiply-adds of a cross-attend that projects every token, scores it and adds it up."""
    width, channels = cross_width(modalities, trunk), token_width(modalities, trunk)
    tokens = sum(modality.tokens for modality in modalities)
    return float(tokens * 2 * width * (channels + trunk.latents))


def factorised_cost(modalities: Sequence[Modality], trunk: Trunk) -> float:
    """Multiply-adds of its factorised form: reading narrow tokens, the tables of each grid, and small operators."""
    width, rows = cross_width(modalities, trunk) // trunk.cross_heads, trunk.latents * trunk.cross_heads
    total = GRID_COST * len(modalities)
    for modality in modalities:
        block = choose_block(modality.grid, modality.content, rows)
        total += modality.tokens * block_cost(block, modality.content, rows)
        total += 2 * rows * width * (modality.content + sum(modality.grid))
    return total
