"""Quality of a fitted model on held-out clips: the labels that were taught, and whether the old labels got worse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.evaluation.manifest import Manifest, ManifestRow, log_faults
from perceiverd.evaluation.metrics import Interval, average_precision, bootstrap
from perceiverd.model.card import Card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.finetune import clip_cache
from perceiverd.training.finetune.clip_cache import ClipCache
from perceiverd.training.finetune.sampling import Vocabulary

BATCH = 16
FEWEST = 3
"""The fewest files of a class for which a measure means something."""
Scores = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Clips, their labels, and the scores that models give them."""

    files: tuple[str, ...]
    truth: NDArray[np.bool_]
    """(clips, classes)"""
    scores: tuple[Scores, ...]
    """(clips, classes) of each model: the mean over the clip's windows, which overlap by half."""

    def precision(self, model: int, column: int) -> float:
        """Average precision of one class."""
        return average_precision(self.scores[model][:, column], self.truth[:, column])


def score_clips(held: Manifest, cards: Sequence[Card], folder: Path, *, device: str, threads: int) -> ClipScores:
    """Score the labelled clips of a manifest with models of one geometry. `folder`: of decoded clips.

    The first model has all labels of the manifest. Raises MediaError if no clip can be read.
    """
    card = cards[0]
    clips = _decoded(held, ClipCache(folder, card.geometry), threads)
    vocabulary = Vocabulary(card.labels, held.mids, old=len(card.labels))
    truth = np.zeros((len(clips), len(card.labels)), np.bool_)
    for at, (row, _) in enumerate(clips):
        truth[at, vocabulary.present(row.labels)] = True
    taggers = [Tagger(each, device) for each in cards]
    scores = [_scores(place, taggers, card) for _, place in clips]
    by_model = tuple(np.stack([each[model] for each in scores]) for model in range(len(cards)))
    return ClipScores(tuple(str(row.file) for row, _ in clips), truth, by_model)


def _decoded(held: Manifest, cache: ClipCache, threads: int) -> list[tuple[ManifestRow, Path]]:
    """The labelled clips that can be read, and their files in the cache."""
    rows = [row for row in held.rows if row.labels]
    found = dict(cache.fill(rows, threads))
    faults = [(row, error) for row, error in found.items() if isinstance(error, MediaError)]
    log_faults([f"{held.path}: line {row.number}: {error}" for row, error in faults])
    clips = [(row, place) for row in rows if isinstance(place := found[row], Path)]
    if not clips:
        raise MediaError(f"{held.path}: none of its clips can be read")
    return clips


def _scores(place: Path, taggers: Sequence[Tagger], card: Card) -> list[Scores]:
    windows = clip_cache.load(place).windows(card.geometry, card.geometry.window_ns // 2)
    parts = [windows[at : at + BATCH] for at in range(0, len(windows), BATCH)]
    return [np.concatenate([tagger.tag(part) for part in parts]).mean(axis=0) for tagger in taggers]


def report(found: ClipScores, card: Card, taught: Sequence[int], before: Card | None) -> str:
    """As Markdown: each of the classes `taught`; the mean over the other classes of the clips, after and `before`."""
    return "\n".join([*_taught_table(found, card, taught), *_old_table(found, taught, before)])


def _taught_table(found: ClipScores, card: Card, taught: Sequence[int]) -> Iterator[str]:
    yield f"{len(found.files)} held-out clips of {len(set(found.files))} files"
    yield ""
    yield "| label | clips | average precision | found | false alarms |"
    yield "|---|--:|--:|--:|--:|"
    for place in taught:
        if found.truth[:, place].any():
            yield _taught_row(found, card, place)
    yield ""
    yield "(found, false alarms: the mean score of the clip's windows is above the label's threshold)"


def _taught_row(found: ClipScores, card: Card, place: int) -> str:
    present = found.truth[:, place]
    above = found.scores[0][:, place] > card.calibration[place].threshold
    hits, false = int((above & present).sum()), int((above & ~present).sum())
    count, others = int(present.sum()), int((~present).sum())
    name, precision = card.labels[place].name, found.precision(0, place)
    return f"| {name} | {count} | {precision:.3f} | {hits} of {count} | {false} of {others} |"


def _old_table(found: ClipScores, taught: Sequence[int], before: Card | None) -> Iterator[str]:
    """Old labels with enough files, before and after the fit; nothing if there are none."""
    files, count = np.asarray(found.files), len(before.labels) if before else 0
    old = [c for c in range(count) if c not in taught and len(set(files[found.truth[:, c]])) >= FEWEST]
    if not old:
        return
    yield ""
    yield f"| {len(old)} old labels of {FEWEST} files or more | mAP [95 %] |"
    yield "|---|---|"
    yield f"| before | {_mean_precision(found, 1, old)} |"
    yield f"| after | {_mean_precision(found, 0, old)} |"


def _mean_precision(found: ClipScores, model: int, classes: Sequence[int]) -> Interval:
    scores, truth = found.scores[model], found.truth

    def measure(rows: NDArray[np.intp]) -> float:
        return float(np.nanmean([average_precision(scores[rows, c], truth[rows, c]) for c in classes]))

    return bootstrap(measure, found.files)
