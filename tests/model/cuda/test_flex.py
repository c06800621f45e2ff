"""PyTorch's `flex_attention` reads what the plain form reads: unfused on the CPU, compiled on a GPU."""

from __future__ import annotations

import pytest
import torch

from perceiverd.model.cuda.flex import FlexReader
from tests.support.devices import DEVICES
from tests.support.reads import assert_close, both, numbers, pixels

# On the CPU it holds all scores, which the tests can afford.
pytestmark = pytest.mark.filterwarnings(
    "ignore:\nflex_attention called without torch.compile:UserWarning",
    "ignore:flex_attention called without torch.compile:UserWarning",
)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("make", [pixels, numbers])
def test_the_library_reads_what_the_plain_form_reads(make: object, windows: int, device: str) -> None:
    """Pixels on three axes, numbers on two; with fixed queries and with those of each window; coprime sizes."""
    modality, content = make(device, 3)  # type: ignore[operator]
    assert_close(*both(modality, content, FlexReader(None), windows=windows), tolerance=2e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_large_scores_and_missing_modalities(device: str) -> None:
    """Scores that differ by thousands overflow nothing; windows without the modality read nothing."""
    modality, content = pixels(device, 4, missing=(0, 2))
    assert_close(*both(modality, content, FlexReader(None), 30.0), tolerance=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_is_close(device: str) -> None:
    """With products in bfloat16 the error is that of the rounding, 2^-8."""
    modality, content = pixels(device, 2)
    assert_close(*both(modality, content, FlexReader(torch.bfloat16), 0.3), tolerance=3e-2)
