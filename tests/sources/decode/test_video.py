"""perceiverd.sources.sight alone: which pictures are kept, and how they are fitted."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S, VideoFormat
from perceiverd.sources.decode.decimate import Decimator
from perceiverd.sources.decode.video import Sizer


@settings(max_examples=40, deadline=None)
@given(
    fps=st.floats(1, 240), model_fps=st.sampled_from([1.0, 6.25, 8.0, 25.0]), jitter=st.randoms(use_true_random=False)
)
def test_the_nearest_picture_stays_near(fps: float, model_fps: float, jitter: object) -> None:
    """No more than 4 pictures a tick are kept, and no hole opens that the film itself did not have."""
    thinner = Decimator(model_fps)
    shake = getattr(jitter, "uniform")  # noqa: B009
    times_ns = [round((i + shake(-0.1, 0.1)) * NS_PER_S / fps) for i in range(200)]
    kept = [time_ns for time_ns in times_ns if thinner.keeps(time_ns)]
    seconds = (times_ns[-1] - times_ns[0]) / NS_PER_S
    assert len(kept) <= seconds * model_fps * 4 + 2
    own_ns, spacing_ns = 1.2 * NS_PER_S / fps, NS_PER_S / (4 * model_fps)
    assert max(np.diff(kept), default=0) <= own_ns + 1.25 * spacing_ns


def test_a_time_line_that_goes_back_is_kept() -> None:
    """After a camera's clock was set back, pictures are kept as before."""
    thinner = Decimator(6.25)
    assert [thinner.keeps(s * NS_PER_S) for s in (100, 101, 5, 6)] == [True] * 4


@pytest.mark.parametrize(
    ("height", "width", "aspect"), [(48, 64, 1), (64, 48, 1), (50, 90, 2), (7, 400, 1), (300, 5, 1)]
)
def test_any_shape_fits(height: int, width: int, aspect: int) -> None:
    """Whatever comes in, what comes out is (height, width, 3) of the model, and an even colour stays even."""
    pixels = np.full((height, width, 3), (200, 100, 50), np.uint8)
    fitted = Sizer(VideoFormat(31, 43, 6.25)).fit(av.VideoFrame.from_ndarray(pixels, "rgb24"), Fraction(aspect))
    assert fitted.shape == (31, 43, 3)
    assert fitted.flags.c_contiguous
    assert np.abs(fitted.astype(int) - (200, 100, 50)).max() <= 2


def test_pixels_that_are_not_square() -> None:
    """A 4:3 picture stored in 100 x 100 pixels is shown as 4:3, so its sides are cut to a square."""
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[:, 30:70] = 255  # 40 of 100 columns are 53 of 133 in the upright picture, 53 of the 100 that remain
    fitted = Sizer(VideoFormat(50, 50, 6.25)).fit(av.VideoFrame.from_ndarray(pixels, "rgb24"), Fraction(4, 3))
    assert (fitted[25, :, 0] > 127).sum() == pytest.approx(26.6, abs=1.5)
