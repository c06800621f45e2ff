"""Finds a device by its name, and says what it is. Loads torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from perceiverd.core.errors import ConfigError
from perceiverd.model.cuda.driver import Driver
from perceiverd.model.cuda.precision import precision_of
from perceiverd.model.engine import DEVICE_PATTERN, Precision

GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a part of one (MIG), as CUDA reports it."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    multiprocessors: int

    @property
    def precision(self) -> Precision:
        """What `auto` multiplies in."""
        return precision_of(self.capability)

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name} ({self.memory_bytes / GB:.0f} GB, compute capability {major}.{minor}, {self.precision})"


def gpu_of(device: torch.device) -> Gpu:
    """What CUDA reports about this GPU. MIG: its name has the profile, memory and multiprocessors are the part's."""
    found = torch.cuda.get_device_properties(device)
    return Gpu(found.name, (found.major, found.minor), found.total_memory, found.multi_processor_count)


def device_of(name: str, index: int | None = None) -> torch.device:
    """The device of this name; `auto` is a GPU if torch finds one. `index` is the GPU of `auto` and `cuda`.

    Raises ConfigError if the name is unknown, or if the device is missing.
    """
    if not DEVICE_PATTERN.fullmatch(name):
        raise ConfigError(f"device {name!r} is not auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    device = torch.device("cuda" if name == "auto" else name)
    if ":" not in name and index is not None:
        device = torch.device("cuda", index)
    if (device.index or 0) >= count:
        raise ConfigError(f"device {name}: {why_missing(count)}; use cpu or auto")
    return device


def why_missing(count: int) -> str:
    """Why there is no such device, if torch finds `count`; with what to do, if that is known."""
    if count:
        return f"torch finds only {count} CUDA device{'s' * (count != 1)} here, numbered from 0"
    if fault := Driver.found().fault(torch.version.cuda):
        return "; ".join(filter(None, (f"torch finds no CUDA here, because {fault[0]}", fault[1])))
    return f"torch finds no CUDA here{_said_by_cuda()}"


def _said_by_cuda() -> str:
    """What CUDA itself says, such as that the driver is too old; empty if it says nothing."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f": {str(error).splitlines()[0]}"
    return ""
