"""What a fitted model makes of clips it was not fitted to: the labels it learnt, and whether the old ones suffered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.model.card import Card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.evaluation.metrics import average_precision, bootstrap
from perceiverd.training.finetune import clip_cache, manifest
from perceiverd.training.finetune.clip_cache import ClipCache
from perceiverd.training.finetune.manifest import Manifest
from perceiverd.training.finetune.sampling import Vocabulary

BATCH = 16
FEWEST = 3
"""Files of a class: fewer tell little."""
Scores = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ClipScores:
    """Clips, what is true of them and what models say of them."""

    files: tuple[str, ...]
    truth: NDArray[np.bool_]
    """(clips, classes)"""
    scores: tuple[Scores, ...]
    """(clips, classes) of each model: means over the clip's windows, hop half a window."""

    def precision(self, model: int, column: int) -> float:
        """Average precision of one class."""
        return average_precision(self.scores[model][:, column], self.truth[:, column])


def score_clips(held: Manifest, cards: Sequence[Card], shelf: Path, *, device: str, threads: int) -> ClipScores:
    """Score the clips of a manifest with models of one geometry, the first of which has all the labels."""
    card, lines = cards[0], [line for line in held.lines if line.labels]
    keeper = ClipCache(shelf, card.geometry)
    found = dict(keeper.fill(lines, threads))
    manifest.log_faults(
        [f"{held.path}: line {line.number}: {error}" for line, error in found.items() if isinstance(error, MediaError)]
    )
    there = [(line, place) for line in lines if isinstance(place := found[line], Path)]
    if not there:
        raise MediaError(f"{held.path}: none of its clips can be read")
    vocabulary = Vocabulary(card.labels, held.named, old=len(card.labels))
    truth = np.zeros((len(there), len(card.labels)), np.bool_)
    for at, (line, _) in enumerate(there):
        truth[at, vocabulary.present(line.labels)] = True
    taggers = [Tagger(each, device) for each in cards]
    scores = [_scored(place, taggers, card) for _, place in there]
    by_model = tuple(np.stack([each[model] for each in scores]) for model in range(len(cards)))
    return ClipScores(tuple(str(line.file) for line, _ in there), truth, by_model)


def _scored(place: Path, taggers: Sequence[Tagger], card: Card) -> list[Scores]:
    windows = clip_cache.load(place).windows(card.geometry, card.geometry.window_ns // 2)
    parts = [windows[at : at + BATCH] for at in range(0, len(windows), BATCH)]
    return [np.concatenate([tagger.tag(part) for part in parts]).mean(axis=0) for tagger in taggers]


def report(heard: ClipScores, card: Card, learnt: Sequence[int], before: Card | None) -> str:
    """As Markdown: each of the classes `learnt`; the mean over the others that the clips have, now and `before`."""
    return "\n".join(_report(heard, card, learnt, before))


def _report(heard: ClipScores, card: Card, learnt: Sequence[int], before: Card | None) -> Iterator[str]:
    yield f"{len(heard.files)} held-out clips of {len(set(heard.files))} files"
    yield ""
    yield "| label | clips | average precision | found | false alarms |"
    yield "|---|--:|--:|--:|--:|"
    for place in learnt:
        there = heard.truth[:, place]
        if not there.any():
            continue
        over = heard.scores[0][:, place] > card.calibration[place].threshold
        found, false = (
            f"{int((over & there).sum())} of {int(there.sum())}",
            f"{int((over & ~there).sum())} of {int((~there).sum())}",
        )
        name, precision = card.labels[place].name, heard.precision(0, place)
        yield f"| {name} | {int(there.sum())} | {precision:.3f} | {found} | {false} |"
    yield ""
    yield "(found, false alarm: the mean score of a clip's windows is above the label's threshold)"
    files = np.asarray(heard.files)
    old = [
        place
        for place in range(len(before.labels) if before else 0)
        if place not in learnt and len(set(files[heard.truth[:, place]])) >= FEWEST
    ]
    if not old:
        return
    yield ""
    yield f"| {len(old)} old labels of {FEWEST} files or more | mAP [95 %] |"
    yield "|---|---|"
    for name, model in (("before", 1), ("after", 0)):
        scores = heard.scores[model]

        def measure(rows: NDArray[np.intp], scores: Scores = scores) -> float:
            return float(np.nanmean([average_precision(scores[rows, c], heard.truth[rows, c]) for c in old]))

        yield f"| {name} | {bootstrap(measure, heard.files)} |"
