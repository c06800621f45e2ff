"""Why there is no CUDA, from the files of a machine or a container."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perceiverd.model.cuda.driver import NO_GPU, Driver

COMPLETE = ("proc/driver/nvidia/version", "dev/nvidiactl", "dev/nvidia0", "dev/nvidia-uvm", "usr/lib/libcuda.so.1")


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a machine with these files."""

    def make(*files: str, without: str = "") -> Path:
        for file in files:
            if file != without:
                (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / file).write_text("0x10de" if file.endswith("vendor") else "0x030000")
        return tmp_path

    return make


def test_a_complete_driver_shows_no_fault(machine: Callable[..., Path]) -> None:
    """With kernel module, devices and library there is nothing to report, except a torch without CUDA."""
    driver = Driver.found(machine(*COMPLETE, "dev/nvidia1", "dev/nvidia-caps"))
    assert driver.fault("13.0") is None and driver.cards == 2
    assert driver.fault(None) == ("this torch is a CPU build", "install torch with CUDA into this environment")


@pytest.mark.parametrize(
    ("files", "without", "words"),
    [
        ((), "", NO_GPU),
        (("sys/bus/pci/devices/1/vendor", "sys/bus/pci/devices/1/class"), "", "driver is not loaded"),
        ((".dockerenv",), "", "this container has no NVIDIA driver"),
        ((".dockerenv", *COMPLETE), "usr/lib/libcuda.so.1", "but not the driver's library"),
        (COMPLETE, "usr/lib/libcuda.so.1", "library libcuda.so.1 is missing"),
        (COMPLETE, "dev/nvidia0", "/dev/nvidia0 or /dev/nvidiactl is missing"),
        (COMPLETE, "dev/nvidia-uvm", "/dev/nvidia-uvm is missing"),
    ],
)
def test_each_missing_part_has_its_line(
    machine: Callable[..., Path], files: tuple[str, ...], without: str, words: str
) -> None:
    """What is missing is one line, and all but a missing card have advice."""
    fault = Driver.found(machine(*files, without=without)).fault("13.0")
    assert fault and words in fault[0] and bool(fault[1]) == (words != NO_GPU)
