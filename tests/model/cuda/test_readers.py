"""Which reader is chosen, and that a kernel that is wrong or does not compile is not used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perceiverd.model.cuda import readers
from perceiverd.model.cuda.readers import reader_for, trial
from perceiverd.model.cuda.reading import Content, GridQueries, GridRead, GridTables, read_plainly

CPU = torch.device("cpu")


def test_the_cpu_reads_plainly() -> None:
    """The kernel is for GPUs."""
    assert reader_for(CPU, None) == (read_plainly, "plain")


def test_the_trial_measures_the_distance() -> None:
    """The plain form is not off; one with an error of a tenth is off by a tenth."""

    def wrong(queries: GridQueries, tables: GridTables, content: Content) -> GridRead:
        read = read_plainly(queries, tables, content)
        return replace(read, values=1.1 * read.values)

    assert trial(read_plainly, CPU) == 0
    assert trial(wrong, CPU) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="the kernel is compiled here")
def test_the_kernel_passes_the_trial() -> None:
    """In the interpreter, with products in float32 and float16."""
    kernel = pytest.importorskip("perceiverd.model.cuda.kernel", reason="needs Triton")
    for half in (None, torch.float16):
        reader = kernel.KernelReader(half, kernel.Tile.of(half, (9, 0)))
        assert trial(reader, CPU) < readers.TOLERANCE[half or torch.float32]


COMPILE = """
import json, torch, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from perceiverd.model.cuda import kernel
sizes = dict(ROWS=784, N0=16, N1=56, X=56, K=48, FIXED=656, SPLITS=20, BLOCK_X=64, BLOCK_K=64, query_windows=0)
types = dict(values="*u8", token_places="*i32", channel_places="*i32", present="*i8", window_size="i32",
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
