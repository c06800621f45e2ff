"""Chooses how the latents read tokens on this device: with the kernel, or plainly if the kernel cannot run."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import shutil
import sysconfig
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from perceiverd.core.logs import log_event
from perceiverd.model.blocks import token_width
from perceiverd.model.cuda.devices import gpu_of
from perceiverd.model.cuda.reading import Content, GridQueries, GridTables, Layout, Reader, read_plainly
from perceiverd.model.factorised import TokenGrid
from perceiverd.model.faults import fault_of, first_line
from perceiverd.model.geometry import Geometry

logger = logging.getLogger("perceiverd.model")

ReaderName = Literal["kernel", "plain"]
TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.05, torch.float32: 1e-3}
"""How far the kernel's result may be from the plain one in the trial, over its largest value."""
SMALLER_TILES = ((32, 4), (16, 4))
"""Rows and warps that are tried if the usual tile needs more memory than a card has: shared memory is 64 to 228 kB."""


@dataclass(frozen=True, slots=True)
class ReadShape:
    """The sizes of one grid and its queries. They decide the kernel's machine code, and which memory it needs."""

    grid: tuple[int, ...]
    channels: int
    """Of a token's content."""
    fixed: int
    """Of a token beside the content."""
    rows: int
    """Queries: heads times latents."""
    is_pixels: bool
    """The content is uint8, otherwise float32."""
    own_queries: bool
    """Each window has queries of its own, as in every cross-attend but the first."""


def read_shapes(geometry: Geometry) -> tuple[ReadShape, ...]:
    """All that the cross-attends of a model read."""
    trunk = geometry.trunk
    width = token_width(geometry.modalities, trunk)
    return tuple(
        ReadShape(
            modality.grid,
            modality.content,
            width - modality.content,
            trunk.latents * trunk.cross_heads,
            is_pixels=modality.name == "video" and not modality.stem,
            own_queries=own,
        )
        for modality in geometry.modalities
        for own in ((False, True) if trunk.cross_attends > 1 else (False,))
    )


def reader_for(
    device: torch.device, half: torch.dtype | None, shapes: Sequence[ReadShape]
) -> tuple[Reader, ReaderName]:
    """The fastest reader that works here. `half`: the type of products; None is float32.

    The kernel is tried on numbers of these shapes first: it must compile, and give what the plain form gives. If not,
    one line in the log says why.
    """
    if device.type != "cuda":
        return read_plainly, "plain"
    if lack := kernel_lack():
        log_event(logger, logging.WARNING, "kernel-unusable", device=str(device), error=lack[0], do=lack[1])
        return read_plainly, "plain"
    reader, fault = tried_kernel(device, half, gpu_of(device).capability, shapes)
    if reader is None:
        log_event(logger, logging.WARNING, "kernel-unusable", device=str(device), error=fault, do="perceiverd doctor")
        return read_plainly, "plain"
    return reader, "kernel"


def tried_kernel(
    device: torch.device, half: torch.dtype | None, capability: tuple[int, int], shapes: Sequence[ReadShape]
) -> tuple[Reader | None, str]:
    """The kernel with the largest tile that works for all shapes; or None, and why the last one does not."""
    fault = ""
    try:
        from perceiverd.model.cuda.kernel import KernelReader, Tile
    except Exception as error:  # whatever a library raises that does not fit this torch or this system
        return None, first_line(error)
    for tile in dict.fromkeys((Tile.of(half, capability), *(Tile(*each) for each in SMALLER_TILES))):
        reader = KernelReader(half, tile)
        try:
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # Triton starts kernels there
                off = max((trial(reader, device, shape) for shape in shapes), default=0.0)
        except Exception as error:  # its compiler, C compiler and driver have no common error
            if fault_of(error) == "memory":  # nothing is wrong with the kernel; Triton has an error of its own for it
                raise
            fault = first_line(error)
            continue
        if off <= TOLERANCE[half or torch.float32]:
            return reader, ""
        fault = f"its results are off by {off:.2g}"
    return None, fault


def kernel_lack() -> tuple[str, str] | None:
    """What the kernel needs and this environment lacks, and what to do; None if nothing is missing."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed", "install the Triton that belongs to this torch, such as triton==3.7.1"
    if not (os.environ.get("CC") or any(shutil.which(each) for each in ("cc", "gcc", "clang"))):
        return "Triton needs a C compiler", "install gcc"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Triton needs Python's headers", "install python3-dev"
    return None


def trial(reader: Reader, device: torch.device, shape: ReadShape) -> float:
    """How far a reader is from the plain form on random numbers, over the largest value."""
    generator = torch.Generator().manual_seed(0)
    tables = _random_tables(shape, device, generator)
    spread = shape.channels**-0.5  # scores of about 1: larger ones would show the rounding of the products only
    queries = spread * torch.randn(1 + shape.own_queries, shape.rows, tables.width, generator=generator)
    size = (2, math.prod(shape.grid), shape.channels)
    values = torch.randn(size, generator=generator)
    if shape.is_pixels:
        values = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    places = torch.arange(size[1], dtype=torch.int32) * shape.channels
    channels = torch.arange(shape.channels, dtype=torch.int32)
    layout = Layout(places.to(device), channels.to(device), 1 / 255 if shape.is_pixels else 1.0)
    content = Content(values.to(device), layout, torch.tensor([True, False], device=device))
    parts = GridQueries.of(queries.to(device), tables)
    found, wanted = (each(parts, tables, content).values for each in (reader, read_plainly))
    return float((found - wanted).abs().max() / wanted.abs().max())


def _random_tables(shape: ReadShape, device: torch.device, generator: torch.Generator) -> GridTables:
    """Tables of tokens whose fixed channels are random; each of these belongs to one axis."""
    width = shape.channels + sum(shape.grid)
    basis = torch.zeros(shape.channels + shape.fixed, width, dtype=torch.float64)
    basis[: shape.channels, : shape.channels] = torch.eye(shape.channels)
    first = shape.channels
    for axis, places in enumerate(shape.grid):
        own = basis[shape.channels + axis :: len(shape.grid), first : first + places]
        own.copy_(torch.randn(own.shape, generator=generator))
        first += places
    return GridTables(TokenGrid(shape.grid, shape.channels, basis, shape.rows), 1e-5, torch.empty(0, device=device))
