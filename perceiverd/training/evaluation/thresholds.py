"""Event thresholds: for each label the smallest score that keeps the share of wrong events within bounds.

A label's threshold is the smallest, from FLOOR up, at which

* at most ALLOWED of the held-out recordings that lack the label have an event of it, or at most one recording,
* at least SURE of the recordings that have an event of it have the label, and
* no generated stream without events has an event of it, even if its logits were MARGIN higher.

A label that no sounds were measured of starts at UNMEASURED, even if pictures have it. If it is lower than its
teacher's, so that other labels find a place among the highest, it starts where it has as many events as its teacher's
has at UNMEASURED; not below FLOOR.
No threshold is above CEILING: a label that would need a higher one is marked as restless.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.evaluation.metrics import Facts
from perceiverd.training.data.ambient_audio import RATE_HZ
from perceiverd.training.distill.heldout_windows import VALIDATION_HOP
from perceiverd.training.evaluation import false_alarms
from perceiverd.training.evaluation.heldout import FEWEST, HeldOut
from perceiverd.training.evaluation.scores import logit, sigmoid

FLOOR, UNMEASURED, CEILING = 0.3, 0.7, 0.95
ALLOWED = 0.002
"""With 0.01 each label could be wrong in five recordings of 504: 9 more wrong events for 0.006 more recall."""
SURE = 0.7
MARGIN = 2.0
"""With it, a fifth of the generated streams, held back in turn, had 0.4 false alarms per hour at thresholds set on the
rest; with 1.0 it was 1.0 per hour."""
GRID = np.round(np.arange(FLOOR, CEILING + 0.001, 0.01), 2)

Levels = NDArray[np.float64]
"""(recordings or streams, classes): the threshold above which there is no event; see `false_alarms.event_levels`."""


@dataclass(frozen=True)
class ThresholdCounts:
    """A label's threshold, and what it does to the recordings that it was set on."""

    threshold: float
    recordings: int
    """Recordings that have the label."""
    found: int
    """Of these, the ones with an event."""
    lacking: int
    """Recordings that lack the label."""
    false: int
    """Of these, the ones with an event."""
    restless: bool
    """Whether the bounds need more than CEILING."""


def clip_levels(held: HeldOut, scores: NDArray[np.float32]) -> Levels:
    """(clips, classes), from scores (windows, classes)."""
    hop_s = VALIDATION_HOP / RATE_HZ
    return np.stack([false_alarms.event_levels(scores[held.clip == clip], hop_s) for clip in range(len(held.labels))])


def by_recording(values: Levels, facts: Facts, recordings: NDArray[np.str_]) -> tuple[Levels, Facts]:
    """The largest level of each recording's clips. A fact is known if it is the same for all of them."""
    names = np.unique(recordings)
    rows = [recordings == name for name in names]
    known = [np.where((facts[row] == facts[row][0]).all(axis=0), facts[row][0], -1) for row in rows]
    return np.stack([values[row].max(axis=0) for row in rows]), np.stack(known).astype(np.int8)


def choose(values: Levels, facts: Facts, ambient: Levels, taught: Levels | None = None) -> list[ThresholdCounts]:
    """The threshold of every class. `values` and `facts` are (recordings, classes), `ambient` is (streams, classes).

    `taught`: the levels of the teacher's scores for the first of these recordings, which are sounds; None: all are.
    """
    loudest = ambient.max(axis=0, initial=0.0)
    needed = np.where(loudest > 0, sigmoid(logit(loudest) + MARGIN), 0.0)
    sounds = len(values) if taught is None else len(taught)
    heard = (facts[:sounds] == 1).sum(axis=0) >= FEWEST
    unheard = UNMEASURED if taught is None else _starts(values[:sounds], taught)
    starts = np.where(heard, FLOOR, unheard)
    return [_choose(values[:, c], facts[:, c], float(needed[c]), float(starts[c])) for c in range(values.shape[1])]


def _starts(values: Levels, taught: Levels) -> NDArray[np.float64]:
    """(classes,): where a label that no sounds were measured of starts."""
    events = (taught >= UNMEASURED).sum(axis=0)
    ranked = np.sort(values, axis=0)[::-1]
    as_many = ranked[np.maximum(events, 1) - 1, np.arange(values.shape[1])]
    return np.where(events > 0, np.clip(as_many, FLOOR, UNMEASURED), UNMEASURED)


def _choose(values: NDArray[np.float64], facts: Facts, needed: float, start: float) -> ThresholdCounts:
    present, lacking = values[facts == 1], values[facts == 0]
    measured = len(present) >= FEWEST and len(lacking) > 0
    found, false = ((side[None] >= GRID[:, None]).sum(axis=1) for side in (present, lacking))
    fits = (np.maximum(needed, start - 1e-9) <= GRID) & (false <= max(1.0, ALLOWED * len(lacking)))
    fits &= (found >= SURE * (found + false)) | (not measured)
    at = int(fits.argmax()) if fits.any() else len(GRID) - 1
    return ThresholdCounts(
        float(GRID[at]), len(present), int(found[at]), len(lacking), int(false[at]), restless=not fits.any()
    )
