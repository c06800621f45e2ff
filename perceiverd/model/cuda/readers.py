"""Chooses how the latents read tokens on this device: with the kernel, or plainly if the kernel cannot run."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Literal

import torch

from perceiverd.core.logs import log_event
from perceiverd.model.cuda.devices import gpu_of
from perceiverd.model.cuda.reading import Content, GridQueries, GridTables, Layout, Reader, read_plainly
from perceiverd.model.factorised import TokenGrid

logger = logging.getLogger("perceiverd.model")

ReaderName = Literal["kernel", "plain"]
TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.05, torch.float32: 1e-3}
"""How far the kernel's result may be from the plain one in the trial, over its largest value."""
TRIAL_GRID, TRIAL_CHANNELS, TRIAL_ROWS = (2, 3, 17), 5, 70


def reader_for(device: torch.device, half: torch.dtype | None) -> tuple[Reader, ReaderName]:
    """The fastest reader that works here. `half`: the type of products; None is float32.

    The kernel is tried on small numbers first: it must compile, and give what the plain form gives. If not, one line in
    the log says why.
    """
    if device.type != "cuda":
        return read_plainly, "plain"
    if lack := kernel_lack():
        log_event(logger, logging.WARNING, "kernel-unusable", device=str(device), error=lack[0], do=lack[1])
        return read_plainly, "plain"
    try:
        from perceiverd.model.cuda.kernel import KernelReader, Tile

        reader = KernelReader(half, Tile.of(half, gpu_of(device).capability))
        with torch.cuda.device(device):  # Triton starts kernels on the current device
            off = trial(reader, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # its compiler, C compiler and driver have no common error
        first = (str(error).splitlines() or [type(error).__name__])[0]
        log_event(logger, logging.WARNING, "kernel-unusable", device=str(device), error=first, do="perceiverd doctor")
        return read_plainly, "plain"
    if not off <= TOLERANCE[half or torch.float32]:
        error_line = f"its results are off by {off:.2g}"
        log_event(logger, logging.WARNING, "kernel-unusable", device=str(device), error=error_line, do="report it")
        return read_plainly, "plain"
    return reader, "kernel"


def kernel_lack() -> tuple[str, str] | None:
    """What the kernel needs and this environment lacks, and what to do; None if nothing is missing."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed", "install the Triton that belongs to this torch, such as triton==3.7.1"
    if not (os.environ.get("CC") or any(shutil.which(each) for each in ("cc", "gcc", "clang"))):
        return "Triton needs a C compiler", "install gcc"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Triton needs Python's headers", "install python3-dev"
    return None


def trial(reader: Reader, device: torch.device) -> float:
    """How far a reader is from the plain form on random numbers, over the largest value."""
    generator = torch.Generator().manual_seed(0)
    width = TRIAL_CHANNELS + sum(TRIAL_GRID)
    basis = torch.eye(width, dtype=torch.float64)
    grid = TokenGrid(TRIAL_GRID, TRIAL_CHANNELS, basis, TRIAL_ROWS)
    tables = GridTables(grid, 1e-5, torch.empty(0, device=device))
    queries = torch.randn(1, TRIAL_ROWS, width, generator=generator).to(device)
    values = torch.randint(0, 256, (2, grid.tokens, TRIAL_CHANNELS), dtype=torch.uint8, generator=generator)
    places = torch.arange(grid.tokens, dtype=torch.int32) * TRIAL_CHANNELS
    layout = Layout(places.to(device), torch.arange(TRIAL_CHANNELS, dtype=torch.int32, device=device), 1 / 255)
    content = Content(values.to(device), layout, torch.tensor([True, False], device=device))
    parts = GridQueries.of(queries, tables)
    found, wanted = (each(parts, tables, content).values for each in (reader, read_plainly))
    return float((found - wanted).abs().max() / wanted.abs().max())
