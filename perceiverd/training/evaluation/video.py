"""Quality by eye, and by ear and eye together, on pictures and sounds never trained on.

The windows are constructed: pictures that are panned, zoomed, lit and spoilt, with sounds of the same class or of
another; there is no labelled real video with its own sound to measure on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import ontology
from perceiverd.model.geometry import Video
from perceiverd.training.data.camera_motion import validation
from perceiverd.training.data.images import Split
from perceiverd.training.evaluation.heldout import HeldOut
from perceiverd.training.evaluation.metrics import Facts, bootstrap, bootstraps, mean_precision, recall_at
from perceiverd.training.evaluation.scores import ScoringModel
from perceiverd.training.teachers import efficientnet

TOP = 5
VIEWS = 4
PAIRS = 4  # of each sound: with so many pictures that match it, and as many that don't
ABSENT = 0.02
"""What a picture's name leaves out and its teacher gives no more than this is not to be seen in it."""


@dataclass(frozen=True, eq=False)
class HeldOutPictures:
    """Windows of held-out pictures."""

    frames: NDArray[np.uint8]
    """(N, T, H, W, 3)"""
    facts: Facts
    """(N, classes): 1 seen, 0 not to be seen, -1 unknown."""
    own: list[set[int]]
    """Of each window, the labels of its picture without those that merely stand above another."""
    picture: NDArray[np.intp]
    """(N,), which windows show the same one."""


def read_pictures(cache: Path, split: Split, video: Video) -> HeldOutPictures:
    """`VIEWS` windows of every picture of a split that is labelled or known to show none of the labels."""
    frames, targets = validation(cache, split, frames=video.frames, side=video.height, views=VIEWS)
    facts = np.where(targets == 1, 1, np.where(targets <= ABSENT, 0, -1)).astype(np.int8)
    return HeldOutPictures(frames, facts, [own_labels(row) for row in facts], np.arange(len(frames)) // VIEWS)


def own_labels(facts: Facts) -> set[int]:
    """The labels of one row of facts without those that merely stand above another: Dog, but not Animal."""
    labels = ontology().labels
    sure = {int(c) for c in np.flatnonzero(facts == 1)}
    above = set[str]().union(*(ontology().ancestors(labels[c].mid) for c in sure))
    return {c for c in sure if labels[c].mid not in above}


def mapped_classes(mapping: Path) -> list[int]:
    """The labels that the table names, without those that merely stand above one of them."""
    matrix = efficientnet.read_mapping(mapping, ontology())
    return sorted(set[int]().union(*(own_labels(row.astype(np.int8)) for row in matrix)))


def teacher_scores(teacher: efficientnet.EfficientNetTeacher, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, classes): what EfficientNet-Lite0 sees in the same frames, enlarged to its own 224 pixels, on the mean."""
    side = efficientnet.SIDE
    rows = []
    for window in frames:
        large = np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC) for frame in window])
        rows.append(teacher(large.astype(np.uint8)).mean(axis=0))
    return np.stack(rows)


def hits(scores: NDArray[np.float32], own: Sequence[set[int]], classes: Sequence[int]) -> NDArray[np.bool_]:
    """Of each window with a label among these classes, whether one is among its TOP best of them."""
    best = np.asarray(classes)[scores[:, classes].argsort(axis=1)[:, -TOP:]]
    wanted = [labels & set(classes) for labels in own]
    return np.array([bool(labels & set(top)) for labels, top in zip(wanted, best.tolist(), strict=True)])


def picture_rows(
    shown: HeldOutPictures, seen: dict[str, NDArray[np.float32]], classes: Sequence[int], what: str
) -> Iterator[str]:
    """Rows of the table on pictures alone: each model's hit rate on the mapped classes, drawn by picture."""
    rows = np.array([bool(labels & set(classes)) for labels in shown.own])
    own = [labels for labels, row in zip(shown.own, rows, strict=True) if row]
    groups = shown.picture[rows].astype(str)
    for name, scores in seen.items() if own else ():
        hit = hits(scores[rows], own, classes)
        rate = bootstrap(lambda draw, hit=hit: float(hit[draw].mean()), groups.tolist())  # type: ignore[misc]
        yield f"| {name} | {what} | {len(set(groups))} | {len(hit)} | {rate} |"


@dataclass(frozen=True, eq=False)
class AudioVideoPairs:
    """Sounds with pictures."""

    sound: NDArray[np.intp]
    """(P,), windows of the held-out sounds."""
    sight: NDArray[np.intp]
    """(P,), windows of the held-out pictures."""
    matching: NDArray[np.bool_]


def make_pairs(held: HeldOut, shown: HeldOutPictures, seed: int = 0) -> AudioVideoPairs:
    """Each clip's loudest window with PAIRS windows of a picture of its class, and with PAIRS of another.

    Only sounds of classes that have pictures, so that matching and mismatching pairs are of the same sounds.
    """
    rng = np.random.default_rng(seed)
    places = {label.name: label.index for label in ontology().labels}
    rows: list[tuple[int, int, bool]] = []
    for clip, names in enumerate(held.labels):
        named, heard = {places[name] for name in names}, held.wide_facts[clip] == 1
        matches = np.flatnonzero([bool(own & named) for own in shown.own])
        windows = np.flatnonzero(held.clip == clip)
        if not len(matches) or not len(windows):
            continue
        sound = int(windows[held.below_db[windows].argmin()])
        # A picture of a bird is neither a cock's nor another class's, and the other way round.
        kin = (shown.facts[:, list(named)] == 1).any(axis=1) | [bool(heard[list(own)].any()) for own in shown.own]
        others = np.flatnonzero(~kin & [bool(own) for own in shown.own])
        for matching, choice in ((True, matches), (False, others)):
            rows += [(sound, int(sight), matching) for sight in rng.permutation(choice)[:PAIRS]]
    table = np.array(rows, np.intp).reshape(-1, 3)
    return AudioVideoPairs(table[:, 0], table[:, 1], table[:, 2] == 1)


def audio_video_rows(
    student: ScoringModel, held: HeldOut, shown: HeldOutPictures, pairs: AudioVideoPairs
) -> Iterator[str]:
    """The table on ear and eye together: sound labels, picture labels, and all, by what the model was given."""
    mel, frames = held.mel[pairs.sound], shown.frames[pairs.sight]
    by_ear = student.scores(student.logits(held.mel[(sounds := np.unique(pairs.sound))], None))
    by_eye = student.scores(student.logits(None, shown.frames[(sights := np.unique(pairs.sight))]))
    given = {
        "sound alone": by_ear[np.searchsorted(sounds, pairs.sound)],
        "picture alone": by_eye[np.searchsorted(sights, pairs.sight)],
        "both": student.scores(student.logits(mel, frames)),
    }
    heard, seen = held.wide_facts[held.clip[pairs.sound]], shown.facts[pairs.sight]
    # There is what either sense vouches for; absent is what one denies and the other doesn't vouch for.
    either = np.where((heard == 0) | (seen == 0), 0, -1).astype(np.int8)
    either[(heard == 1) | (seen == 1)] = 1
    # What the other sense vouches for is no mistake of this one.
    heard, seen = (np.where((one == 0) & (either == 1), -1, one).astype(np.int8) for one in (heard, seen))
    for matching, kind in ((True, "Of the same class"), (False, "Of different classes")):
        if not len(rows := np.flatnonzero(pairs.matching == matching)):
            continue
        clips = held.clip[pairs.sound[rows]]
        groups = np.asarray(held.recordings)[clips].tolist()
        count = len(set(shown.picture[pairs.sight[rows]]))
        yield f"{kind}: {len(rows)} pairs of {len(set(groups))} recordings and {count} pictures"
        yield ""
        yield "| given | mAP: of the sound | of the picture | of both | recall at 5: of the sound | of the picture |"
        yield "|---|---|---|---|---|---|"
        for name, scores in given.items():
            yield f"| {name} | {' | '.join(_cells(scores[rows], heard[rows], seen[rows], either[rows], groups))} |"
        yield ""


def _cells(scores: NDArray[np.float32], heard: Facts, seen: Facts, either: Facts, groups: Sequence[str]) -> list[str]:
    columns = [[c for c in range(scores.shape[1]) if {0, 1} <= set(facts[:, c])] for facts in (heard, seen, either)]
    own = [_only_own(facts) for facts in (heard, seen)]
    # Labels that stand above both would else take the places among the best.
    ranked = np.flatnonzero((np.concatenate(own) == 1).any(axis=0)).tolist()

    def measure(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        precision = [
            mean_precision(scores[rows], f[rows], c) for f, c in zip((heard, seen, either), columns, strict=True)
        ]
        return np.array(precision + [recall_at(scores[rows], facts[rows], ranked, TOP) for facts in own])

    return [str(one) for one in bootstraps(measure, groups)]


def _only_own(facts: Facts) -> Facts:
    """The same facts without labels that merely stand above another of the row."""
    out = np.where(facts == 1, -1, facts).astype(np.int8)
    for row, known in zip(out, facts, strict=True):
        row[list(own_labels(known))] = 1
    return out
