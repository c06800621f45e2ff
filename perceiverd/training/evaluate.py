"""Quality on recordings never trained on: average precision by class, beside the teacher's on the same windows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from perceiverd.card import Card
from perceiverd.checkpoint import load_network
from perceiverd.encoding import mel_tokens, video_tokens
from perceiverd.labels import ontology
from perceiverd.training.motion import validation as picture_windows
from perceiverd.training.pool import dequantise

BATCH = 64
ROUNDS = 500  # of the bootstrap
FEWEST = 3  # recordings of a class: fewer tell little, and a bootstrap of them nothing


def average_precision(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Mean precision at the positives of (N,) scores, best first; ties count at their worst; NaN without a positive."""
    if not truth.any():
        return float("nan")
    # Among equal scores the negatives come first, so that a constant score earns no luck.
    order = np.lexsort((truth, -scores))
    hits = truth[order].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    return float(precision[truth[order]].mean())


@dataclass(frozen=True)
class Interval:
    """A measure with a bootstrap interval of 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(measure: Callable[[NDArray[np.intp]], float], groups: Sequence[str], seed: int = 0) -> Interval:
    """`measure` of row numbers, and its spread when whole groups are drawn anew.

    Clips cut from one recording are not independent, so recordings are drawn, not clips.
    """
    rng = np.random.default_rng(seed)
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(which == i) for i in range(len(names))]
    draws = [measure(np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])) for _ in range(ROUNDS)]
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(measure(np.arange(len(which))), float(low), float(high))


@dataclass(frozen=True)
class Clips:
    """Held-out clips with the scores of student and teacher, each the mean over the clip's windows."""

    recordings: tuple[str, ...]
    truth: NDArray[np.bool_]
    """(clips, classes)"""
    student: NDArray[np.float32]
    teacher: NDArray[np.float32]
    windows: int

    @property
    def columns(self) -> list[int]:
        """The classes with enough recordings to be measured."""
        recordings = np.asarray(self.recordings)
        return [c for c in range(self.truth.shape[1]) if len(set(recordings[self.truth[:, c]])) >= FEWEST]

    def mean_ap(self, scores: NDArray[np.float32], columns: Sequence[int]) -> Interval:
        """Mean average precision over these classes; classes that a draw lacks are left out of it."""

        def measure(rows: NDArray[np.intp]) -> float:
            values = [average_precision(scores[rows, c], self.truth[rows, c]) for c in columns]
            return float(np.nanmean(values))

        return bootstrap(measure, self.recordings)


def read_clips(card: Card, folder: Path, split: str) -> Clips:
    """Score the windows of `training.pool.validation` with a model, and gather them by clip."""
    with (folder / f"{split}.clips.tsv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    with (folder / f"{split}.windows.tsv").open(encoding="utf-8", newline="") as lines:
        clip = np.array([int(row["clip"]) for row in csv.DictReader(lines, delimiter="\t")])
    names = {label.name: label.index for label in card.labels}
    truth = np.zeros((len(rows), len(card.labels)), dtype=np.bool_)
    for at, row in enumerate(rows):
        for name in filter(None, row["labels"].split("|")):
            truth[at, names[name]] = True
    logits = torch.from_numpy(np.load(folder / f"{split}.teacher.npy")).float()
    teacher = logits.sigmoid().nan_to_num().numpy()
    student = score_mel(card, np.load(folder / f"{split}.mel.npy"))
    return Clips(
        tuple(row["recording"] for row in rows), truth, _by_clip(student, clip), _by_clip(teacher, clip), len(clip)
    )


def _by_clip(values: NDArray[np.float32], clip: NDArray[np.intp]) -> NDArray[np.float32]:
    total = np.zeros((int(clip.max()) + 1, values.shape[1]))
    np.add.at(total, clip, values)
    mean: NDArray[np.float32] = (total / np.bincount(clip)[:, None]).astype(np.float32)
    return mean


@torch.inference_mode()
def score_mel(card: Card, mel: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, classes) scores of quantised spectrograms (N, frames, bands), by ear alone."""
    network, audio = load_network(card), card.geometry.audio
    assert audio is not None
    parts = (dequantise(torch.from_numpy(mel[at : at + BATCH])) for at in range(0, len(mel), BATCH))
    return np.concatenate([network({"audio": mel_tokens(part, audio)}).sigmoid().numpy() for part in parts])


def sounds(card: Card, folder: Path, *, details: bool = False) -> str:
    """The report on sounds, as Markdown."""
    return "\n".join(_sounds(card, folder, details))


def _sounds(card: Card, folder: Path, details: bool) -> Iterator[str]:
    for split, what in (("validation", "held-out recordings"), ("test", "held-out packages")):
        clips = read_clips(card, folder, split)
        columns = clips.columns
        labelled = int(clips.truth.any(axis=1).sum())
        yield f"Sound, {what}: {labelled} labelled clips, {clips.windows} windows, {len(columns)} classes"
        yield ""
        yield f"| | mAP [95 %] over {len(columns)} classes |"
        yield "|---|---|"
        yield f"| {card.name} | {clips.mean_ap(clips.student, columns)} |"
        yield f"| YAMNet, its teacher | {clips.mean_ap(clips.teacher, columns)} |"
        yield ""
        both = _overlap(clips.student, clips.teacher, 3)
        yield f"Of the teacher's 3 best labels of a clip, the model's 3 best hold {both:.2f} on the mean."
        yield ""
        if details:
            yield "| class | clips | AP | teacher's AP |"
            yield "|---|--:|--:|--:|"
            for c in columns:
                own, other = (average_precision(s[:, c], clips.truth[:, c]) for s in (clips.student, clips.teacher))
                yield f"| {card.labels[c].name} | {int(clips.truth[:, c].sum())} | {own:.2f} | {other:.2f} |"
            yield ""


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32], top: int) -> float:
    pairs = zip(one.argsort(axis=1)[:, -top:], other.argsort(axis=1)[:, -top:], strict=True)
    return float(np.mean([len(set(a) & set(b)) / top for a, b in pairs]))


def own_labels(targets: NDArray[np.float16]) -> set[int]:
    """The labels of a row of targets without those that merely stand above another: Dog, but not Animal."""
    labels = ontology().labels
    sure = {int(c) for c in np.flatnonzero(targets == 1)}
    above = set[str]().union(*(ontology().ancestors(labels[c].mid) for c in sure))
    return {c for c in sure if labels[c].mid not in above}


@torch.inference_mode()
def score_frames(card: Card, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, classes) scores of windows of pictures (N, T, H, W, 3), by eye alone."""
    network, video = load_network(card), card.geometry.video
    assert video is not None
    parts = (torch.from_numpy(frames[at : at + BATCH]) for at in range(0, len(frames), BATCH))
    return np.concatenate([network({"video": video_tokens(part, video)}).sigmoid().numpy() for part in parts])


def pictures(card: Card, cache: Path) -> str:
    """The report on pictures, as Markdown: how often a true label is among the best five."""
    lines = ["| pictures never trained on | windows | true label in the best 5 |", "|---|--:|--:|"]
    kinds: tuple[tuple[Literal["validation", "test"], str], ...] = (
        ("validation", "of the same packages"),
        ("test", "of other packages"),
    )
    for split, what in kinds:
        frames, targets = picture_windows(cache, split)
        labelled = (targets == 1).any(axis=1)
        visual = ~np.isnan(targets).all(axis=0)
        scores = np.where(visual, score_frames(card, frames[labelled]), -1)
        best = scores.argsort(axis=1)[:, -5:]
        hits = [bool(own_labels(row) & set(top)) for row, top in zip(targets[labelled], best, strict=True)]
        lines.append(f"| {what} | {len(hits)} | {np.mean(hits):.2f} |")
    return "\n".join(lines)
