"""`perceiverd eval`: from a manifest and models to a result. It prints and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perceiverd import __version__
from perceiverd.core.errors import ConfigError, MediaError
from perceiverd.core.labels import Label, ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.evaluation import manifest, measure, psds
from perceiverd.evaluation.detections import Threshold
from perceiverd.evaluation.manifest import Manifest, ManifestFormat
from perceiverd.evaluation.measure import ModelMeasures
from perceiverd.evaluation.metrics import ROUNDS
from perceiverd.evaluation.results import EvaluationResult, FailureResult
from perceiverd.evaluation.scoring import Failure, ScoredManifest, ScoringOptions, score
from perceiverd.evaluation.truth import MeasuredLabels, TruthKind, measured_labels, stretches
from perceiverd.offline.tag import TOLERANCE
from perceiverd.pipeline.rules import EventOptions
from perceiverd.pipeline.tagger import Tagger

FEWEST_RECORDINGS = 10
"""With fewer recordings an interval over draws of recordings says little."""

Progress = Callable[[Path, int], None]


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What to measure."""

    manifest: Path
    truth: TruthKind = "clips"
    manifest_format: ManifestFormat = "auto"
    media: Path | None = None
    """The folder of the clips, for AudioSet's format."""
    thresholds: tuple[float, ...] = ()
    """Of all labels, besides each label's own."""
    hop_ns: int = NS_PER_S // 2
    batch: int = 16
    conceal_ns: int = TOLERANCE.conceal_ns
    events: EventOptions = field(default_factory=EventOptions)
    rounds: int = ROUNDS
    """Draws of the bootstrap."""
    jobs: int | None = None
    """Files that are read at the same time; None: as many as are useful."""


@dataclass(frozen=True, eq=False)
class NamedTagger:
    """A loaded model by the name that the user gave it."""

    name: str
    tagger: Tagger


def read_manifest(options: EvaluationOptions, models: Sequence[Sequence[Label]]) -> Manifest:
    """The manifest; files that are missing are in `absent`. Raises ConfigError if it cannot be used."""
    known = {label.mid: label for labels in (ontology().labels, *models) for label in labels}
    found = manifest.read(
        options.manifest,
        tuple(known.values()),
        manifest_format=options.manifest_format,
        media=options.media,
        skip=1.0,
        logs=False,
        own_classes=False,
    )
    if not found.rows:
        first = found.absent[0]
        raise ConfigError(
            f"{options.manifest}: none of its {len(found.absent)} files exists; line {first.number}: {first.file}"
        )
    if found.audioset and options.truth == "events":
        raise ConfigError(
            f"{options.manifest}: AudioSet's lists say what a clip has, not when; list events in our own format"
        )
    return found


def evaluate(
    found: Manifest,
    models: Sequence[NamedTagger],
    options: EvaluationOptions,
    progress: Progress = lambda *_: None,
) -> EvaluationResult:
    """Tag the files of a manifest and measure. Raises MediaError if no file can be measured, ConfigError for labels."""
    labels = measured_labels(found, [each.tagger.card.labels for each in models])
    if not labels.labels:
        raise ConfigError(f"{found.path}: no label in it is one of the model's; `perceiverd models info` lists those")
    thresholds: tuple[Threshold, ...] = (None, *options.thresholds)
    scoring = ScoringOptions(
        options.truth, options.hop_ns, options.batch, options.conceal_ns, thresholds, options.events, options.jobs
    )
    scored = score(stretches(found, options.truth, labels), labels, [each.tagger for each in models], scoring, progress)
    if not scored.by_model[0]:
        raise MediaError(f"{found.path}: no file can be measured; the first: {scored.failures[0].error}")
    owners, draws = measure.draws_of(scored.by_model[0], options.rounds)
    measured = [
        ModelMeasures(each.name, each.tagger.card.sha256, own, owners, options.truth, labels, thresholds, draws)
        for each, own in zip(models, scored.by_model, strict=True)
    ]
    return _result(found, options, labels, scored, measured)


def _result(
    found: Manifest,
    options: EvaluationOptions,
    labels: MeasuredLabels,
    scored: ScoredManifest,
    measured: Sequence[ModelMeasures],
) -> EvaluationResult:
    first = measured[0]
    absent = [Failure(row.number, row.file, f"{row.file}: no such file") for row in found.absent]
    failures = sorted([*absent, *scored.failures], key=lambda each: each.line)
    counts = first.alerts[None]
    return EvaluationResult(
        version=__version__,
        manifest=str(found.path),
        truth=options.truth,
        hop_s=options.hop_ns / NS_PER_S,
        rounds=options.rounds,
        files=len({one.stretch.file for one in first.stretches}),
        recordings=len(first.draws),
        units=tuple(len(each.scores) for each in measured),
        true_events=int(counts.true.sum()),
        hours=float(counts.seconds.sum()) / measure.HOUR_S,
        unmeasured=labels.unmeasured,
        failures=tuple(FailureResult(each.line, str(each.file), each.error) for each in failures),
        models=tuple(measure.result(each) for each in measured),
        differences=tuple(measure.differences(*measured)) if len(measured) > 1 else (),
        notes=tuple(_notes(options, first)),
    )


def _notes(options: EvaluationOptions, first: ModelMeasures) -> list[str]:
    notes = []
    if not first.classes:
        notes.append("No label is present in one place and absent in another, so only false alarms are measured.")
    if options.truth == "clips":
        notes.append("PSDS and the time to alert need events with times: give --truth events.")
    elif not psds.available():
        notes.append("PSDS needs an extra: pip install 'perceiverd[eval]'.")
    if len(first.draws) < FEWEST_RECORDINGS:
        notes.append(f"The number of recordings is only {len(first.draws)}, so the intervals say little.")
    return notes
