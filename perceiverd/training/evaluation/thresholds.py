"""From which score on a label is worth an event: the smallest that keeps to bounds on what is wrong.

A label's threshold is the smallest, from FLOOR up, at which

* at most ALLOWED of the held-out recordings that lack the label would make an event of it, or a single one,
* of the recordings that would, at least SURE have it, and
* no stream of the quiet set that thresholds are set on would, not even with MARGIN more in logits.

A label without recordings of its own begins at UNMEASURED. None is above CEILING: a label that
would have to be is written down as restless.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.training.data.ambient import RATE_HZ
from perceiverd.training.distill.audio_shards import VALIDATION_HOP
from perceiverd.training.evaluation import false_alarms
from perceiverd.training.evaluation.heldout import FEWEST, HeldOut
from perceiverd.training.evaluation.metrics import Facts
from perceiverd.training.evaluation.scores import logit, sigmoid

FLOOR, UNMEASURED, CEILING = 0.3, 0.7, 0.95
ALLOWED = 0.01
SURE = 0.7
MARGIN = 2.0
"""With it a fifth of the quiet streams, held back in turn, made 0.4 false alarms an hour by thresholds set on the rest;
with 1.0 it was 1.0."""
GRID = np.round(np.arange(FLOOR, CEILING + 0.001, 0.01), 2)

Levels = NDArray[np.float64]
"""(things, classes): the score that a label's events would need to be kept to; see `alarms.reached`."""


@dataclass(frozen=True)
class ThresholdCounts:
    """What a label's threshold does to the recordings that it was set on."""

    threshold: float
    recordings: int
    """That have the label."""
    found: int
    """Of these."""
    lacking: int
    """That lack the label."""
    false: int
    """Of these."""
    restless: bool
    """The bounds ask for more than CEILING."""


def clip_levels(held: HeldOut, scores: NDArray[np.float32]) -> Levels:
    """Of each clip, from scores of its windows."""
    hop_s = VALIDATION_HOP / RATE_HZ
    return np.stack([false_alarms.event_levels(scores[held.clip == clip], hop_s) for clip in range(len(held.labels))])


def by_recording(values: Levels, facts: Facts, recordings: NDArray[np.str_]) -> tuple[Levels, Facts]:
    """The largest level of each recording's clips; known is what is known of all of them."""
    names = np.unique(recordings)
    rows = [recordings == name for name in names]
    known = [np.where((facts[row] == facts[row][0]).all(axis=0), facts[row][0], -1) for row in rows]
    return np.stack([values[row].max(axis=0) for row in rows]), np.stack(known).astype(np.int8)


def choose(values: Levels, facts: Facts, quiet: Levels) -> list[ThresholdCounts]:
    """The threshold of every class; `values` and `facts` are (recordings, classes), `quiet` is (streams, classes)."""
    loudest = quiet.max(axis=0, initial=0.0)
    needed = np.where(loudest > 0, sigmoid(logit(loudest) + MARGIN), 0.0)
    return [_choose(values[:, c], facts[:, c], float(needed[c])) for c in range(values.shape[1])]


def _choose(values: NDArray[np.float64], facts: Facts, needed: float) -> ThresholdCounts:
    there, lacking = values[facts == 1], values[facts == 0]
    measured = len(there) >= FEWEST and len(lacking) > 0
    found, false = ((side[None] >= GRID[:, None]).sum(axis=1) for side in (there, lacking))
    fits = (needed <= GRID) & (false <= max(1.0, ALLOWED * len(lacking)))
    fits &= (found >= SURE * (found + false)) if measured else (GRID >= UNMEASURED)
    at = int(fits.argmax()) if fits.any() else len(GRID) - 1
    return ThresholdCounts(float(GRID[at]), len(there), int(found[at]), len(lacking), int(false[at]), not fits.any())
