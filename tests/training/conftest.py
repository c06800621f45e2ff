"""A small model for audio and a small pool for it, both with all 527 labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perceiverd.core.labels import ontology
from perceiverd.model.checkpoint import save_model
from perceiverd.model.geometry import Audio, Geometry, Trunk
from perceiverd.model.perceiver import Perceiver


@pytest.fixture
def listener(tmp_path: Path) -> Path:
    """The folder of an untrained model that takes 1.28 s of log-mel."""
    geometry = Geometry(
        classes=527,
        trunk=Trunk(latents=4, width=16, cross_attends=1, layers=1, heads=2),
        audio=Audio(rate_hz=16_000, samples=20_480, form="mel", patch=(16, 16), bands=2),
    )
    torch.manual_seed(0)
    network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    save_model(tmp_path / "listener", network, geometry, ontology().labels, name="listener", licence="CC0-1.0")
    return tmp_path / "listener"


@pytest.fixture
def noises(tmp_path: Path) -> Path:
    """A pool with fifty windows of noise, without known labels."""
    (tmp_path / "noises").mkdir()
    rng = np.random.default_rng(0)
    arrays = {
        "mel": rng.integers(0, 255, (50, 128, 64), np.uint8),
        "teacher": rng.normal(-5, 1, (50, 527)).astype(np.float16),
        "truth": np.full((50, 527), -1, np.int8),
        "tokens": np.zeros((50, 8, 1024), np.float16),
        "class": np.zeros(50, np.int16),
    }
    for name, array in arrays.items():
        np.save(tmp_path / "noises" / f"00000.{name}.npy", array)
    return tmp_path / "noises"
