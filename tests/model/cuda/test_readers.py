"""Which reader is chosen, and that a kernel that is wrong or does not compile is not used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perceiverd.model.card import DEFAULT, load_card
from perceiverd.model.cuda import readers
from perceiverd.model.cuda.readers import ReadShape, read_shapes, reader_for, trial, tried_kernel
from perceiverd.model.cuda.reading import Content, GridQueries, GridRead, GridTables, Reader, read_plainly

CPU = torch.device("cpu")
SHAPES = (
    ReadShape((2, 3, 17), 5, fixed=19, rows=37, is_pixels=True, own_queries=False),
    ReadShape((3, 11), 7, fixed=8, rows=21, is_pixels=False, own_queries=True),
)


def test_the_cpu_reads_plainly() -> None:
    """The kernel is for GPUs."""
    assert reader_for(CPU, None, SHAPES) == (read_plainly, "plain")


def test_the_shapes_of_a_model_are_tried() -> None:
    """Each grid of the bundled model has a shape, with the rows and channels of its first cross-attend."""
    geometry = load_card(DEFAULT).geometry
    shapes = read_shapes(geometry)
    assert {shape.grid for shape in shapes} == {modality.grid for modality in geometry.modalities}
    assert all(shape.rows == geometry.trunk.latents * geometry.trunk.cross_heads for shape in shapes)


def test_a_tile_that_does_not_fit_makes_room_for_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a card's shared memory is too small for a tile, the next smaller one is tried; in the end, none is used."""
    kernel = pytest.importorskip("perceiverd.model.cuda.kernel", reason="needs Triton")
    from triton.runtime.errors import OutOfResources

    tried: list[int] = []
    fits = 32

    def limited(reader: Reader, device: torch.device, shape: ReadShape) -> float:
        tried.append(reader._tile.rows)  # type: ignore[attr-defined]
        if tried[-1] > fits:
            raise OutOfResources(131_072, 101_376, "shared memory")
        return 0.0

    monkeypatch.setattr(readers, "trial", limited)
    found, fault = tried_kernel(CPU, torch.bfloat16, (9, 0), SHAPES)
    assert isinstance(found, kernel.KernelReader) and not fault and tried == [64, 32, 32]
    fits = 0
    found, fault = tried_kernel(CPU, torch.bfloat16, (9, 0), SHAPES)
    assert found is None and "shared memory" in fault


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError("Triton Error [CUDA]: out of memory")]
)
def test_short_memory_is_no_fault_of_the_kernel(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised, so that an engine that is built again later has the kernel."""
    pytest.importorskip("triton", reason="needs Triton, which has no wheel for this machine")

    def short(*_: object) -> float:
        raise error

    monkeypatch.setattr(readers, "trial", short)
    with pytest.raises(RuntimeError, match="out of memory"):
        tried_kernel(CPU, None, (8, 0), SHAPES)


def test_the_trial_measures_the_distance() -> None:
    """The plain form is not off; one with an error of a tenth is off by a tenth."""

    def wrong(queries: GridQueries, tables: GridTables, content: Content) -> GridRead:
        read = read_plainly(queries, tables, content)
        return replace(read, values=1.1 * read.values)

    for shape in SHAPES:
        assert trial(read_plainly, CPU, shape) == 0
        assert trial(wrong, CPU, shape) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="the kernel is compiled here")
def test_the_kernel_passes_the_trial() -> None:
    """In the interpreter, with products in float32 and float16."""
    pytest.importorskip("perceiverd.model.cuda.kernel", reason="needs Triton")
    for half in (None, torch.float16):
        assert tried_kernel(CPU, half, (9, 0), SHAPES)[0] is not None


COMPILE = """
import json, torch, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from perceiverd.model.cuda import kernel
sizes = dict(ROWS=784, N0=16, N1=56, X=56, K=48, FIXED=656, BLOCK_X=64, BLOCK_K=64, query_windows=0)
types = dict(values="*u8", token_places="*i32", channel_places="*i32", present="*i8", window_size="i32", splits="i32",
             scale="fp32", pooled="fp32", eps="fp32")
names = kernel._read.arg_names
for capability, half in ((90, torch.bfloat16), (80, torch.bfloat16)):
    tile = kernel.Tile.of(half, divmod(capability, 10))
    fixed = sizes | {"TILE": tile.rows, "TYPE": kernel.TYPES[half or torch.float32]}
    signature = {name: "constexpr" if name in fixed else types.get(name, "*fp32") for name in names}
    source = ASTSource(kernel._read, signature, {(names.index(name),): value for name, value in fixed.items()})
    made = triton.compile(source, GPUTarget("cuda", capability, 32), {"num_warps": tile.warps})
    print(capability, len(made.asm["cubin"]) > 0, "wgmma" in made.asm["ptx"], "mma.sync" in made.asm["ptx"])
"""


def test_the_kernel_compiles_for_cards_that_are_not_here(tmp_path: Path) -> None:
    """Triton's own compiler makes machine code for Hopper and Ampere, which uses their tensor cores."""
    pytest.importorskip("triton", reason="needs Triton, which has no wheel for this machine")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["90 True True False", "80 True False True"]
