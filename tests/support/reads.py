"""Grids to read, and what the plain form reads from them in float64, for the tests of all readers."""

from __future__ import annotations

import torch

from perceiverd.model.cuda.network import layout_of
from perceiverd.model.cuda.reading import Content, GridQueries, GridRead, GridTables, Layout, Reader, read_plainly
from perceiverd.model.geometry import Geometry, Modality, Trunk, Video
from perceiverd.model.inference import token_grids
from perceiverd.model.perceiver import Perceiver

ROWS = 37
"""Queries: more than one tile, and the last tile is not full."""


@torch.no_grad()
def grid(modality: Modality, device: str) -> GridTables:
    torch.manual_seed(1)
    network = Perceiver((modality,), Trunk(latents=5, width=8, cross_attends=1, layers=1, heads=2), 3).double()
    tables = token_grids(network.bytes, ROWS)[modality.name]
    return GridTables(tables, 1e-5, torch.empty(0, dtype=torch.float64, device=device))


def as_float32(tables: GridTables) -> GridTables:
    tables.fixed_mean, tables.fixed_deviation = tables.fixed_mean.float(), tables.fixed_deviation.float()
    return tables


def queries(tables: GridTables, windows: int, size: float, device: str) -> GridQueries:
    torch.manual_seed(2)
    drawn = size * torch.randn(windows, ROWS, tables.width, dtype=torch.float64)
    return GridQueries.of(drawn.to(device), tables)


def half_queries(exact: GridQueries) -> GridQueries:
    return GridQueries(exact.content.float(), tuple(axis.float() for axis in exact.axes))


def pixels(device: str, batch: int, missing: tuple[int, ...] = ()) -> tuple[Modality, Content]:
    """Windows of 3 x 2 frames of 35 x 33 pixels in patches of (2, 5, 3)."""
    video = Video(frames=6, fps=1, height=35, width=33, patch=(2, 5, 3), bands=3)
    geometry = Geometry(3, Trunk(latents=5, width=8, cross_attends=1, layers=1, heads=2), None, video)
    torch.manual_seed(3)
    frames = torch.randint(0, 256, (batch, 6, 35, 33, 3), dtype=torch.uint8)
    layout = layout_of(video.modality, geometry, is_stem=False)
    present = torch.tensor([window not in missing for window in range(batch)])
    moved = Layout(layout.tokens.to(device), layout.channels.to(device), layout.scale)
    return video.modality, Content(frames.to(device), moved, present.to(device))


def numbers(device: str, batch: int) -> tuple[Modality, Content]:
    """Windows of 5 x 19 tokens of 23 numbers."""
    modality = Modality("audio", (5, 19), patch=(23, 1), bands=2)
    torch.manual_seed(4)
    values = torch.randn(batch, 95, 23)
    layout = Layout(torch.arange(95, dtype=torch.int32) * 23, torch.arange(23, dtype=torch.int32))
    moved = Layout(layout.tokens.to(device), layout.channels.to(device))
    return modality, Content(values.to(device), moved, torch.ones(batch, dtype=torch.bool, device=device))


def both(
    modality: Modality, content: Content, reader: Reader, size: float = 1.0, windows: int = 1
) -> tuple[GridRead, GridRead]:
    """What the kernel reads, and what the plain form reads in float64."""
    device = str(content.values.device)
    tables = grid(modality, device)
    exact = queries(tables, windows, size, device)
    wanted = read_plainly(exact, tables, content)
    return reader(half_queries(exact), as_float32(tables), content), wanted


def assert_close(found: GridRead, wanted: GridRead, tolerance: float) -> None:
    assert found.values.isfinite().all()
    scale = wanted.values.abs().max()
    assert float((found.values - wanted.values).abs().max() / scale) < tolerance
    here = wanted.log_sum.isfinite()
    assert torch.equal(found.log_sum.isfinite(), here)
    difference = (found.log_sum - wanted.log_sum)[here].abs().max() / wanted.log_sum[here].abs().max()
    assert float(difference) < tolerance
