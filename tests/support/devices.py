"""Devices that tests run on: the CPU, and a GPU if there is one."""

from __future__ import annotations

import pytest

GPU = pytest.mark.gpu
"""Marks what needs a GPU; tests/conftest.py skips it if there is none."""
DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=GPU)]


def has_gpu() -> bool:
    """Whether torch finds a GPU."""
    import torch

    return torch.cuda.is_available()
