"""Windows of pictures as a stem leaves them, on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.errors import MediaError
from perceiverd.training.distill.video_shards import SHARD, Views

DOG, CAT = 2, 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards whose windows' features are their number; every fifth shows a dog, nothing is known of cats."""
    for shard in range(2):
        numbers = np.arange(shard * SHARD, (shard + 1) * SHARD)
        targets = np.full((SHARD, 5), np.nan, np.float16)
        targets[:, DOG] = numbers % 5 == 0
        np.save(tmp_path / f"{shard:05d}.targets.npy", targets)
        np.save(tmp_path / f"{shard:05d}.features.npy", np.tile(numbers[:, None, None], (1, 3, 2)).astype(np.float16))
    return tmp_path


def test_a_view_comes_with_its_targets(folder: Path) -> None:
    """Features and targets are of the same window, over all shards."""
    views, rng = Views(folder), np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        features, targets = views.draw(rng)
        number = int(features[0, 0])
        seen.add(number // SHARD)
        assert features.shape == (3, 2) and (targets[DOG] == 1) == (number % 5 == 0) and np.isnan(targets[CAT])
    assert seen == {0, 1}


def test_a_class_can_be_asked_for(folder: Path) -> None:
    """A window of a class shows it; a class that no window shows is known to be lacking."""
    views, rng = Views(folder), np.random.default_rng(0)
    assert views.has(DOG) and not views.has(CAT)
    assert all(views.draw(rng, DOG)[1][DOG] == 1 for _ in range(20))


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    """A folder without windows is refused with the command that makes some."""
    with pytest.raises(MediaError, match="perceiverd train views"):
        Views(tmp_path)
