"""Scores in columns of bytes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S
from perceiverd.offline.timeline.score_grid import ScoreGrid

HOP_NS, WINDOW_NS = NS_PER_S // 2, 128 * NS_PER_S // 100


def test_each_window_has_a_column() -> None:
    """Windows on the grid get a column each, at one hop around their middle, with the score of 0..1 as 0..255."""
    grid = ScoreGrid(3, HOP_NS)
    for k in range(4):
        start_ns = 7 * NS_PER_S + k * HOP_NS
        grid.add(start_ns, start_ns + WINDOW_NS, np.array([k / 3, 0.5, 1.2]))
    assert (grid.origin_ns, grid.span_ns) == (7 * NS_PER_S + (WINDOW_NS - HOP_NS) // 2, HOP_NS)
    assert grid.cells.tolist() == [[0, 128, 255], [85, 128, 255], [170, 128, 255], [255, 128, 255]]
    assert grid.heard.all()


def test_a_hole_stays_unheard() -> None:
    """Columns without a window say so; the last window, off the grid, shares the nearest column."""
    grid = ScoreGrid(1, NS_PER_S)
    for start_s, score in ((0, 0.2), (1, 0.4), (5, 0.6), (5.3, 0.8)):
        grid.add(round(start_s * NS_PER_S), round((start_s + 1) * NS_PER_S), np.array([score]))
    assert grid.heard.tolist() == [True, True, False, False, False, True]
    assert grid.cells[:, 0].tolist() == [51, 102, 0, 0, 0, 204]


@given(st.lists(st.tuples(st.integers(0, 4000), st.floats(0, 1)), min_size=1, max_size=60), st.sampled_from([4, 6, 16]))
def test_no_score_is_lost_however_long_the_media_is(windows: list[tuple[int, float]], most: int) -> None:
    """With few columns each still has the highest score of all windows in it, and their number stays bounded."""
    grid = ScoreGrid(2, HOP_NS, most)
    windows = sorted(windows)
    for k, score in windows:
        grid.add(k * HOP_NS, (k + 1) * HOP_NS, np.array([score, 1 - score]))
    assert len(grid.cells) <= most
    expected: dict[int, int] = {}
    for k, score in windows:
        column = (k - windows[0][0]) * HOP_NS // grid.span_ns
        expected[column] = max(expected.get(column, 0), round(score * 255))
    assert {i: int(grid.cells[i, 0]) for i in np.flatnonzero(grid.heard)} == expected
