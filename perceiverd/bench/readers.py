"""The ways to read a grid of tokens, beside each other: our kernel in several tiles, PyTorch's library, the plain form.

Each is compared with the plain form in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from statistics import median

import msgspec
import torch

from perceiverd.bench import profiling
from perceiverd.model.card import Card
from perceiverd.model.cuda.devices import gpu_of
from perceiverd.model.cuda.network import layout_of
from perceiverd.model.cuda.reading import Content, GridQueries, GridTables, Layout, Reader, read_plainly
from perceiverd.model.geometry import Modality, Trunk
from perceiverd.model.inference import token_grids
from perceiverd.model.perceiver import Perceiver

TILES = ((16, 4), (32, 4), (32, 8), (64, 4), (64, 8), (128, 8), (128, 16))
"""Rows and warps of the kernel's tiles that are timed."""
SCORE_SPREAD = 3.0
"""Standard deviation of the scores: as large as those of trained models."""


class ReaderTiming(msgspec.Struct, frozen=True):
    """One reader on the largest grid of a model, batch 1."""

    name: str
    grid: str
    median_ms: float
    times: float
    """Its median divided by that of the first row."""
    error: float
    """Largest difference from float64, over the largest value."""
    note: str = ""


def reader_timings(card: Card, device: torch.device, half: torch.dtype | None, rounds: int) -> list[ReaderTiming]:
    """Time the readers on the largest grid whose content is read as it lies in memory; empty without such a grid."""
    modalities = [m for m in card.geometry.modalities if not m.stem and len(m.grid) > 1]
    if not modalities:
        return []
    modality = max(modalities, key=lambda m: m.tokens)
    with torch.inference_mode():
        queries, tables, content = _problem(card, modality, device)
        exact_tables = _tables(card, modality, device, torch.float64)
        exact = GridQueries(queries.content.double(), tuple(axis.double() for axis in queries.axes))
        wanted = read_plainly(exact, exact_tables, content).values
        found: list[ReaderTiming] = []
        for name, reader in _readers(device, half):
            try:
                read = reader(queries, tables, content).values
                error = float((read - wanted).abs().max() / wanted.abs().max())
                call = partial(reader, queries, tables, content)
                seconds = median(profiling.seconds_of(call, device) for _ in range(rounds))
            except Exception as fault:  # a tile may need more memory than a card has, a compiler may lack a part
                line = (str(fault).splitlines() or [type(fault).__name__])[0][:120]
                found.append(ReaderTiming(name, _size(modality), math.inf, math.inf, math.inf, line))
                continue
            first = found[0].median_ms / 1e3 if found else seconds
            found.append(ReaderTiming(name, _size(modality), round(seconds * 1e3, 4), round(seconds / first, 2), error))
    return found


def _readers(device: torch.device, half: torch.dtype | None) -> Iterator[tuple[str, Reader]]:
    if device.type == "cuda":
        try:
            from perceiverd.model.cuda.kernel import KernelReader, Tile
        except ImportError:
            pass
        else:
            used = Tile.of(half, gpu_of(device).capability)
            yield f"kernel, tile {used.rows} x {used.warps} warps *", KernelReader(half, used)
            for rows, warps in TILES:
                if (rows, warps) != (used.rows, used.warps):
                    yield f"kernel, tile {rows} x {warps} warps", KernelReader(half, Tile(rows, warps))
            from perceiverd.model.cuda.flex import FlexReader

            yield "flex_attention, compiled", FlexReader(half)
    yield "plain", read_plainly


def _problem(card: Card, modality: Modality, device: torch.device) -> tuple[GridQueries, GridTables, Content]:
    """Random queries of the model's size, and one window of noise."""
    trunk = card.geometry.trunk
    tables = _tables(card, modality, device, torch.float32)
    rows = trunk.latents * trunk.cross_heads
    generator = torch.Generator().manual_seed(0)
    # LN makes every token as long as the square root of its channels, so this is the spread of the scores.
    spread = SCORE_SPREAD / math.sqrt(tables.channels + tables.fixed)
    drawn = spread * torch.randn(1, rows, tables.width, generator=generator)
    layout = layout_of(modality, card.geometry, is_stem=False)
    size = modality.tokens * modality.values
    values = torch.randint(0, 256, (1, size), dtype=torch.uint8, generator=generator).to(device)
    moved = Layout(layout.tokens.to(device), layout.channels.to(device), 1 / 255)
    return GridQueries.of(drawn.to(device), tables), tables, Content(values, moved, values.new_ones(1).bool())


def _tables(card: Card, modality: Modality, device: torch.device, dtype: torch.dtype) -> GridTables:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Only the grid counts here, so the rest of the network is as small as can be.
        trunk = Trunk(latents=1, width=8, cross_attends=1, layers=0, heads=1)
        network = Perceiver((modality,), trunk, 1)
    grid = token_grids(network.bytes, card.geometry.trunk.latents)[modality.name]
    return GridTables(grid, 1e-5, torch.empty(0, dtype=dtype, device=device))


def _size(modality: Modality) -> str:
    return f"{' x '.join(map(str, modality.grid))} tokens of {modality.content}"
