"""Video shards: windows of video as a stem leaves them, on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.errors import MediaError
from perceiverd.training.distill.video_shards import SHARD, VideoShards

DOG, CAT = 2, 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards with the window's number as features. Every fifth window shows a dog; cats are unknown."""
    for shard in range(2):
        numbers = np.arange(shard * SHARD, (shard + 1) * SHARD)
        targets = np.full((SHARD, 5), np.nan, np.float16)
        targets[:, DOG] = numbers % 5 == 0
        np.save(tmp_path / f"{shard:05d}.targets.npy", targets)
        np.save(tmp_path / f"{shard:05d}.features.npy", np.tile(numbers[:, None, None], (1, 3, 2)).astype(np.float16))
    return tmp_path


def test_features_and_targets_belong_together(folder: Path) -> None:
    """Features and targets are of the same window, in all shards."""
    shards, rng = VideoShards(folder), np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        features, targets = shards.draw(rng)
        number = int(features[0, 0])
        seen.add(number // SHARD)
        assert features.shape == (3, 2) and (targets[DOG] == 1) == (number % 5 == 0) and np.isnan(targets[CAT])
    assert seen == {0, 1}


def test_a_class_can_be_drawn(folder: Path) -> None:
    """A window drawn for a class shows it; `has` is false for a class that no window shows."""
    shards, rng = VideoShards(folder), np.random.default_rng(0)
    assert shards.has(DOG) and not shards.has(CAT)
    assert all(shards.draw(rng, DOG)[1][DOG] == 1 for _ in range(20))


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    """The error names the command that makes shards."""
    with pytest.raises(MediaError, match="perceiverd train views"):
        VideoShards(tmp_path)
