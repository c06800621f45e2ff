"""Quality by ear on recordings never trained on: average precision beside the teacher's, and how far both agree.

A clip's score is the mean over its windows. Truth is what the file's name vouches for; see `heldout` for what counts
as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perceiverd.training.evaluation.heldout import FEWEST, HeldOut
from perceiverd.training.evaluation.metrics import (
    Facts,
    Interval,
    average_precision,
    bootstrap,
    bootstraps,
    correlation,
    mean_precision,
    quartiles,
    ranks,
)
from perceiverd.training.evaluation.scores import sigmoid

TEACHER = "YAMNet, its teacher"
SPREAD = 0.1  # A teacher's score that shows that a class was heard at all.
ScoresByModel = Mapping[str, NDArray[np.float32]]
"""Scores (clips, classes) of each model by name, the teacher's among them."""


def clip_scores(scores: Mapping[str, NDArray[np.float32]], held: HeldOut) -> dict[str, NDArray[np.float32]]:
    """What each model says of each clip, given what it says of each window, and what the teacher says.

    Zero where the teacher lacks the label.
    """
    heard = {name: held.by_clip(windows) for name, windows in scores.items()}
    return heard | {TEACHER: held.by_clip(np.nan_to_num(sigmoid(held.teacher)))}


def audio_rows(held: HeldOut, heard: ScoresByModel, names: Sequence[str], what: str, *, details: bool) -> Iterator[str]:
    """The report on one split, line by line, as Markdown; the first model is the one that is reported on."""
    labelled = sum(bool(labels) for labels in held.labels)
    above = sorted(set(held.measurable) - set(held.vocabulary))
    yield (
        f"Sound, {what}: {labelled} labelled clips of {len(set(held.recordings))} recordings, {len(held.clip)} windows."
    )
    yield ""
    yield (
        f"| mAP [95 %] | {len(held.vocabulary)} classes by name | less the teacher's | over the teacher's"
        f" | {len(above)} classes above them |"
    )
    yield "|---|---|---|---|---|"
    compared = compare(heard, held.wide_facts, held.vocabulary, held.recordings)
    wide = compare(heard, held.wide_facts, above, held.recordings)
    for name, (own, less, over) in compared.items():
        beside = ("", "") if name == TEACHER else (str(less), str(over))
        yield f"| {name} | {own} | {beside[0]} | {beside[1]} | {wide[name][0]} |"
    yield ""
    if details:
        yield from _details(held, heard, names)


def compare(
    heard: ScoresByModel, facts: Facts, columns: Sequence[int], groups: Sequence[str]
) -> dict[str, tuple[Interval, Interval, Interval]]:
    """For each model its mAP, that less the teacher's, and that over the teacher's, all on the same draws."""

    def measure(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        each = np.array([mean_precision(scores[rows], facts[rows], columns) for scores in heard.values()])
        teacher = each[list(heard).index(TEACHER)]
        return np.concatenate([each, each - teacher, each / teacher])

    found = bootstraps(measure, groups)
    n = len(heard)
    return {name: (found[i], found[n + i], found[2 * n + i]) for i, name in enumerate(heard)}


def _details(held: HeldOut, heard: ScoresByModel, names: Sequence[str]) -> Iterator[str]:
    yield f"| class | recordings | {' | '.join(heard)} |"
    yield f"|---|--:|{'--:|' * len(heard)}"
    recordings = np.asarray(held.recordings)
    for c in held.measurable:
        known = held.wide_facts[:, c] >= 0
        truth = held.wide_facts[known, c] == 1
        values = (f"{average_precision(scores[known, c], truth):.2f}" for scores in heard.values())
        count = len(set(recordings[known][truth]))
        yield f"| {names[c]} | {count} | {' | '.join(values)} |"
    yield ""


def agreement_rows(held: HeldOut, model: NDArray[np.float32], teacher: NDArray[np.float32]) -> Iterator[str]:
    """How far the model says what its teacher says; scores are (clips, classes)."""
    taught = ~np.isnan(held.teacher).all(axis=0)
    lists = [np.where(taught, scores, -1).argsort(axis=1)[:, -3:] for scores in (model, teacher)]
    shared = np.array([len(set(a) & set(b)) / 3 for a, b in zip(*lists, strict=True)])
    overlap = bootstrap(lambda rows: float(shared[rows].mean()), held.recordings)
    heard = [c for c in np.flatnonzero(taught) if _recordings(held, teacher[:, c] >= SPREAD) >= FEWEST]
    yield (
        f"Of the teacher's 3 best labels of a clip the model's 3 best hold {overlap} on the mean ({len(shared)} clips)."
    )
    if heard:
        of_scores = correlation(model[:, heard].T, teacher[:, heard].T)
        of_ranks = correlation(ranks(model[:, heard].T), ranks(teacher[:, heard].T))
        yield (
            f"Correlation of both over the clips, of the {len(heard)} classes that the teacher scores {SPREAD:g} or"
            f" more in {FEWEST} recordings or more, median and quartiles over the classes: {quartiles(of_scores)} of"
            f" the scores, {quartiles(of_ranks)} of their ranks."
        )
    yield ""


def _recordings(held: HeldOut, clips: NDArray[np.bool_]) -> int:
    return len(set(np.asarray(held.recordings)[clips]))
