"""JPEGs for people: their size, their shape, and how many are made."""

from __future__ import annotations

import av
import numpy as np

from perceiverd.core.media import StillFormat
from perceiverd.sources.snapshots.jpeg import JpegEncoder


def test_stills_have_the_right_size_and_rate() -> None:
    """Stills are shrunk to the limit, never enlarged; wide pixels become square; two stills are made a second."""
    wide = av.VideoFrame.from_ndarray(np.full((90, 200, 3), 50, np.uint8), "rgb24")
    made = JpegEncoder(StillFormat(100, 2))
    stills = [made.of(number * 100_000_000, wide) for number in range(20)]
    assert [place for place, each in enumerate(stills) if each] == [0, 5, 10, 15]
    for longest, aspect, size in ((100, None, (100, 44)), (1000, None, (200, 90)), (1000, 2, (400, 90))):
        data = JpegEncoder(StillFormat(longest, 2)).of(0, wide, aspect)  # type: ignore[arg-type]
        assert data
        packet = av.Packet(data)
        shown = av.VideoCodecContext.create("mjpeg", "r").decode(packet)[0]
        assert (shown.width, shown.height) == size


def test_pixels_are_read_only_if_a_still_is_due() -> None:
    """Between two stills the pixels are not read, so they cost no copy: FFmpeg would refuse these."""
    stills, pixels = JpegEncoder(StillFormat(100, 2)), np.zeros((48, 64, 3), np.uint8)
    made = [stills.of_pixels(number * 100_000_000, pixels[..., : 0 if number % 5 else 3]) for number in range(20)]
    assert [place for place, each in enumerate(made) if each] == [0, 5, 10, 15]
