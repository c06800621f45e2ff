"""The kernel reads what the plain form reads: in Triton's interpreter without a GPU, compiled with one."""

from __future__ import annotations

import math
import os

import pytest
import torch

from perceiverd.model.cuda.reading import Content, Reader
from perceiverd.model.geometry import Modality
from tests.support.devices import DEVICES
from tests.support.reads import assert_close, both, grid, half_queries, numbers, pixels, queries

kernel = pytest.importorskip("perceiverd.model.cuda.kernel", reason="needs Triton, which has no wheel for this machine")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def poisoned(half: torch.dtype | None = None) -> Reader:
    """A reader whose outputs are NaN before the kernel writes them."""
    reader = kernel.KernelReader(half, kernel.Tile(rows=16, warps=4))
    reader._poison = math.nan
    return reader  # type: ignore[no-any-return]


@pytest.fixture(autouse=True, params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """A GPU runs the compiled kernel. On the CPU the interpreter runs it, which a GPU machine does not start."""
    name = str(request.param)
    if name == "cpu" and not INTERPRETED:
        pytest.skip("the kernel is compiled here")
    return name


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("make", [pixels, numbers])
def test_the_kernel_reads_what_the_plain_form_reads(make: object, windows: int, device: str) -> None:
    """Pixels in patches on three axes, numbers on two; with fixed queries and with those of each window; coprime sizes.

    All outputs are NaN before.
    """
    modality, content = make(device, 3)  # type: ignore[operator]
    assert_close(*both(modality, content, poisoned(), windows=windows), tolerance=2e-5)


@pytest.mark.parametrize("size", [30.0, 300.0])
def test_large_scores_stay_exact(size: float, device: str) -> None:
    """If scores differ by thousands, so that one token takes all, nothing overflows and the results stay."""
    modality, content = pixels(device, 1)
    assert_close(*both(modality, content, poisoned(), size), tolerance=1e-3)


def test_windows_without_the_modality_read_nothing(device: str) -> None:
    """In a mixed batch they have zeros and a log sum of -inf, and the other windows are as they are alone."""
    modality, content = pixels(device, 4, missing=(0, 2))
    found, wanted = both(modality, content, poisoned())
    assert_close(found, wanted, tolerance=2e-5)
    assert (found.values[[0, 2]] == 0).all() and (found.log_sum[[0, 2]] == -math.inf).all()
    one = Content(content.values[1:2], content.layout, content.present[1:2])
    alone, _ = both(modality, one, poisoned())
    torch.testing.assert_close(alone.values[0], found.values[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("splits", [1, 7, 10_000])
def test_splits_do_not_change_the_result(splits: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many programs share the lines of a grid, down to one line each, the results are the same."""
    monkeypatch.setattr(kernel, "PROGRAMS", splits)
    modality, content = pixels(device, 2, missing=(1,))
    assert_close(*both(modality, content, poisoned()), tolerance=2e-5)


def test_half_precision_is_close(device: str) -> None:
    """With products in half precision the error is that of the rounding: 2^-11 for float16, 2^-8 for bfloat16."""
    modality, content = pixels(device, 2)
    assert_close(*both(modality, content, poisoned(torch.float16), 0.3), tolerance=4e-3)
    if not INTERPRETED:  # the interpreter has no bfloat16 products
        assert_close(*both(modality, content, poisoned(torch.bfloat16), 0.3), tolerance=3e-2)


def test_other_grids_are_read_plainly(device: str) -> None:
    """One axis, or a line too long for registers, goes through the plain form."""
    reader = kernel.KernelReader(None, kernel.Tile(16, 4))
    for sizes in ((95,), (3, 129)):
        modality = Modality("audio", sizes, patch=(7,) * len(sizes), bands=2)
        tables = grid(modality, device)
        assert not reader.can_read(tables, half_queries(queries(tables, 1, 1.0, device)))
