"""Recordings that were never trained on, as `train held-out` cuts them, and what is known about their labels.

A label of a clip is present, and so are those above it. A label is absent only if it belongs to the vocabulary of the
set, which is all labels that name some clip of it. Everything else is unknown, and never counts as absent.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.labels import ontology
from perceiverd.evaluation.metrics import Facts
from perceiverd.pipeline.rules import lineage
from perceiverd.training.data.mixtures import VOUCHED_DB
from perceiverd.training.data.truth import OFTEN_TOGETHER

FEWEST = 3
"""The fewest recordings of a class for which a measure and its bootstrap mean something."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """One split."""

    labels: tuple[tuple[str, ...], ...]
    """Of each clip, from its file's name; empty if nothing is known about the clip."""
    recordings: tuple[str, ...]
    """Of each clip."""
    paths: tuple[str, ...]
    """Of each clip, inside its package."""
    clip: NDArray[np.intp]
    """(windows,), ascending."""
    below_db: NDArray[np.float64]
    """(windows,), how much quieter than the clip's loudest window."""
    mel: NDArray[np.uint8]
    """(windows, frames, bands)"""
    teacher: NDArray[np.float32]
    """Logits (windows, classes), NaN if the teacher lacks the label."""

    @cached_property
    def facts(self) -> Facts:
        """(clips, classes). A label above the vocabulary is never absent."""
        return facts(self.labels, parents=False)

    @cached_property
    def wide_facts(self) -> Facts:
        """(clips, classes). A label above the vocabulary is absent if all labels of the vocabulary below it are."""
        return facts(self.labels, parents=True)

    @cached_property
    def window_facts(self) -> Facts:
        """(windows, classes): the facts of the clip. What the clip has is unknown in a window that may be silent."""
        rows = self.facts[self.clip]
        return np.where((rows == 1) & (self.below_db > VOUCHED_DB)[:, None], -1, rows).astype(np.int8)

    @cached_property
    def vocabulary(self) -> list[int]:
        """The classes that name clips and that can be measured."""
        named = {name for names in self.labels for name in names}
        # A label that the teacher lacks would count against the teacher.
        taught = ~np.asarray(np.isnan(self.teacher).all(axis=0))
        return [c for c in self.measurable if ontology().labels[c].name in named and taught[c]]

    @cached_property
    def measurable(self) -> list[int]:
        """The classes with enough recordings, and with some recording that lacks them."""
        recordings = np.asarray(self.recordings)
        return [
            c
            for c in range(self.wide_facts.shape[1])
            if len(set(recordings[self.wide_facts[:, c] == 1])) >= FEWEST and (self.wide_facts[:, c] == 0).any()
        ]

    @property
    def window_recordings(self) -> NDArray[np.str_]:
        """(windows,): the recording of each."""
        return np.asarray(self.recordings)[self.clip]

    def by_clip(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Means (clips, classes) of values (windows, classes)."""
        total = np.zeros((len(self.labels), values.shape[1]))
        np.add.at(total, self.clip, values)
        return np.asarray(total / np.bincount(self.clip, minlength=len(self.labels))[:, None], np.float32)


def read(folder: Path, split: str) -> HeldOut:
    """A split that `train held-out` wrote. Raises MediaError if it does not exist."""
    try:
        with (folder / f"{split}.clips.tsv").open(encoding="utf-8", newline="") as lines:
            clips = list(csv.DictReader(lines, delimiter="\t"))
        with (folder / f"{split}.windows.tsv").open(encoding="utf-8", newline="") as lines:
            windows = list(csv.DictReader(lines, delimiter="\t"))
        mel, teacher = np.load(folder / f"{split}.mel.npy"), np.load(folder / f"{split}.teacher.npy")
    except OSError as error:
        raise MediaError(
            f"{folder}: has no held-out windows ({error}); make them with `perceiverd train held-out`"
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
    """(clips, classes): 1 for a clip's labels and all above them, 0 for the rest of the vocabulary, -1 for all others.

    Also unknown: labels below the clip's, labels that often occur with them, and all labels of a clip without labels.
    A label below an absent label is absent. With `parents`, so is a label that has only absent labels below it.
    """
    relations = _relations()
    above, below = relations.above, relations.below
    vocabulary = {relations.index[name] for names in clips for name in names}
    claims = vocabulary | (set().union(*(above[c] for c in vocabulary)) if parents and vocabulary else set())
    out = np.full((len(clips), len(above)), -1, np.int8)
    for row, names in zip(out, clips, strict=True):
        if not names:
            continue
        own = {relations.index[name] for name in names}
        present = own.union(*(above[c] for c in own))
        possible = set[int]().union(*(below[c] for c in own))
        for c in set[int]().union(*(relations.together[c] for c in own)) - present:
            possible |= {c} | above[c] | below[c]
        absent = claims - present - possible
        row[list(absent.union(*(below[c] for c in absent)) - possible)] = 0
        row[list(present)] = 1
    return out


@dataclass(frozen=True, eq=False)
class _Relations:
    """Relations between AudioSet's classes, by index."""

    index: dict[str, int]
    above: list[set[int]]
    below: list[set[int]]
    together: list[set[int]]
    """Classes that often occur together with each."""


@cache
def _relations() -> _Relations:
    labels = ontology().labels
    index = {label.name: label.index for label in labels}
    above: list[set[int]] = [set() for _ in labels]
    below: list[set[int]] = [set() for _ in labels]
    for upper, lower in zip(*(side.tolist() for side in lineage(labels)), strict=True):
        above[lower].add(upper)
        below[upper].add(lower)
    groups = [{index[name] for name in group} for group in OFTEN_TOGETHER]
    together = [set[int]().union(*(group for group in groups if c in group)) - {c} for c in range(len(labels))]
    return _Relations(index, above, below, together)
