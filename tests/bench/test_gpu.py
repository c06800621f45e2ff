"""The timing of the engine for GPUs, on a CPU: each number is there; what they are worth, only a GPU can say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perceiverd.bench import gpu
from perceiverd.bench.readers import reader_timings
from perceiverd.model.card import load_card
from tests.support.devices import DEVICES


@pytest.mark.parametrize("device", DEVICES)
def test_a_model_is_timed(tiny_model: Path, device: str) -> None:
    """Latency, rates at each size, limits, the account of the time and the readers are measured and printed."""
    card = load_card(tiny_model)
    found = gpu.measure(card, torch.device(device), 4, "float32", sizes=(1, 2))
    assert [rate.batch for rate in found.rates] == [1, 2] and found.best_batch in (1, 2)
    assert min(found.network_ms, found.window_ms, found.gflop, found.matmul_tflops, found.copy_gbs) > 0
    assert all(rate.network_windows_s > 0 and rate.upload_windows_s > 0 for rate in found.rates)
    assert sum(each.share for each in found.account) == pytest.approx(1, abs=0.5)
    assert found.streams == int(max(rate.network_windows_s for rate in found.rates) / gpu.HOPS_S)
    assert "streams at 4 hops a second" in gpu.table(found)


@pytest.mark.parametrize("device", DEVICES)
def test_readers_are_compared_with_float64(tiny_model: Path, device: str) -> None:
    """The plain form is there on every device, with the error of float32."""
    rows = reader_timings(load_card(tiny_model), torch.device(device), None, 3)
    assert rows[-1].name == "plain" and rows[-1].error < 1e-4
    assert rows[0].times == 1
