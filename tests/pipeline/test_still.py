"""Which frames show nothing new."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.media import Frame
from perceiverd.pipeline.still import BLOCK, StillFilter, block_means

SHAPE = (37, 53, 3)
SCENE = np.random.default_rng(1).integers(20, 236, SHAPE).astype(np.float64)


def frame(pixels: NDArray[np.float64], number: int = 0) -> Frame:
    return Frame(number, pixels.clip(0, 255).round().astype(np.uint8))


def noisy(seed: int, sigma: float = 1.5) -> NDArray[np.float64]:
    """The scene as a camera sends it, scaled down to the size of the model."""
    return SCENE + np.random.default_rng(seed).normal(0, sigma, SHAPE)


def test_noise_is_no_news() -> None:
    """Frames that differ by noise alone have the pixels of the first; their times stay."""
    still = StillFilter(levels=2.0)
    first = still.settle(frame(noisy(0), 0))
    for number in range(1, 30):
        settled = still.settle(frame(noisy(number), number))
        assert settled.pixels is first.pixels and settled.start_ns == number


@pytest.mark.parametrize("at", [(0, 0), (17, 30), (SHAPE[0] - 3, SHAPE[1] - 3)])
def test_a_small_object_is_news(at: tuple[int, int]) -> None:
    """Three by three pixels that become 60 levels brighter count, wherever they are."""
    still, (y, x) = StillFilter(levels=2.0), at
    dark = np.full(SHAPE, 60.0)
    still.settle(frame(dark))
    dark[y : y + 3, x : x + 3] += 60
    changed = frame(dark)
    assert still.settle(changed).pixels is changed.pixels


def test_a_slow_change_adds_up() -> None:
    """A scene that brightens by a tenth of a level in each frame is new again after two levels, not never."""
    still = StillFilter(levels=2.0)
    kept = {id(still.settle(frame(np.full(SHAPE, 100 + number / 10))).pixels) for number in range(60)}
    assert 2 <= len(kept) <= 5


def test_zero_levels_change_nothing() -> None:
    """With 0 every frame is new, even if it is the same."""
    still = StillFilter(levels=0)
    for number in range(3):
        one = frame(SCENE, number)
        assert still.settle(one) is one


def test_another_size_is_news() -> None:
    """A camera that changes its size starts again."""
    still = StillFilter(levels=255)
    still.settle(frame(SCENE))
    other = frame(SCENE[:20])
    assert still.settle(other) is other


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_means_are_those_of_the_blocks(height: int, width: int, seed: int) -> None:
    """Each mean is that of its block, also at edges that no whole block reaches."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    means = block_means(pixels)
    assert means.shape == (-(-height // BLOCK), -(-width // BLOCK), 3)
    for y, x in np.ndindex(means.shape[:2]):
        block = pixels[BLOCK * y : BLOCK * (y + 1), BLOCK * x : BLOCK * (x + 1)]
        np.testing.assert_allclose(means[y, x], block.mean(axis=(0, 1)), rtol=1e-5)
