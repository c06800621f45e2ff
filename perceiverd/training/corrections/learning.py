"""From corrections to new rows: which labels learn from which clips, how strongly, and at which thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import Label
from perceiverd.corrections import Verdict
from perceiverd.model.card import Calibration
from perceiverd.pipeline.rules import lineage
from perceiverd.training.corrections import levels
from perceiverd.training.corrections.levels import ThresholdChoice
from perceiverd.training.corrections.rows import FittedRow, OldRow, RowFit, RowMaterial, Vectors, Whitening

WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Of a clip, tried from the smallest: the first that meets all corrections is used, so that the rest changes least."""
SURE = 0.5
"""Logits by which a corrected clip must be on the right side of the threshold."""
INVOLVED = 0.5
"""A label below a wrong one is corrected too if its own level in the clip has this share of its threshold."""
CLIP_HOP_S = 0.25
LEFT_OUT = 12
"""At most this many clips are left out in turn, to measure how well the others predict them."""


@dataclass(frozen=True, eq=False)
class LearntClip:
    """A correction whose sound was turned into vectors."""

    verdict: Verdict
    mid: str
    name: str
    place: str
    """What messages call it."""
    context: Vectors
    """Of all windows of the clip in order, CLIP_HOP_S apart."""
    examples: Vectors
    """Of the windows that show the mark, at several gains."""

    @property
    def has_label(self) -> bool:
        """Whether the label is there."""
        return self.verdict != "wrong"


@dataclass(frozen=True, eq=False)
class LearntRow:
    """A row after the corrections."""

    label: Label
    row: FittedRow
    old_threshold: float | None
    """None for a label that the model lacked."""
    choice: ThresholdChoice
    weight: float
    left_out: tuple[int, int]
    """Of so many clips that have the label and were left out in turn, how many the others found; (found, tried)."""
    are_met: bool
    """Whether every correction is on the right side of the threshold."""
    members: tuple[int, int]
    """Remembered windows at or above the threshold, before and after."""


@dataclass(frozen=True, eq=False)
class Ordinary:
    """What the model should not change on."""

    background: Vectors
    runs: Sequence[slice]
    """The consecutive windows in `background`."""
    hop_s: float
    remembered: Vectors
    parts: tuple[int, ...] = ()
    """Channels of each part of a vector, as `Geometry.vector_parts` has them; empty: it is one part."""


class CorrectionLearner:
    """Learns the rows of all labels of some clips."""

    def __init__(
        self,
        labels: Sequence[Label],
        calibration: Sequence[Calibration],
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        ordinary: Ordinary,
    ) -> None:
        """Labels and last layer of the old model: `weight` (classes, width), `bias` (classes,)."""
        self._labels, self._calibration = tuple(labels), tuple(calibration)
        self._weight, self._bias, self._ordinary = weight, bias, ordinary
        self._whitening = Whitening.of(np.concatenate([ordinary.background, ordinary.remembered]), ordinary.parts)
        self._whitening.remember(ordinary.background)
        self._whitening.remember(ordinary.remembered)

    def learn(self, clips: Sequence[LearntClip], labels: Sequence[Label]) -> list[LearntRow]:
        """The rows of `labels`, all labels of the new model, that the clips change; in the order of the labels."""
        return [self._learn(labels[index], clips) for index in sorted(self._roles(clips, labels))]

    def _roles(self, clips: Sequence[LearntClip], labels: Sequence[Label]) -> set[int]:
        """The labels that learn: those of the clips, and labels below a wrong one that took part in its event."""
        index = {label.mid: label.index for label in labels}
        found = {index[clip.mid] for clip in clips}
        return found | {below for clip in clips for below in self._involved(clip, index)}

    def _involved(self, clip: LearntClip, index: Mapping[str, int]) -> list[int]:
        if clip.has_label or index[clip.mid] >= len(self._labels):
            return []
        above, below = lineage(self._labels)
        return [
            int(one)
            for one in below[above == index[clip.mid]]
            if self._level(clip.context, self._old(int(one)), int(one), CLIP_HOP_S)
            >= INVOLVED * self._calibration[one].threshold
        ]

    def _learn(self, label: Label, clips: Sequence[LearntClip]) -> LearntRow:
        index = {each.mid: each.index for each in self._labels} | {label.mid: label.index}
        present = [clip for clip in clips if clip.has_label and clip.mid == label.mid]
        absent = [
            clip
            for clip in clips
            if not clip.has_label
            and (clip.mid == label.mid or (clip.mid in index and label.index in self._involved(clip, index)))
        ]
        old, ordinary = self._old(label.index), self._ordinary
        member = self._logit_of(label.index, 0.0 if old.new else self._calibration[label.index].threshold)
        material = RowMaterial(
            old,
            [clip.examples for clip in present],
            [clip.examples for clip in absent],
            ordinary.background,
            ordinary.remembered,
            member,
        )
        fit = RowFit(material, self._whitening)
        best: LearntRow | None = None
        # A new label gets the threshold that suits its scores, so only an old one may need more weight.
        for weight in WEIGHTS[:1] if old.new else WEIGHTS:
            row = fit.fit(weight)
            found = self._judged(label, row, old, present, absent, weight)
            if best is None or _mistakes(found) < _mistakes(best):
                best = found
            if found.are_met:
                break
        assert best is not None
        return self._with_left_out(best, material, present, absent)

    def _judged(
        self,
        label: Label,
        row: FittedRow,
        old: OldRow,
        present: Sequence[LearntClip],
        absent: Sequence[LearntClip],
        weight: float,
    ) -> LearntRow:
        """The row with a threshold, and whether it meets the corrections."""
        number = label.index
        before = None if old.new else self._calibration[number].threshold
        have = [self._level(clip.context, row, number, CLIP_HOP_S) for clip in present]
        lack = [self._level(clip.context, row, number, CLIP_HOP_S) for clip in absent]
        choice = levels.choose(have, lack + self._ordinary_levels(row, old, number), before)
        low, high = (_score(_logit(choice.threshold) + side * SURE) for side in (-1, 1))
        are_met = all(each >= high for each in have) and all(each < low for each in lack)
        members = self._members(old, number, before), self._members(row, number, choice.threshold)
        return LearntRow(label, row, before, choice, weight, (0, 0), are_met, members)

    def _with_left_out(
        self, found: LearntRow, material: RowMaterial, present: Sequence[LearntClip], absent: Sequence[LearntClip]
    ) -> LearntRow:
        """Measure the row on clips that it was not fitted to, and set the threshold of a new label by them.

        What the row was fitted to has too high a score to say where the threshold should be.
        """
        if len(present) < 2:
            return _centred(found)
        number, old = found.label.index, material.old
        have = []
        for at in range(min(len(present), LEFT_OUT)):
            row = RowFit(material.without(at), self._whitening).fit(found.weight)
            have.append(self._level(present[at].context, row, number, CLIP_HOP_S))
        lack = [self._level(clip.context, found.row, number, CLIP_HOP_S) for clip in absent]
        choice = levels.choose(have, lack + self._ordinary_levels(found.row, old, number), found.old_threshold)
        members = found.members[0], self._members(found.row, number, choice.threshold)
        left_out = choice.found, len(have)
        return _centred(replace(found, choice=choice, left_out=left_out, members=members))

    # Scores of one label.

    def _old(self, index: int) -> OldRow:
        if index >= len(self._labels):
            return OldRow.absent(self._weight.shape[1])
        return OldRow(self._weight[index], float(self._bias[index]))

    def _scores(self, row: FittedRow | OldRow, index: int, vectors: Vectors) -> NDArray[np.float64]:
        scale, shift = self._scale(index)
        logits = row.logits(vectors)
        return np.asarray(1 / (1 + np.exp(-np.clip(scale * np.asarray(logits) + shift, -60, 60))))

    def _level(self, vectors: Vectors, row: FittedRow | OldRow, index: int, hop_s: float) -> float:
        return levels.level(self._scores(row, index, vectors), hop_s)

    def _ordinary_levels(self, row: FittedRow, old: OldRow, index: int) -> list[float]:
        """The levels of the stretches of background in which the label had no event before."""
        found = []
        for run in self._ordinary.runs:
            vectors = self._ordinary.background[run]
            if not old.new:
                threshold = self._calibration[index].threshold
                if self._level(vectors, old, index, self._ordinary.hop_s) >= threshold:
                    continue  # it may really be there
            found.append(self._level(vectors, row, index, self._ordinary.hop_s))
        return found

    def _members(self, row: FittedRow | OldRow, index: int, threshold: float | None) -> int:
        if threshold is None:
            return 0
        return int((self._scores(row, index, self._ordinary.remembered) >= threshold).sum())

    def _scale(self, index: int) -> tuple[float, float]:
        if index >= len(self._calibration):
            return 1.0, 0.0
        return self._calibration[index].scale, self._calibration[index].shift

    def _logit_of(self, index: int, score: float) -> float:
        """The logit before calibration that gives this score; infinite for 0."""
        if not score:
            return math.inf
        scale, shift = self._scale(index)
        return (_logit(score) - shift) / scale


def _centred(found: LearntRow) -> LearntRow:
    """The same row. Of a new label, the scores are moved so that its threshold is 0.5, which people expect."""
    if found.old_threshold is not None:
        return found
    row, choice = found.row, found.choice
    moved = FittedRow(row.weight, row.bias - _logit(choice.threshold), row.change)
    return replace(found, row=moved, choice=replace(choice, threshold=0.5))


def _mistakes(row: LearntRow) -> tuple[bool, int]:
    choice = row.choice
    return not row.are_met, choice.present - choice.found + choice.false


def _logit(score: float) -> float:
    return math.log(score / (1 - score))


def _score(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
