"""Camera motion: windows of video from still images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.training.data.camera_motion import (
    VideoMixer,
    composite,
    compress,
    premultiplied,
    random_trajectory,
    validation,
    warp,
)
from perceiverd.training.data.images import build

DOG, CAT, SPEECH = 74, 81, 0
FRAMES, SIDE = 4, 96


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dogs, a pizza, a scene and, in the test split, a cat. Dog and Cat are known, every other label is unknown."""
    folder = tmp_path_factory.mktemp("motion")
    rng = np.random.default_rng(0)
    drawn = {
        "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/animals/mammals/dogs/dog.png": 4,
        "openclipart-png/usr/share/openclipart/png/animals/mammals/dogs/black_lab.png": 4,
        "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/food/pizza.png": 4,
        "scratch/usr/share/scratch/Media/Backgrounds/Outdoors/route66.jpg": 3,
        "gcompris-qt-data/explore_farm_animals/x/cat.webp": 3,
    }
    for path, channels in drawn.items():
        file = folder / "packages" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (70, 110, channels), np.uint8)
        if channels == 4:
            pixels[..., 3] = 0
            pixels[10:60, 10:100, 3] = 255
            pixels[20, 20, 3] = 0
        assert cv2.imwrite(str(file), pixels)
    images = build(folder / "packages", folder / "cache", ontology())
    targets = np.full((len(images), 527), np.nan, np.float16)
    targets[:, [DOG, CAT]] = 0
    for row, image in zip(targets, images, strict=True):
        row[[ontology().find(name).index for name in image.labels]] = 1
    np.save(folder / "cache" / "targets.npy", targets)
    return folder / "cache"


def test_a_window_has_frames_and_targets(cache: Path) -> None:
    """In a window of a class that class is 1, the other known classes are 0, and the rest is unknown."""
    frames, targets = VideoMixer(cache, "train", 7, frames=FRAMES, side=SIDE).draw(3, DOG)
    assert frames.shape == (FRAMES, SIDE, SIDE, 3)
    assert frames.dtype == np.uint8
    assert (targets[DOG], targets[CAT]) == (1, 0)
    assert np.isnan(targets[SPEECH])


def test_a_window_depends_on_seed_and_index_alone(cache: Path) -> None:
    """The same seed and index give the same window, whatever was drawn before. Other seeds and indices differ."""
    one, other = (
        VideoMixer(cache, "train", 7, frames=FRAMES, side=SIDE),
        VideoMixer(cache, "train", 7, frames=FRAMES, side=SIDE),
    )
    one.draw(1, None)
    for number in range(12):
        assert np.array_equal(one.draw(number)[0], other.draw(number)[0])
    assert not np.array_equal(one.draw(5, DOG)[0], one.draw(6, DOG)[0])
    assert not np.array_equal(
        one.draw(5, DOG)[0], VideoMixer(cache, "train", 8, frames=FRAMES, side=SIDE).draw(5, DOG)[0]
    )


def test_has_reports_the_classes_of_the_split(cache: Path) -> None:
    """The training split can show a dog, the test split a cat, and none can show speech."""
    train, test = (
        VideoMixer(cache, "train", 0, frames=FRAMES, side=SIDE),
        VideoMixer(cache, "test", 0, frames=FRAMES, side=SIDE),
    )
    assert [train.has(DOG), train.has(CAT), train.has(SPEECH)] == [True, False, False]
    assert [test.has(DOG), test.has(CAT)] == [False, True]


def test_without_a_class_some_windows_are_empty(cache: Path) -> None:
    """Most windows show an object and some show nothing; all targets are 0 or 1."""
    mixer = VideoMixer(cache, "train", 0, frames=FRAMES, side=SIDE)
    shown = [mixer.draw(number)[1][DOG] for number in range(200)]
    assert set(shown) == {0, 1}
    assert 0.4 < np.mean(shown) < 0.9


def test_validation_is_fixed(cache: Path) -> None:
    """Two calls give the same windows, and each image gives `views` windows."""
    frames, targets = validation(cache, "test", frames=FRAMES, side=SIDE, views=3)
    again, _ = validation(cache, "test", frames=FRAMES, side=SIDE, views=3)
    assert frames.shape == (3, FRAMES, SIDE, SIDE, 3)
    assert (targets[:, CAT] == 1).all()
    assert np.array_equal(frames, again)


def test_warp_without_motion_is_a_copy() -> None:
    """At rest and at its own size an image is the same in every frame."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    still = random_trajectory(rng, 0.0, FRAMES)
    still.turn[:] = 0
    frames = warp(pixels, still, SIDE, SIDE, flip=False, border=cv2.BORDER_REPLICATE)
    assert all(np.array_equal(frame, pixels) for frame in frames)


def test_composite_shows_the_background_through_transparency() -> None:
    """The background is visible behind transparent pixels and hidden behind opaque ones."""
    front = np.zeros((1, 2, 2, 4), np.uint8)
    front[0, 0] = (10, 20, 30, 255)
    front[0, 1] = (200, 200, 200, 0)
    solid = np.stack([premultiplied(front[0])])
    back = np.full((1, 2, 2, 3), 90, np.uint8)
    result = composite(back, solid)
    assert result[0, 0, 0].tolist() == [10, 20, 30]
    assert result[0, 1, 0].tolist() == [90, 90, 90]


def test_compress_keeps_the_order_of_frames() -> None:
    """Frames go through JPEG together and keep their order and nearly their values."""
    frames = np.repeat(np.arange(0, 240, 60, dtype=np.uint8), SIDE * SIDE * 3).reshape(FRAMES, SIDE, SIDE, 3)
    assert np.abs(compress(frames, 90).astype(int) - frames).max() < 4
