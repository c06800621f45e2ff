"""Makes JPEGs for people: upright, as large as the source's frames up to a limit. Knows no disk."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, StillFormat

QUALITY = 4
"""On FFmpeg's scale from 2 (best) to 31: a picture of 1280 x 720 is about 100 kB."""
EVEN = 2
"""JPEG with subsampled colours needs sides of even length."""


class JpegEncoder:
    """Makes a JPEG of a frame at regular intervals."""

    def __init__(self, wanted: StillFormat) -> None:
        self._longest_px, self._spacing_ns = wanted.longest_px, round(NS_PER_S / wanted.fps)
        self._due_ns: int | None = None
        self._reformatter = VideoReformatter()

    def of(self, start_ns: int, frame: av.VideoFrame, pixel_aspect: Fraction | None = None) -> bytes | None:
        """The frame as JPEG; None if none is due yet, or if FFmpeg cannot encode it."""
        if not self._is_due(start_ns):
            return None
        self._due_ns = start_ns + self._spacing_ns
        try:
            return self._jpeg(frame, pixel_aspect)
        except av.FFmpegError:  # a picture for people must not cost the model its frame
            return None

    def of_pixels(self, start_ns: int, pixels: NDArray[np.uint8], order: str = "rgb24") -> bytes | None:
        """The same for pixels (height, width, 3); `order` is FFmpeg's name for the order of their colours."""
        # Checked first, because copying a large frame takes long.
        return self.of(start_ns, av.VideoFrame.from_ndarray(pixels, order)) if self._is_due(start_ns) else None

    def _is_due(self, start_ns: int) -> bool:
        due_ns = self._due_ns
        return due_ns is None or not due_ns - 2 * self._spacing_ns < start_ns < due_ns

    def _jpeg(self, frame: av.VideoFrame, pixel_aspect: Fraction | None) -> bytes:
        wide = frame.width * float(pixel_aspect or 1)
        scale = min(1.0, self._longest_px / max(wide, frame.height))
        width, height = (max(EVEN, round(side * scale) // EVEN * EVEN) for side in (wide, frame.height))
        turns = round(frame.rotation / 90) % 4  # counterclockwise
        if turns:
            small = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=Interpolation.AREA)
            turned = np.ascontiguousarray(np.rot90(np.asarray(small.to_ndarray(), np.uint8), turns))
            frame, (height, width) = av.VideoFrame.from_ndarray(turned, "rgb24"), turned.shape[:2]
        small = self._reformatter.reformat(
            *(frame, width, height, "yuv420p"),
            interpolation=Interpolation.AREA,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        small.pts = None
        encoder = av.VideoCodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.color_range = ColorRange.JPEG
        encoder.time_base = Fraction(1, 25)
        encoder.thread_count = 1  # with several, the encoder would hold as many frames back
        encoder.options = {"strict": "unofficial"}
        encoder.qmin = encoder.qmax = QUALITY
        return b"".join(bytes(packet) for packet in [*encoder.encode(small), *encoder.encode(None)])
