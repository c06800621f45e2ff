"""Levels of events in one column of scores, and the threshold between sounds that have a label and those that lack it.

Pure. A level is the threshold above which a stretch of windows makes no event, by the daemon's default rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.pipeline.rules import EventOptions

RULES = EventOptions()
FLOOR, CEILING = -6.0, 3.0
"""Lowest and highest threshold that is chosen, in logits."""
STEP = 0.05
UNMEASURED = 0.5
"""The threshold if no background was heard."""

Scores = NDArray[np.float64]
"""(T,), 0..1, of consecutive windows."""


def level(scores: Scores, hop_s: float) -> float:
    """The threshold above which these scores make no event: they are smoothed and must hold for the minimum duration.

    0 if there are no windows.
    """
    if not len(scores):
        return 0.0
    smooth, keep = np.empty(len(scores)), math.exp(-hop_s / RULES.smoothing_s)
    state = 0.0
    for at, score in enumerate(scores.tolist()):
        state = keep * state + (1 - keep) * score
        smooth[at] = state
    held = min(1 + math.ceil(RULES.min_duration_s / hop_s - 1e-9), len(smooth))
    return float(np.lib.stride_tricks.sliding_window_view(smooth, held).min(axis=-1).max())


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """A threshold, and what it does to the stretches that it was chosen on."""

    threshold: float
    found: int
    present: int
    """Of this many stretches with the label, `found` have an event."""
    false: int
    absent: int
    """Of this many stretches that lack it, `false` have an event."""


def choose(present: Sequence[float], absent: Sequence[float], old: float | None) -> ThresholdChoice:
    """The threshold that separates these levels best. The old one stays if no other makes fewer mistakes.

    Of several equally good ones, it is the middle of the widest gap, in logits. A mistake is a stretch with the label
    and no event, or one that lacks it and has one.
    """
    grid = 1 / (1 + np.exp(-np.arange(FLOOR, CEILING + STEP / 2, STEP)))
    if not present or not absent:
        threshold = old if old is not None else UNMEASURED
    else:
        mistakes = np.array([_mistakes(present, absent, float(each)) for each in grid])
        if old is not None and _mistakes(present, absent, old) <= mistakes.min():
            threshold = old
        else:
            threshold = _middle(grid, mistakes == mistakes.min())
    found, false = sum(each >= threshold for each in present), sum(each >= threshold for each in absent)
    return ThresholdChoice(threshold, found, len(present), false, len(absent))


def _mistakes(present: Sequence[float], absent: Sequence[float], threshold: float) -> int:
    return sum(each < threshold for each in present) + sum(each >= threshold for each in absent)


def _middle(grid: NDArray[np.float64], good: NDArray[np.bool_]) -> float:
    """The middle of the longest run of good thresholds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
    first, after = max(zip(edges[::2], edges[1::2], strict=True), key=lambda run: run[1] - run[0])
    low, high = (math.log(each / (1 - each)) for each in (grid[first], grid[after - 1]))
    return 1 / (1 + math.exp(-(low + high) / 2))
