"""Processes that fit together, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys, torch
from torch import nn
from perceiverd.training.fitting.distributed import ProcessGroup
group = ProcessGroup.join()
network, one, unused = nn.Linear(3, 2), nn.Linear(2, 1), nn.Linear(2, 1)
nn.init.constant_(network.weight, 1.0)
seen = network(torch.full((1, 3), group.rank + 1.0))
(seen.sum() + one(torch.ones(1, 2)).sum() if group.rank else seen.sum()).backward()
spent_s = group.average(nn.ModuleList([network, one, unused]), spent_s=10.0 * group.rank)
group.leave()
grads = (network.weight.grad, one.weight.grad, unused.weight.grad)
torch.save((group.size, spent_s, *grads), f"{sys.argv[1]}/{group.rank}.pt")
"""


def test_processes_take_the_same_step(tmp_path: Path) -> None:
    """All processes get the mean gradients and the mean time; a parameter that no process used gets no gradient."""
    script = tmp_path / "group.py"
    script.write_text(SCRIPT)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=100, env=environment)
    for rank in range(2):
        size, spent_s, used, by_one, unused = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert (size, spent_s, unused) == (2, 5.0, None)
        assert torch.equal(used, torch.full((2, 3), 1.5)) and torch.equal(by_one, torch.full((1, 2), 0.5))
