"""Sizes of batches follow the user, or the bytes of a model's windows."""

from __future__ import annotations

import pytest

from perceiverd.model.batch_sizes import SIZES, SLOT_BYTES, batch_sizes, window_bytes
from perceiverd.model.card import DEFAULT, load_card
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video

TRUNK = Trunk(4, 16, 1, 1, 2)
SOUND = Audio(16_000, 16_000, "raw", (160,), 2)


def geometry(height: int, width: int) -> Geometry:
    return Geometry(527, TRUNK, SOUND, Video(16, 16, height, width, (1, 10, 10), 2))


def test_a_window_has_the_bytes_of_its_arrays() -> None:
    """Samples in float32 and pixels in uint8; a model may lack one of them."""
    assert window_bytes(geometry(30, 50)) == 16_000 * 4 + 16 * 30 * 50 * 3
    assert window_bytes(Geometry(527, TRUNK, SOUND)) == 64_000
    assert window_bytes(Geometry(527, TRUNK, video=Video(2, 4, 3, 5, (1, 3, 5), 2))) == 90


@pytest.mark.parametrize(
    ("height", "width", "largest"), [(30, 50, 64), (270, 480, 64), (540, 960, 16), (2160, 3840, 1)]
)
def test_large_windows_make_smaller_batches(height: int, width: int, largest: int) -> None:
    """A batch has half a gigabyte at most, and one window at least: a model for 4K does not pin 50 GB."""
    sizes = batch_sizes(geometry(height, width))
    assert sizes == tuple(size for size in SIZES if size <= largest)
    assert largest == 1 or sizes[-1] * window_bytes(geometry(height, width)) <= SLOT_BYTES


@pytest.mark.parametrize(("most", "sizes"), [(1, (1,)), (6, (1, 2, 4, 6)), (64, SIZES), (100, (*SIZES, 100))])
def test_the_user_decides(most: int, sizes: tuple[int, ...]) -> None:
    """`max_batch` is the largest size, whatever the model is."""
    assert batch_sizes(geometry(30, 50), most) == batch_sizes(geometry(2160, 3840), most) == sizes


def test_the_bundled_model_has_all_sizes() -> None:
    """It is far from the bound."""
    found = load_card(DEFAULT).geometry
    assert batch_sizes(found) == SIZES and 10 * SIZES[-1] * window_bytes(found) < SLOT_BYTES
