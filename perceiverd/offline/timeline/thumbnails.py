"""The small pictures of a file, evenly spread over it. Their number is bounded for any length of media."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, StillFormat

MOST = 96
"""A picture has some 6 kB."""
LONGEST_PX = 160


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture of a moment."""

    start_ns: int
    jpeg: bytes = field(repr=False)


class Thumbnails:
    """Keeps pictures at a distance that doubles whenever there are too many."""

    def __init__(self, most: int = MOST) -> None:
        from perceiverd.sources.snapshots.jpeg import JpegEncoder  # loads FFmpeg

        self._most, self._spacing_ns = most, NS_PER_S
        self._encoder = JpegEncoder(StillFormat(LONGEST_PX, fps=1000.0))  # we choose the moments
        self._kept: list[Thumbnail] = []

    @property
    def kept(self) -> tuple[Thumbnail, ...]:
        """In the order of their times."""
        return tuple(self._kept)

    def add(self, start_ns: int, pixels: NDArray[np.uint8]) -> None:
        """Keep the frame (H, W, 3), RGB, if the last one that was kept is far enough away."""
        if self._kept and start_ns < self._kept[-1].start_ns + self._spacing_ns:
            return
        jpeg = self._encoder.of_pixels(start_ns, pixels)
        if jpeg is None:  # FFmpeg cannot encode it
            return
        self._kept.append(Thumbnail(start_ns, jpeg))
        if len(self._kept) > self._most:
            self._kept, self._spacing_ns = self._kept[::2], self._spacing_ns * 2
