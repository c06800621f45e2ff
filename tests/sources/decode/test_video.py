"""Which frames are kept, and how they are brought to the model's size."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace, VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S, VideoFormat
from perceiverd.sources.decode.decimate import Decimator
from perceiverd.sources.decode.video import AREA, UNSPECIFIED, Sizer


@settings(max_examples=40, deadline=None)
@given(
    fps=st.floats(1, 240), model_fps=st.sampled_from([1.0, 6.25, 8.0, 25.0]), jitter=st.randoms(use_true_random=False)
)
def test_the_nearest_frame_stays_near(fps: float, model_fps: float, jitter: object) -> None:
    """At most 4 frames a tick are kept, and no gap appears that the video did not have."""
    decimator = Decimator(model_fps)
    shake = getattr(jitter, "uniform")  # noqa: B009
    times_ns = [round((i + shake(-0.1, 0.1)) * NS_PER_S / fps) for i in range(200)]
    kept = [time_ns for time_ns in times_ns if decimator.keeps(time_ns)]
    seconds = (times_ns[-1] - times_ns[0]) / NS_PER_S
    assert len(kept) <= seconds * model_fps * 4 + 2
    own_ns, spacing_ns = 1.2 * NS_PER_S / fps, NS_PER_S / (4 * model_fps)
    assert max(np.diff(kept), default=0) <= own_ns + 1.25 * spacing_ns


def test_frames_are_kept_after_time_jumps_back() -> None:
    """After a camera's clock was set back, frames are kept as before."""
    decimator = Decimator(6.25)
    assert [decimator.keeps(s * NS_PER_S) for s in (100, 101, 5, 6)] == [True] * 4


@pytest.mark.parametrize(
    ("height", "width", "aspect"), [(48, 64, 1), (64, 48, 1), (50, 90, 2), (7, 400, 1), (300, 5, 1)]
)
def test_any_shape_fits(height: int, width: int, aspect: int) -> None:
    """A frame of any shape becomes (height, width, 3) of the model, and a plain colour stays the same."""
    pixels = np.full((height, width, 3), (200, 100, 50), np.uint8)
    fitted = Sizer(VideoFormat(31, 43, 6.25)).fit(av.VideoFrame.from_ndarray(pixels, "rgb24"), Fraction(aspect))
    assert fitted.shape == (31, 43, 3)
    assert fitted.flags.c_contiguous
    assert np.abs(fitted.astype(int) - (200, 100, 50)).max() <= 2


def test_pixels_that_are_not_square() -> None:
    """A 4:3 frame stored in 100 x 100 pixels is treated as 4:3, so its sides are cut to a square."""
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[:, 30:70] = 255  # 40 of 100 columns are 53 of 133 in the upright picture, 53 of the 100 that remain
    fitted = Sizer(VideoFormat(50, 50, 6.25)).fit(av.VideoFrame.from_ndarray(pixels, "rgb24"), Fraction(4, 3))
    assert (fitted[25, :, 0] > 127).sum() == pytest.approx(26.6, abs=1.5)


@pytest.mark.parametrize("matrix", [1, 2, 9])
@pytest.mark.parametrize("full_range", [0, 2])
@pytest.mark.parametrize("width", [150, 240, 1050])
@pytest.mark.parametrize("form", ["yuv420p", "yuvj420p", "yuyv422", "nv12", "yuv420p10le", "gray", "bgra", "rgb24"])
def test_pixels_are_those_of_packed_rgb(form: str, width: int, full_range: int, matrix: int) -> None:
    """The frame has exactly the values that FFmpeg gives when it converts into packed RGB."""
    noise = np.random.default_rng(5).integers(0, 256, (240, 360, 3)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(width, 2 * width // 3, form)
    frame.colorspace, frame.color_range = matrix, full_range
    fitted = Sizer(VideoFormat(80, 120, 1.0)).fit(frame, None)
    colorspace = Colorspace.ITU601 if matrix == UNSPECIFIED else None
    packed = VideoReformatter().reformat(frame, 120, 80, "rgb24", colorspace, interpolation=AREA)
    np.testing.assert_array_equal(fitted, packed.to_ndarray())
