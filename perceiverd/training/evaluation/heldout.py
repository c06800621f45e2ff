"""Recordings never trained on, as `train held-out` has cut them, and what is known of each: heard, absent, unknown.

A clip's labels vouch for what stands above them. What a clip lacks is known only within the vocabulary of its set,
the labels by which clips of the set are named; everything else is unknown, and never counts as absent.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.labels import ontology
from perceiverd.training.data.mixtures import VOUCHED_DB
from perceiverd.training.data.truth import OFTEN_TOGETHER
from perceiverd.training.evaluation.metrics import Facts

FEWEST = 3  # recordings of a class: fewer tell little, and a bootstrap of them nothing


@dataclass(frozen=True, eq=False)
class HeldOut:
    """One split."""

    labels: tuple[tuple[str, ...], ...]
    """Of each clip, as its file's name vouches for them; none where nothing is known of the clip."""
    recordings: tuple[str, ...]
    """Of each clip."""
    paths: tuple[str, ...]
    """Of each clip, inside its package."""
    clip: NDArray[np.intp]
    """(windows,), ascending."""
    below_db: NDArray[np.float64]
    """(windows,), how much quieter than the clip's loudest."""
    mel: NDArray[np.uint8]
    """(windows, frames, bands)"""
    teacher: NDArray[np.float32]
    """Logits (windows, classes), NaN where the teacher lacks the label."""

    @cached_property
    def facts(self) -> Facts:
        """(clips, classes) without the labels that merely stand above the vocabulary: those are never absent."""
        return facts(self.labels, parents=False)

    @cached_property
    def wide_facts(self) -> Facts:
        """(clips, classes), a label above the vocabulary absent where all that the vocabulary has below it is."""
        return facts(self.labels, parents=True)

    @cached_property
    def window_facts(self) -> Facts:
        """(windows, classes): a clip's facts, what it holds unknown in windows that may be silent."""
        rows = self.facts[self.clip]
        return np.where((rows == 1) & (self.below_db > VOUCHED_DB)[:, None], -1, rows).astype(np.int8)

    @cached_property
    def vocabulary(self) -> list[int]:
        """The classes by which clips are named, with enough recordings of each to be measured."""
        named = {name for names in self.labels for name in names}
        # A label that the teacher lacks would count against it.
        taught = ~np.asarray(np.isnan(self.teacher).all(axis=0))
        return [c for c in self.measurable if ontology().labels[c].name in named and taught[c]]

    @cached_property
    def measurable(self) -> list[int]:
        """The classes with enough recordings, and some recording that lacks them."""
        recordings = np.asarray(self.recordings)
        return [
            c
            for c in range(self.wide_facts.shape[1])
            if len(set(recordings[self.wide_facts[:, c] == 1])) >= FEWEST and (self.wide_facts[:, c] == 0).any()
        ]

    @property
    def window_recordings(self) -> NDArray[np.str_]:
        """(windows,): that each is from."""
        return np.asarray(self.recordings)[self.clip]

    def by_clip(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Means (clips, classes) of a value of each window."""
        total = np.zeros((len(self.labels), values.shape[1]))
        np.add.at(total, self.clip, values)
        return np.asarray(total / np.bincount(self.clip, minlength=len(self.labels))[:, None], np.float32)


def read(folder: Path, split: str) -> HeldOut:
    """A split that `train held-out` wrote. Raises MediaError where it is not there."""
    try:
        with (folder / f"{split}.clips.tsv").open(encoding="utf-8", newline="") as lines:
            clips = list(csv.DictReader(lines, delimiter="\t"))
        with (folder / f"{split}.windows.tsv").open(encoding="utf-8", newline="") as lines:
            windows = list(csv.DictReader(lines, delimiter="\t"))
        mel, teacher = np.load(folder / f"{split}.mel.npy"), np.load(folder / f"{split}.teacher.npy")
    except OSError as error:
        raise MediaError(
            f"{folder}: no held-out windows here ({error}); make them with `perceiverd train held-out`"
        ) from error
    return HeldOut(
        tuple(tuple(filter(None, row["labels"].split("|"))) for row in clips),
        tuple(row["recording"] for row in clips),
        tuple(row["path"] for row in clips),
        np.array([int(row["clip"]) for row in windows]),
        np.array([float(row["below_db"]) for row in windows]),
        mel,
        teacher.astype(np.float32),
    )


def facts(clips: Sequence[Sequence[str]], *, parents: bool) -> Facts:
    """(clips, classes): 1 for a clip's labels and all above them, 0 for what else its set names, -1 for the rest.

    Unknown are, too, what stands below a clip's labels, what often comes with them, and all of a clip without labels.
    Whatever stands below an absent label is absent. With `parents` so is what stands above absent labels only.
    """
    kin = _Kin()
    vocabulary = {kin.index[name] for names in clips for name in names}
    claims = vocabulary | (set().union(*(kin.above[c] for c in vocabulary)) if parents and vocabulary else set())
    out = np.full((len(clips), len(kin.above)), -1, np.int8)
    for row, names in zip(out, clips, strict=True):
        if not names:
            continue
        own = {kin.index[name] for name in names}
        heard = own.union(*(kin.above[c] for c in own))
        perhaps = set[int]().union(*(kin.below[c] for c in own))
        for c in set[int]().union(*(kin.together[c] for c in own)) - heard:
            perhaps |= {c} | kin.above[c] | kin.below[c]
        absent = claims - heard - perhaps
        row[list(absent.union(*(kin.below[c] for c in absent)) - perhaps)] = 0
        row[list(heard)] = 1
    return out


class _Kin:
    """Which classes stand above, below and beside which, by index."""

    def __init__(self) -> None:
        known = ontology()
        self.index = {label.name: label.index for label in known.labels}
        places = {label.mid: label.index for label in known.labels}
        self.above = [{places[mid] for mid in known.ancestors(one.mid) if mid in places} for one in known.labels]
        self.below: list[set[int]] = [set() for _ in known.labels]
        for c, above in enumerate(self.above):
            for parent in above:
                self.below[parent].add(c)
        groups = [{self.index[name] for name in group} for group in OFTEN_TOGETHER]
        self.together = [set[int]().union(*(g for g in groups if c in g)) - {c} for c in range(len(self.above))]
