"""The processes that fit together: who they are, on which devices, and how they take the same step.

Knows nothing of what is fitted. `torchrun` tells each process its place by the environment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from perceiverd.core.errors import ConfigError
from perceiverd.pipeline.tagger import device_of


def is_leader() -> bool:
    """Whether this process is the one of its crew that writes what all have made."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes fit together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that fit together; alone where `torchrun` did not start them."""

    rank: int
    size: int

    @classmethod
    def join(cls, device: torch.device | None = None) -> ProcessGroup:
        """Meet the others, where there are any; `leave` them in the end. `device`: where the weights are."""
        if process_count() == 1:
            return cls(0, 1)
        distributed.init_process_group("nccl" if device is not None and device.type == "cuda" else "gloo")
        return cls(distributed.get_rank(), distributed.get_world_size())

    def leave(self) -> None:
        """Part from the others, once all have come this far."""
        if self.size > 1:
            distributed.barrier()
            distributed.destroy_process_group()

    def average(self, student: nn.Module, spent_s: float) -> float:
        """Give every process the mean gradients and the mean time spent, so that all go on, or end, alike.

        What only some used counts as zero with the others; what none used keeps no gradient, as in one process, since
        an optimiser would let its weights decay.
        """
        if self.size == 1:
            return spent_s
        parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        time = torch.tensor([spent_s], device=parameters[0].device)
        flat = torch.cat([*(piece.reshape(-1) for piece in pieces), used, time])
        distributed.all_reduce(flat)
        flat /= self.size
        *grads, used, spent = flat.split([*(p.numel() for p in parameters), len(parameters), 1])
        for parameter, grad, by in zip(parameters, grads, used.tolist(), strict=True):
            parameter.grad = grad.reshape(parameter.shape) if by else None
        return float(spent)

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it is so in any of the processes."""
        if self.size == 1:
            return here
        flag = torch.tensor([float(here)], device=device)
        distributed.all_reduce(flag)
        return bool(flag > 0)

    def total(self, part: Tensor) -> Tensor:
        """The sum of what all have, in every process."""
        if self.size > 1:
            distributed.all_reduce(part)
        return part


def own_device(name: str) -> torch.device:
    """The device of this process: with `auto` or `cuda` each process on a machine has its own GPU.

    Raises ConfigError as `device_of`.
    """
    device = device_of(name, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def precision(wish: str, device: torch.device) -> torch.dtype:
    """Of products. Raises ConfigError where the device has it not."""
    if wish == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if wish == "float16" and device.type != "cuda":
        raise ConfigError("precision float16 is for GPUs; the processor has float32 and bfloat16")
    found = getattr(torch, wish)
    assert isinstance(found, torch.dtype)
    return found
