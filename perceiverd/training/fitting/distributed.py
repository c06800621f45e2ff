"""The processes that fit one model together: how many there are, on which devices, and how they average gradients.

Knows nothing of what is fitted. `torchrun` gives each process its place in environment variables.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from perceiverd.core.errors import ConfigError
from perceiverd.model.cuda.devices import device_of


def is_leader() -> bool:
    """Whether this process writes the results of its process group."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes fit together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that fit together. Without `torchrun` it is one process."""

    rank: int
    size: int

    @classmethod
    def join(cls, device: torch.device | None = None) -> ProcessGroup:
        """Connect to the other processes, if any; call `leave` at the end. `device`: where the weights are."""
        if process_count() == 1:
            return cls(0, 1)
        distributed.init_process_group("nccl" if device is not None and device.type == "cuda" else "gloo")
        return cls(distributed.get_rank(), distributed.get_world_size())

    def leave(self) -> None:
        """Disconnect, once all processes have come this far."""
        if self.size > 1:
            distributed.barrier()
            distributed.destroy_process_group()

    def average(self, module: nn.Module, spent_s: float) -> float:
        """Give every process the mean gradients; return the mean time spent, so that all processes end together.

        A parameter that only some processes used has a gradient of zero in the others. One that no process used keeps
        no gradient, as in a single process, because an optimiser would apply weight decay to it.
        """
        if self.size == 1:
            return spent_s
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        time = torch.tensor([spent_s], device=parameters[0].device)
        flat = torch.cat([*(piece.reshape(-1) for piece in pieces), used, time])
        distributed.all_reduce(flat)
        flat /= self.size
        *grads, used, spent = flat.split([*(p.numel() for p in parameters), len(parameters), 1])
        for parameter, grad, share in zip(parameters, grads, used.tolist(), strict=True):
            parameter.grad = grad.reshape(parameter.shape) if share else None
        return float(spent)

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether `here` is true in any of the processes."""
        if self.size == 1:
            return here
        flag = torch.tensor([float(here)], device=device)
        distributed.all_reduce(flag)
        return bool(flag > 0)

    def total(self, part: Tensor) -> Tensor:
        """The sum of the tensors of all processes, in every process."""
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


def precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of products. Raises ConfigError if the device lacks it."""
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name == "float16" and device.type != "cuda":
        raise ConfigError("precision float16 is for GPUs; use float32 or bfloat16 on the CPU")
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found
