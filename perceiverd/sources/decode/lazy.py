"""A frame that is sized when somebody looks at its pixels: a file has more frames than its windows need."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from perceiverd.core.media import Frame
from perceiverd.sources.decode.video import Sizer


class LazyFrame(Frame):
    """As `Frame`. It holds the decoded frame until its pixels are asked for."""

    __slots__ = ("_decoded", "_found", "_pixel_aspect", "_sizer")
    _decoded: VideoFrame | None
    _found: NDArray[np.uint8] | None
    _pixel_aspect: Fraction | None
    _sizer: Sizer

    def __init__(self, start_ns: int, decoded: VideoFrame, pixel_aspect: Fraction | None, sizer: Sizer) -> None:
        """Arguments of `Sizer.fit`, which must be able to size this frame."""
        object.__setattr__(self, "start_ns", start_ns)
        object.__setattr__(self, "still", None)
        object.__setattr__(self, "_found", None)
        object.__setattr__(self, "_decoded", decoded)
        object.__setattr__(self, "_pixel_aspect", pixel_aspect)
        object.__setattr__(self, "_sizer", sizer)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(height, width, 3), RGB, 0..255."""
        if self._found is not None:
            return self._found
        assert self._decoded
        found = self._sizer.fit(self._decoded, self._pixel_aspect)
        object.__setattr__(self, "_found", found)
        object.__setattr__(self, "_decoded", None)
        return found

    @property
    def held_bytes(self) -> int:
        """What the decoded frame takes; 0 if the pixels are there."""
        return 0 if self._decoded is None else sum(plane.buffer_size for plane in self._decoded.planes)
