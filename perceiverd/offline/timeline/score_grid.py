"""The scores of a file's windows as bytes in columns of equal length. Memory is bounded for any length of media."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_COLUMNS = 32_768
"""More than 3 h of windows have at the default hop of events, 0.5 s. With 527 labels they need 17 MB."""
FULL = 255
"""The byte for a score of 1."""


class ScoreGrid:
    """Columns of scores on a grid of the windows' hop.

    Two windows of one column give it the higher score of each label. When the columns are full, each two become one
    that lasts twice as long, again with the higher score: a short bark stays visible in a day.
    """

    def __init__(self, labels: int, hop_ns: int, most: int = MOST_COLUMNS) -> None:
        """`labels` is the number of the model's labels; `most` is even."""
        assert hop_ns > 0 and most % 2 == 0
        self._cells = np.zeros((most, labels), np.uint8)
        self._heard = np.zeros(most, np.bool_)
        self._hop_ns = self._span_ns = hop_ns
        self._origin_ns: int | None = None
        self._count = 0

    @property
    def span_ns(self) -> int:
        """How long a column lasts."""
        return self._span_ns

    @property
    def origin_ns(self) -> int:
        """The time at which the first column begins."""
        return self._origin_ns or 0

    @property
    def cells(self) -> NDArray[np.uint8]:
        """(columns, labels): scores of 0..1 as 0..255."""
        return self._cells[: self._count]

    @property
    def heard(self) -> NDArray[np.bool_]:
        """(columns,): whether a window stands for the column."""
        return self._heard[: self._count]

    def add(self, start_ns: int, end_ns: int, scores: NDArray[np.floating]) -> None:
        """Add a window. It stands for one hop of time around its middle, or for its length if the hop is longer."""
        lasts_ns = min(self._hop_ns, end_ns - start_ns)
        begin_ns = start_ns + (end_ns - start_ns - lasts_ns) // 2
        if self._origin_ns is None:
            self._origin_ns = begin_ns
        # A last window lies off the grid, so its column is the nearest one.
        at_ns = max(0, begin_ns - self._origin_ns + self._hop_ns // 2)
        while at_ns // self._span_ns >= len(self._cells):
            self._halve()
        column = at_ns // self._span_ns
        cells = np.rint(np.clip(scores, 0, 1) * FULL).astype(np.uint8)
        np.maximum(self._cells[column], cells, out=self._cells[column])
        self._heard[column] = True
        self._count = max(self._count, column + 1)

    def _halve(self) -> None:
        """Each two columns become one."""
        half = len(self._cells) // 2
        self._cells[:half] = np.maximum(self._cells[0::2], self._cells[1::2])
        self._heard[:half] = self._heard[0::2] | self._heard[1::2]
        self._cells[half:], self._heard[half:] = 0, False
        self._count, self._span_ns = -(-self._count // 2), self._span_ns * 2
