"""What the bench counts: memory, operations and traffic of a call."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perceiverd.bench import latency, profiling
from perceiverd.model.inference import Inference, _Factorised


def test_shared_memory_is_counted_once() -> None:
    """Weights, buffers and an object's tables count; memory that several tensors share counts once."""
    linear = torch.nn.Linear(30, 50)
    linear.register_buffer("table", torch.zeros(70))
    assert profiling.held_bytes(linear, linear.weight, [linear.weight[3:]]) == 4 * (30 * 50 + 50 + 70)
    geometry, network = latency._public_network(1)
    plain, fast = (Inference(network, factorised) for factorised in (False, True))
    weights = sum(4 * parameter.numel() for parameter in network.parameters())
    positions = sum(4 * m.tokens * (m.width - m.content) for m in geometry.modalities)
    assert profiling.held_bytes(plain) == weights + positions
    ready = fast._score
    assert isinstance(ready, _Factorised)
    fixed = ready._crosses[0]._fixed_queries
    assert fixed and profiling.held_bytes(fast) > profiling.held_bytes(fixed) + weights - 4 * network.bytes.width * 3
    assert not hasattr(ready._grids["video"], "basis")


def test_work_and_traffic_are_counted() -> None:
    """A matrix product counts two operations per multiplication; attention has two products; views cost nothing."""
    a, b = torch.randn(30, 50), torch.randn(50, 70)
    assert profiling.matmul_flop(lambda: a @ b) == 2 * 30 * 50 * 70
    assert profiling.traffic_bytes(lambda: a @ b) == 4 * (30 * 50 + 50 * 70 + 30 * 70)
    q = torch.randn(1, 2, 30, 8)
    assert (
        profiling.matmul_flop(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)) == 4 * 2 * 30 * 30 * 8
    )


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux reports the peak")
def test_the_peak_is_what_is_in_use_at_once() -> None:
    """Two tensors of 40 MB give a peak of 40 MB if one follows the other, and 80 MB if both exist."""
    code = (
        "import torch; from perceiverd.bench import profiling; n = 10_000_000; cpu = torch.device('cpu')\n"
        "print(profiling.peak_bytes(lambda: [torch.ones(n).sum() for _ in range(2)], cpu))\n"
        "print(profiling.peak_bytes(lambda: torch.ones(n) + torch.ones(n).sum(), cpu))\n"
    )
    # In a process of its own: memory that other tests have left to threads and collectors would count too.
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=100)
    one, two = map(float, done.stdout.split())
    assert 38e6 < one < 60e6 and 75e6 < two < 100e6
