"""Audio quality on recordings that were never trained on: average precision, and agreement with the teacher.

A clip's score is the mean over its windows. The file's name gives the truth; see `heldout` for what counts as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perceiverd.evaluation.metrics import (
    Facts,
    Interval,
    average_precision,
    bootstrap,
    correlation,
    drawn_rows,
    mean_precisions,
    quartiles,
    ranks,
)
from perceiverd.training.evaluation.heldout import FEWEST, HeldOut
from perceiverd.training.evaluation.scores import sigmoid

TEACHER = "YAMNet, its teacher"
AUDIBLE = 0.1
"""From this score of the teacher on, a recording counts as having the class."""
ScoresByModel = Mapping[str, NDArray[np.float32]]
"""Scores (clips, classes) of each model by name, including the teacher."""


def clip_scores(scores: Mapping[str, NDArray[np.float32]], held: HeldOut) -> dict[str, NDArray[np.float32]]:
    """Scores (clips, classes) of each model from its scores of windows, and those of the teacher.

    The teacher's score is 0 for a label that it lacks.
    """
    found = {name: held.by_clip(windows) for name, windows in scores.items()}
    return found | {TEACHER: held.by_clip(np.nan_to_num(sigmoid(held.teacher)))}


def audio_rows(
    held: HeldOut, scores: ScoresByModel, names: Sequence[str], what: str, *, details: bool
) -> Iterator[str]:
    """The report on one split as Markdown, line by line. The first model is the one that the report is about."""
    labelled = sum(bool(labels) for labels in held.labels)
    above = sorted(set(held.measurable) - set(held.vocabulary))
    yield (
        f"Sound, {what}: {labelled} labelled clips of {len(set(held.recordings))} recordings, {len(held.clip)} windows."
    )
    yield ""
    yield (
        f"| mAP [95 %] | {len(held.vocabulary)} classes by name | minus the teacher's | divided by the teacher's"
        f" | {len(above)} classes above them |"
    )
    yield "|---|---|---|---|---|"
    compared = compare(scores, held.wide_facts, held.vocabulary, held.recordings)
    wide = compare(scores, held.wide_facts, above, held.recordings)
    for name, (own, difference, ratio) in compared.items():
        beside = ("", "") if name == TEACHER else (str(difference), str(ratio))
        yield f"| {name} | {own} | {beside[0]} | {beside[1]} | {wide[name][0]} |"
    if not held.vocabulary:
        yield ""
        yield f"Too few clips: no class by name has {FEWEST} recordings that have it and one that lacks it."
    yield ""
    if details:
        yield from _details(held, scores, names)


def compare(
    scores: ScoresByModel, facts: Facts, columns: Sequence[int], groups: Sequence[str]
) -> dict[str, tuple[Interval, Interval, Interval]]:
    """For each model its mAP, that minus the teacher's, and that divided by the teacher's, all on the same draws."""
    draws = drawn_rows(groups)
    each = {name: mean_precisions(one, facts, columns, draws) for name, one in scores.items()}
    teacher = each[TEACHER]
    return {
        name: (Interval.of(one), Interval.of(one - teacher), Interval.of(one / teacher)) for name, one in each.items()
    }


def _details(held: HeldOut, scores: ScoresByModel, names: Sequence[str]) -> Iterator[str]:
    yield f"| class | recordings | {' | '.join(scores)} |"
    yield f"|---|--:|{'--:|' * len(scores)}"
    recordings = np.asarray(held.recordings)
    for c in held.measurable:
        known = held.wide_facts[:, c] >= 0
        truth = held.wide_facts[known, c] == 1
        values = (f"{average_precision(one[known, c], truth):.2f}" for one in scores.values())
        count = len(set(recordings[known][truth]))
        yield f"| {names[c]} | {count} | {' | '.join(values)} |"
    yield ""


def agreement_rows(held: HeldOut, model: NDArray[np.float32], teacher: NDArray[np.float32]) -> Iterator[str]:
    """How far a model agrees with its teacher; scores are (clips, classes)."""
    taught = ~np.isnan(held.teacher).all(axis=0)
    lists = [np.where(taught, scores, -1).argsort(axis=1)[:, -3:] for scores in (model, teacher)]
    shared = np.array([len(set(a) & set(b)) / 3 for a, b in zip(*lists, strict=True)])
    overlap = bootstrap(lambda rows: float(shared[rows].mean()), held.recordings)
    yield (
        f"Share of the teacher's 3 best labels of a clip that are among the model's 3 best: {overlap}"
        f" ({len(shared)} clips)."
    )
    audible = [c for c in np.flatnonzero(taught) if _recordings(held, teacher[:, c] >= AUDIBLE) >= FEWEST]
    if audible:
        of_scores = correlation(model[:, audible].T, teacher[:, audible].T)
        of_ranks = correlation(ranks(model[:, audible].T), ranks(teacher[:, audible].T))
        yield (
            f"Correlation with the teacher over the clips, for the {len(audible)} classes that the teacher scores"
            f" {AUDIBLE:g} or more in {FEWEST} recordings or more (median and quartiles over the classes):"
            f" {quartiles(of_scores)} of the scores, {quartiles(of_ranks)} of their ranks."
        )
    yield ""


def _recordings(held: HeldOut, clips: NDArray[np.bool_]) -> int:
    return len(set(np.asarray(held.recordings)[clips]))
