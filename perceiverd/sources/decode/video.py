"""Brings frames to the model's format: upright, cropped to the model's aspect and shrunk. Knows no times."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from perceiverd.core.media import VideoFormat

HD_LINES = 720
# AREA uses every source pixel, so that fine patterns do not turn into moire. The other two flags remove a bias of -2
# grey levels that the default arithmetic has.
AREA = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
PLANAR_RGB = "gbrp"
"""Planes of green, blue and red. libswscale takes a third less time for them than for packed RGB."""
PLANAR_FROM = 2
"""If so many lines become one, both have equal values. Else libswscale takes shortcuts for packed RGB, which round
differently."""
UNSPECIFIED = 2
"""AVCOL_SPC_UNSPECIFIED."""


class Sizer:
    """Brings frames of any size, pixel shape, rotation and colour space to the model's height and width."""

    def __init__(self, wanted: VideoFormat) -> None:
        self._height, self._width = wanted.height, wanted.width
        self._reformatter = VideoReformatter()

    def fit(self, frame: VideoFrame, pixel_aspect: Fraction | None) -> NDArray[np.uint8]:
        """The centre of the upright frame as (height, width, 3) RGB; `pixel_aspect` is a pixel's width by height."""
        turns = round(frame.rotation / 90) % 4  # counterclockwise
        height, width = (self._width, self._height) if turns % 2 else (self._height, self._width)
        wide = frame.width * float(pixel_aspect or 1)
        scale = max(width / wide, height / frame.height)
        to_width, to_height = max(width, round(wide * scale)), max(height, round(frame.height * scale))
        # Shrinking before cropping converts each source pixel once and needs no filter graph.
        is_planar = frame.height >= PLANAR_FROM * to_height
        form = PLANAR_RGB if is_planar else "rgb24"
        small = self._reformatter.reformat(
            frame, to_width, to_height, form, _colorspace(frame), interpolation=AREA, threads=1
        )
        top, left = (to_height - height) // 2, (to_width - width) // 2
        pixels = _planes(small) if is_planar else small.to_ndarray()  # (to_height, to_width, 3)
        return np.ascontiguousarray(np.rot90(pixels[top : top + height, left : left + width], turns), np.uint8)


def _planes(frame: VideoFrame) -> NDArray[np.uint8]:
    """The pixels of planar RGB as (H, W, 3)."""
    green, blue, red = (np.frombuffer(memoryview(each), np.uint8).reshape(-1, each.line_size) for each in frame.planes)
    return np.stack([red, green, blue], axis=2)[:, : frame.width]


def _colorspace(frame: VideoFrame) -> Colorspace | None:
    """What players assume for an untagged frame: BT.709 from 720 lines up, BT.601 below; None if it is tagged."""
    if frame.colorspace != UNSPECIFIED:
        return None
    return Colorspace.ITU709 if frame.height >= HD_LINES else Colorspace.ITU601
