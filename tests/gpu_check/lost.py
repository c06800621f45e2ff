"""`python -m tests.gpu_check.lost MODEL DEVICE`: breaks CUDA in this process, and shows that labels go on.

On a CPU the device only says that it is broken.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial

import numpy as np
import torch

from perceiverd.bench import gpu
from perceiverd.model.card import load_card
from perceiverd.model.cuda.engine import CudaEngine
from perceiverd.model.fitting import PreparedEngine
from perceiverd.model.mixed_batches import grouped_logits
from perceiverd.model.resilient import ResilientEngine
from perceiverd.model.torch_engine import TorchEngine
from tests.support.small_devices import SmallDevice, SmallEngine


def main(model: str, device: str) -> int:
    """The exit status; 0 if the CPU has computed in place of the device."""
    card, small, is_gpu = load_card(model), SmallDevice(8), device != "cpu"

    def make() -> PreparedEngine:
        return CudaEngine(card, torch.device(device), "float32", (1, 2, 4)) if is_gpu else SmallEngine(card, small)

    engine = ResilientEngine(device, make, partial(TorchEngine, card, "cpu"))
    windows = gpu.noise_windows(card.geometry, 3)
    exact = grouped_logits(TorchEngine(card, "cpu"), windows)
    under_way = engine.submit(windows)
    small.is_broken = True
    if is_gpu:
        with suppress(RuntimeError):  # an index outside stops the kernel: CUDA is of no use to this process any more
            torch.zeros(4, device=device)[torch.tensor([77], device=device)]
            torch.cuda.synchronize()
    off = max(float(np.abs(each.logits() - exact).max()) for each in (under_way, engine.submit(windows)))
    health = engine.health
    print(f"lost: {health.is_lost}, {health.windows_on_cpu} windows on the CPU, logits within {off:.1e}")
    return 0 if health.is_lost and off < 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
