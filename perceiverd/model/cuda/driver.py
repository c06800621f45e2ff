"""What this machine has for an NVIDIA GPU, and why PyTorch cannot use it, from files alone. It loads no torch."""

from __future__ import annotations

import ctypes.util
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NVIDIA, DISPLAY = "0x10de", "0x03"
"""PCI vendor, and the beginning of the PCI class of display controllers."""
NO_GPU = "there is no NVIDIA GPU"
CONTAINER_FILES = (".dockerenv", "run/.containerenv")


@dataclass(frozen=True, slots=True)
class Driver:
    """The parts of NVIDIA's driver that a program needs, as this process sees them."""

    version: bool
    """The kernel module is loaded: /proc/driver/nvidia/version."""
    control: bool
    """/dev/nvidiactl, through which every program opens a GPU."""
    cards: int
    """/dev/nvidia0, 1, ..., that exist."""
    readable: bool
    """This user may open all of these."""
    uvm: bool
    """/dev/nvidia-uvm, which CUDA needs beside them."""
    library: bool
    """libcuda.so.1, the driver's part in user space."""
    on_bus: bool
    """There is an NVIDIA card on the PCI bus."""
    in_container: bool

    @classmethod
    def found(cls, root: Path = Path("/")) -> Driver:
        """What there is under `root`; the library is looked for in the whole system if that is `/`."""
        dev = root / "dev"
        cards = [each for each in dev.glob("nvidia[0-9]*") if each.name[6:].isdigit()]
        nodes = [dev / "nvidiactl", *cards]
        return cls(
            version=(root / "proc/driver/nvidia/version").exists(),
            control=nodes[0].exists(),
            cards=len(cards),
            readable=all(os.access(each, os.R_OK | os.W_OK) for each in nodes if each.exists()),
            uvm=(dev / "nvidia-uvm").exists(),
            library=_has_library(root),
            on_bus=_is_on_bus(root),
            in_container=any((root / each).exists() for each in CONTAINER_FILES),
        )

    @property
    def is_loaded(self) -> bool:
        """Whether the kernel's part of the driver is there. Without it, no program can use a GPU."""
        return self.version or self.control

    def fault(self, torch_cuda: str | None) -> tuple[str, str] | None:
        """Why CUDA cannot be used, and what to do about it; None if these files show no reason.

        `torch_cuda`: the CUDA version that torch was built for; None for its CPU build.
        """
        if not self.is_loaded:
            if self.in_container:
                what = "this container has no NVIDIA driver"
                return what, "install the NVIDIA Container Toolkit on the host and start the container with --gpus all"
            if self.on_bus:
                return "there is an NVIDIA GPU, but its driver is not loaded", "install the driver"
            return NO_GPU, ""
        if torch_cuda is None:
            return "this torch is a CPU build", "install torch with CUDA into this environment"
        if not self.library:
            if self.in_container:
                what = "this container has the GPU's devices, but not the driver's library libcuda.so.1"
                return what, "start it with --gpus all, not with --device alone"
            return "the driver's library libcuda.so.1 is missing", "install the driver's package for CUDA programs"
        if not self.control or not self.cards:
            return "the driver is loaded, but /dev/nvidia0 or /dev/nvidiactl is missing", "run nvidia-smi once as root"
        if not self.readable:
            return (
                "this user may not open /dev/nvidia*",
                "add the user to the group of these devices (ls -l /dev/nvidia*)",
            )
        if not self.uvm:
            return "/dev/nvidia-uvm is missing, which CUDA needs", "run nvidia-modprobe -c 0 -u as root, at each boot"
        return None


def _has_library(root: Path) -> bool:
    if root != Path("/"):
        return any(root.glob("usr/lib*/**/libcuda.so.1"))
    if ctypes.util.find_library("cuda"):
        return True
    with suppress(OSError):  # a path of the loader that find_library does not know, such as LD_LIBRARY_PATH
        ctypes.CDLL("libcuda.so.1")
        return True
    return False


def _is_on_bus(root: Path) -> bool:
    devices = root / "sys/bus/pci/devices"
    found = devices.iterdir() if devices.is_dir() else ()
    return any(_read(each / "vendor") == NVIDIA and _read(each / "class").startswith(DISPLAY) for each in found)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
