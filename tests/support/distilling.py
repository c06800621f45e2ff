"""A tiny task to distil: seven classes, audio and video whose level is the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.training.distill.audio_shards import AudioShards
from perceiverd.training.distill.batches import Batches, Mix

CLASSES = 7
GEOMETRY = Geometry(
    classes=CLASSES,
    trunk=Trunk(latents=4, width=8, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=16_000, samples=1_600, form="mel", patch=(5, 16), bands=1),
    video=Video(frames=2, fps=20, height=6, width=10, patch=(2, 3, 5), bands=1),
)


def write_shard(folder: Path) -> None:
    """Write a shard of fifty windows whose loudness is their class."""
    rng = np.random.default_rng(0)
    classes = rng.integers(CLASSES, size=50)
    arrays: dict[str, NDArray[np.generic]] = {
        "mel": (classes[:, None, None] * 30 + rng.integers(10, size=(50, 10, 64))).astype(np.uint8),
        "teacher": np.where(np.eye(CLASSES)[classes] > 0, 3, -6).astype(np.float16),
        "truth": np.full((50, CLASSES), -1, np.int8),
        "tokens": np.zeros((50, 8, 1024), np.float16),
        "class": classes.astype(np.int16),
    }
    for name, array in arrays.items():
        np.save(folder / f"00000.{name}.npy", array)


class BrightWindows:
    """Windows of video whose brightness is their class. Class 0 has none."""

    def has(self, audioset_class: int) -> bool:
        return audioset_class != 0

    def draw(self, rng: np.random.Generator, audioset_class: int | None) -> tuple[torch.Tensor, NDArray[np.float16]]:
        shown = int(rng.integers(CLASSES)) if audioset_class is None else audioset_class
        targets = np.zeros(CLASSES, np.float16)
        targets[shown] = 1
        return torch.full((4, 90), shown / CLASSES), targets


def batches_of(pool: Path, video: BrightWindows | None = None) -> Batches:
    return Batches(GEOMETRY, AudioShards([pool]), video, size=16, seed=3, mix=Mix())
