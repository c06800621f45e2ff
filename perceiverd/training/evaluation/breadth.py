"""Breadth: the recordings of each source apart, the model beside its teacher and beside the mean of both.

The named label of a clip counts as found if it is among the ten highest of all labels that the teacher knows. A clip's
score is the mean over its windows. Both sides take the same windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import ontology
from perceiverd.evaluation.metrics import Interval, average_precision, drawn_rows, mean_precisions, shares
from perceiverd.training.evaluation.heldout import HeldOut
from perceiverd.training.evaluation.scores import logit, sigmoid

TOP = 10
MODEL, TEACHER, BOTH = "this model", "YAMNet", "mean of both"
FEWEST = 3
"""A source with fewer measurable classes has no table."""

Scores = dict[str, NDArray[np.float32]]


def breadth_rows(held: HeldOut, windows: NDArray[np.float32], what: str, *, details: bool) -> Iterator[str]:
    """A table for each source of a split, from calibrated scores (windows, classes)."""
    for source in sorted({name.partition(":")[0] for name in held.recordings}):
        part, rows = of_source(held, source)
        if len(part.vocabulary) >= FEWEST:
            yield from _table(part, _by_clip(part, windows[rows]), f"{what}, {source}", details=details)


def of_source(held: HeldOut, source: str) -> tuple[HeldOut, NDArray[np.bool_]]:
    """The clips of one source, and which windows they have."""
    clips = [at for at, name in enumerate(held.recordings) if name.partition(":")[0] == source and held.labels[at]]
    rows = np.isin(held.clip, clips)
    number = {clip: at for at, clip in enumerate(clips)}
    return replace(
        held,
        labels=tuple(held.labels[at] for at in clips),
        recordings=tuple(held.recordings[at] for at in clips),
        paths=tuple(held.paths[at] for at in clips),
        clip=np.array([number[clip] for clip in held.clip[rows].tolist()], np.intp),
        below_db=held.below_db[rows],
        mel=held.mel[rows],
        teacher=held.teacher[rows],
    ), rows


def _by_clip(held: HeldOut, model: NDArray[np.float32]) -> Scores:
    """Scores (clips, classes) of each side; -1 for labels that the teacher lacks."""
    teacher = sigmoid(np.nan_to_num(held.teacher, nan=-20.0))
    both = sigmoid((logit(model) + logit(teacher)) / 2)
    lacks = np.isnan(held.teacher).all(axis=0)
    found = {name: held.by_clip(side) for name, side in ((MODEL, model), (TEACHER, teacher), (BOTH, both))}
    return {name: np.where(lacks, -1, side).astype(np.float32) for name, side in found.items()}


def named(held: HeldOut) -> NDArray[np.bool_]:
    """(clips, classes): the labels that name each clip, without those above another of them."""
    known = ontology()
    out = np.zeros((len(held.labels), len(known.labels)), np.bool_)
    for row, names in zip(out, held.labels, strict=True):
        mids = {known.find(name).mid for name in names}
        above = set[str]().union(*(known.ancestors(mid) for mid in mids))
        row[[label.index for label in known.labels if label.mid in mids - above]] = True
    return out


def hits(scores: NDArray[np.float32], names: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(clips,): whether a label that names the clip is among the TOP highest."""
    best = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
    return np.asarray(np.take_along_axis(names, best, axis=1).any(axis=1))


def _table(held: HeldOut, scores: Scores, what: str, *, details: bool) -> Iterator[str]:
    names, columns = named(held), held.vocabulary
    found = {name: hits(side, names) for name, side in scores.items()}

    draws = drawn_rows(held.recordings)
    precision = [mean_precisions(side, held.wide_facts, columns, draws) for side in scores.values()]
    rates = [shares(one, draws) for one in found.values()]
    measured = [*precision, *rates, precision[0] - precision[1], rates[0] - rates[1]]
    *values, gain, more = [Interval.of(one) for one in measured]
    recordings = len(set(held.recordings))
    yield f"{what}: {len(held.labels)} clips of {recordings} recordings, {len(columns)} classes"
    yield ""
    yield f"| | mAP [95 %] | named label among the best {TOP} [95 %] |"
    yield "|---|---|---|"
    for at, name in enumerate(scores):
        yield f"| {name} | {values[at]} | {values[len(scores) + at]} |"
    yield f"| this model minus YAMNet | {gain} | {more} |"
    yield ""
    if details:
        yield from _classes(held, scores, names, found)


def _classes(
    held: HeldOut, scores: Scores, names: NDArray[np.bool_], found: dict[str, NDArray[np.bool_]]
) -> Iterator[str]:
    columns = f"average precision: {' | '.join(scores)} | among the best {TOP}: {MODEL} | {TEACHER}"
    yield f"| class | recordings | clips | {columns} |"
    yield f"|---|--:|--:|{'--:|' * (len(scores) + 2)}"
    for c in held.vocabulary:
        known = held.wide_facts[:, c] >= 0
        truth = held.wide_facts[known, c] == 1
        own = names[:, c] if names[:, c].any() else held.wide_facts[:, c] == 1
        values = [average_precision(side[known, c], truth) for side in scores.values()]
        values += [float(found[name][own].mean()) for name in (MODEL, TEACHER)]
        count = len({name for name, has in zip(held.recordings, held.wide_facts[:, c] == 1, strict=True) if has})
        cells = " | ".join(f"{value:.2f}" for value in values)
        yield f"| {ontology().labels[c].name} | {count} | {int(truth.sum())} | {cells} |"
    yield ""
