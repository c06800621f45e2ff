"""Quality on video alone, and on audio and video together, with pictures and sounds that were never trained on.

The windows are constructed: moved, lit and distorted pictures, with sounds of the same class or of another. There is
no labelled real video with its own audio to measure on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import ontology
from perceiverd.evaluation.metrics import Facts, Interval, bootstrap, drawn_rows, mean_precisions, recalls_at
from perceiverd.model.geometry import Video
from perceiverd.training.data.camera_motion import validation
from perceiverd.training.data.images import Split
from perceiverd.training.evaluation.heldout import HeldOut
from perceiverd.training.evaluation.scores import ScoringModel
from perceiverd.training.teachers import efficientnet

TOP = 5
VIEWS = 2
"""Windows of each picture."""
PAIRS = 1
"""Pictures that match each sound, and as many that do not: one, because each pair takes a pass of the whole network."""
ABSENT = 0.02
"""A label that is not in a picture's name counts as absent if its teacher gives it at most this score."""


@dataclass(frozen=True, eq=False)
class HeldOutPictures:
    """Windows of held-out pictures."""

    frames: NDArray[np.uint8]
    """(N, T, H, W, 3)"""
    facts: Facts
    """(N, classes): 1 visible, 0 not visible, -1 unknown."""
    own: list[set[int]]
    """For each window the labels of its picture, without labels above another of them."""
    picture: NDArray[np.intp]
    """(N,): the number of the picture that the window shows."""


def read_pictures(cache: Path, split: Split, video: Video) -> HeldOutPictures:
    """`VIEWS` windows of every picture of a split that has a label, or is known to show none."""
    frames, targets = validation(cache, split, frames=video.frames, side=video.height, views=VIEWS)
    facts = np.where(targets == 1, 1, np.where(targets <= ABSENT, 0, -1)).astype(np.int8)
    return HeldOutPictures(frames, facts, [own_labels(row) for row in facts], np.arange(len(frames)) // VIEWS)


def own_labels(facts: Facts) -> set[int]:
    """The present labels of one row of facts, without labels above another of them: Dog, but not Animal."""
    labels = ontology().labels
    sure = {int(c) for c in np.flatnonzero(facts == 1)}
    above = set[str]().union(*(ontology().ancestors(labels[c].mid) for c in sure))
    return {c for c in sure if labels[c].mid not in above}


def mapped_classes(mapping: Path) -> list[int]:
    """The labels that the table maps to, without labels above one of them."""
    matrix = efficientnet.read_mapping(mapping, ontology())
    return sorted(set[int]().union(*(own_labels(row.astype(np.int8)) for row in matrix)))


def teacher_scores(teacher: efficientnet.EfficientNetTeacher, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, classes): mean scores of EfficientNet-Lite0 on the same frames, enlarged to its 224 pixels."""
    side = efficientnet.SIDE
    rows = []
    for window in frames:
        large = np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC) for frame in window])
        rows.append(teacher(large.astype(np.uint8)).mean(axis=0))
    return np.stack(rows)


def hits(scores: NDArray[np.float32], own: Sequence[set[int]], classes: Sequence[int]) -> NDArray[np.bool_]:
    """For each window with a label among these classes, whether one such label is among its TOP best of them."""
    best = np.asarray(classes)[scores[:, classes].argsort(axis=1)[:, -TOP:]]
    wanted = [labels & set(classes) for labels in own]
    return np.array([bool(labels & set(top)) for labels, top in zip(wanted, best.tolist(), strict=True)])


def picture_rows(
    pictures: HeldOutPictures, scores: dict[str, NDArray[np.float32]], classes: Sequence[int], what: str
) -> Iterator[str]:
    """Rows of the table on video alone: each model's hit rate on the mapped classes, with draws by picture."""
    rows = np.array([bool(labels & set(classes)) for labels in pictures.own])
    own = [labels for labels, row in zip(pictures.own, rows, strict=True) if row]
    groups = pictures.picture[rows].astype(str)
    for name, found in scores.items() if own else ():
        hit = hits(found[rows], own, classes)
        rate = bootstrap(lambda draw, hit=hit: float(hit[draw].mean()), groups.tolist())  # type: ignore[misc]
        yield f"| {name} | {what} | {len(set(groups))} | {len(hit)} | {rate} |"


@dataclass(frozen=True, eq=False)
class AudioVideoPairs:
    """Sounds combined with pictures."""

    sound: NDArray[np.intp]
    """(P,), windows of the held-out recordings."""
    picture: NDArray[np.intp]
    """(P,), windows of the held-out pictures."""
    matching: NDArray[np.bool_]
    """(P,), whether both show the same class."""


def make_pairs(held: HeldOut, pictures: HeldOutPictures, seed: int = 0) -> AudioVideoPairs:
    """Each clip's loudest window with PAIRS windows of pictures of its class, and with PAIRS of other classes.

    Only for classes that have pictures, so that matching and other pairs have the same sounds.
    """
    rng = np.random.default_rng(seed)
    places = {label.name: label.index for label in ontology().labels}
    rows: list[tuple[int, int, bool]] = []
    for clip, names in enumerate(held.labels):
        named, present = {places[name] for name in names}, held.wide_facts[clip] == 1
        matches = np.flatnonzero([bool(own & named) for own in pictures.own])
        windows = np.flatnonzero(held.clip == clip)
        if not len(matches) or not len(windows):
            continue
        sound = int(windows[held.below_db[windows].argmin()])
        # A picture of a bird neither matches a cock nor is of another class, and the other way round.
        shows_sound = (pictures.facts[:, list(named)] == 1).any(axis=1)
        related = shows_sound | [bool(present[list(own)].any()) for own in pictures.own]
        others = np.flatnonzero(~related & [bool(own) for own in pictures.own])
        for matching, choice in ((True, matches), (False, others)):
            rows += [(sound, int(picture), matching) for picture in rng.permutation(choice)[:PAIRS]]
    table = np.array(rows, np.intp).reshape(-1, 3)
    return AudioVideoPairs(table[:, 0], table[:, 1], table[:, 2] == 1)


def audio_video_rows(
    model: ScoringModel, held: HeldOut, pictures: HeldOutPictures, pairs: AudioVideoPairs
) -> Iterator[str]:
    """The table on audio and video together: labels of the sound, of the picture, and all, by the model's input."""
    scores = _scores_by_input(model, held, pictures, pairs)
    facts = _pair_facts(held, pictures, pairs)
    for matching, kind in ((True, "Of the same class"), (False, "Of different classes")):
        if not len(rows := np.flatnonzero(pairs.matching == matching)):
            continue
        groups = np.asarray(held.recordings)[held.clip[pairs.sound[rows]]].tolist()
        count = len(set(pictures.picture[pairs.picture[rows]]))
        yield f"{kind}: {len(rows)} pairs of {len(set(groups))} recordings and {count} pictures"
        yield ""
        yield "| given | mAP: of the sound | of the picture | of both | recall at 5: of the sound | of the picture |"
        yield "|---|---|---|---|---|---|"
        for name, found in scores.items():
            yield f"| {name} | {' | '.join(_cells(found[rows], [one[rows] for one in facts], groups))} |"
        yield ""


def _scores_by_input(
    model: ScoringModel, held: HeldOut, pictures: HeldOutPictures, pairs: AudioVideoPairs
) -> dict[str, NDArray[np.float32]]:
    """(P, classes) by what the model is given."""
    sounds, shown = np.unique(pairs.sound), np.unique(pairs.picture)
    of_sounds = model.scores(model.logits(held.mel[sounds], None))
    of_pictures = model.scores(model.logits(None, pictures.frames[shown]))
    return {
        "sound alone": of_sounds[np.searchsorted(sounds, pairs.sound)],
        "picture alone": of_pictures[np.searchsorted(shown, pairs.picture)],
        "both": model.scores(model.logits(held.mel[pairs.sound], pictures.frames[pairs.picture])),
    }


def _pair_facts(held: HeldOut, pictures: HeldOutPictures, pairs: AudioVideoPairs) -> tuple[Facts, Facts, Facts]:
    """Facts (P, classes) of the sound, of the picture, and of both together."""
    audible, visible = held.wide_facts[held.clip[pairs.sound]], pictures.facts[pairs.picture]
    # A label is present if either has it, and absent if one lacks it and the other is unknown or lacks it too.
    both = np.where((audible == 0) | (visible == 0), 0, -1).astype(np.int8)
    both[(audible == 1) | (visible == 1)] = 1
    # A label that only the other one has is not a mistake of this one.
    audible, visible = (np.where((one == 0) & (both == 1), -1, one).astype(np.int8) for one in (audible, visible))
    return audible, visible, both


def _cells(scores: NDArray[np.float32], facts: Sequence[Facts], groups: Sequence[str]) -> list[str]:
    """For sound, picture and both the mAP; for sound and picture the recall at TOP."""
    columns = [[c for c in range(scores.shape[1]) if {0, 1} <= set(one[:, c])] for one in facts]
    own = [_only_own(one) for one in facts[:2]]
    # Labels that only stand above others are left out, or they would take places among the best.
    ranked = np.flatnonzero((np.concatenate(own) == 1).any(axis=0)).tolist()
    draws = drawn_rows(groups)
    values = [mean_precisions(scores, f, c, draws) for f, c in zip(facts, columns, strict=True)]
    values += [recalls_at(scores, one, ranked, TOP, draws) for one in own]
    return [str(Interval.of(one)) for one in values]


def _only_own(facts: Facts) -> Facts:
    """The same facts, with labels above another present label of the row unknown."""
    out = np.where(facts == 1, -1, facts).astype(np.int8)
    for row, known in zip(out, facts, strict=True):
        row[list(own_labels(known))] = 1
    return out
