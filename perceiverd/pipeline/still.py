"""Still pictures: a frame that shows nothing new has the pixels of an earlier one, so the network sees it only once.

Pure. Frames are compared by the means of small blocks: noise of a sensor averages out, a small object that moves does
not. The comparison is with the frame that was kept, not with the one before, so slow changes add up until they count.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import Frame

BLOCK = 8
"""Rows and columns of a block: 64 values of a colour, whose mean has an eighth of the noise of one of them."""


class StillFilter:
    """Holds the last frame of a stream that showed something new."""

    def __init__(self, levels: float) -> None:
        """`levels`: see `settle`."""
        self.levels = levels
        self._kept: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None

    def settle(self, frame: Frame) -> Frame:
        """The frame; with the pixels of the kept one if no mean of a block differs by more than `levels` of 0..255.

        0 levels change no frame.
        """
        if not self.levels:
            self._kept = None
            return frame
        means = block_means(frame.pixels)
        if self._kept and means.shape == self._kept[1].shape and np.abs(means - self._kept[1]).max() <= self.levels:
            return replace(frame, pixels=self._kept[0])
        self._kept = frame.pixels, means
        return frame


def block_means(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(rows / BLOCK, columns / BLOCK, 3), rounded up: the mean of each block; those at the end may be smaller."""
    height, width, _ = pixels.shape
    rows, columns = np.arange(0, height, BLOCK), np.arange(0, width, BLOCK)
    sums = np.add.reduceat(pixels, rows, axis=0, dtype=np.uint16)  # at most 8 * 255
    sums = np.add.reduceat(sums, columns, axis=1, dtype=np.uint16)  # at most 64 * 255
    counts = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    means: NDArray[np.float32] = (sums / counts[:, :, None]).astype(np.float32)
    return means
