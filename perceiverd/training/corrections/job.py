"""One run of `perceiverd train fit --corrections`: read, learn, write a new model, and say what would have changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from perceiverd.core.errors import ConfigError, MediaError
from perceiverd.core.labels import Label
from perceiverd.corrections import Correction, Corrections
from perceiverd.history.filters import EventFilter
from perceiverd.history.reading import HistoryReader
from perceiverd.history.rows import StoredEvent
from perceiverd.model.card import CARD_FILE, Card
from perceiverd.sources.snapshots import recent
from perceiverd.training.corrections import material, output, report
from perceiverd.training.corrections.learning import CorrectionLearner, LearntClip, LearntRow
from perceiverd.training.corrections.material import Background
from perceiverd.training.corrections.replay import Classifier, Comparison, concerned
from perceiverd.training.corrections.rows import Vectors
from perceiverd.training.corrections.windows import HOP_S, Embedder, Run, clip_windows
from perceiverd.training.distill import rehearsal
from perceiverd.training.fitting.progress import ProgressReporter, progress_reporter

WEEK = timedelta(days=7)
MOST_EVENTS = 200
"""Stored events of one label that are judged again, the newest first."""
AROUND = timedelta(seconds=5)
"""This much before and after a stored event is judged, if it comes from recent sound."""
LONGEST = timedelta(seconds=30)
"""Of a stored event, this much from its beginning is judged."""
LOCAL = "local"


@dataclass(frozen=True)
class CorrectionTask:
    """What to learn from, and where the result goes."""

    corrections: Path
    """The folder that the page and `perceiverd teach` write."""
    out: Path
    """The new model's folder."""
    start: Card
    recent: tuple[Path, ...] = ()
    """Folders of recent sound; the first is this machine's."""
    folders: tuple[Path, ...] = ()
    """Folders with more background, which has none of the new sounds."""
    history: Path | None = None
    """The database of a history, to say what would have changed."""
    hours: float = 2.0
    """Of background, at most."""


def run(task: CorrectionTask) -> str:
    """Learn and write the model. Returns what the operator reads, as Markdown. Raises PerceiverdError."""
    if task.start.scores != "sigmoid":
        raise ConfigError(f"{task.start.name}: its labels exclude one another, so it cannot be corrected; use --from")
    if task.start.geometry.audio is None:
        raise ConfigError(f"{task.start.name}: takes no audio, so it cannot learn sounds; use another --from")
    if (task.out / CARD_FILE).exists():
        raise ConfigError(f"{task.out}: is a model already; give another --out")
    corrections = Corrections(task.corrections, {LOCAL: task.recent[0]} if task.recent else {})
    chosen = material.usable(corrections)
    with progress_reporter(None, silent=False) as progress:
        return CorrectionRun(task, corrections, chosen, progress).run()


class CorrectionRun:
    """One fit, from the corrections that have sound."""

    def __init__(
        self,
        task: CorrectionTask,
        corrections: Corrections,
        chosen: Sequence[Correction],
        progress: ProgressReporter,
    ) -> None:
        self._task, self._corrections, self._chosen, self._progress = task, corrections, chosen, progress
        self._embedder = Embedder(task.start)
        self._labels = labels_of(task.start, chosen)
        self._here = {LOCAL}
        """The names of the machine whose recent sound is at hand."""

    def run(self) -> str:
        """All steps, in order."""
        task, start = self._task, self._task.start
        with self._progress.stage("background"):
            background = material.background(
                task.recent, task.folders, self._chosen, self._embedder, task.hours, self._progress
            )
        with self._progress.stage("corrections"):
            clips = material.clips(self._corrections, self._chosen, self._embedder, background.noises, self._progress)
        rows = self._learn(clips, background)
        last = self._embedder.last
        old = Classifier(start.labels, last.weight.detach().numpy(), last.bias.detach().numpy(), start.calibration)
        new = output.corrected(start, last, self._labels, rows)
        lines = [*report.learnt(rows, clips, background.hours), ""]
        with self._progress.stage("comparing"):
            lines += self._compared(old, new, rows, background)
        text = "\n".join(lines)
        try:
            output.write(task.out, self._embedder, new, rows, self._description(text))
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{task.out}: cannot be written ({error}); give another --out") from error
        return f"{text}\n\nThe new model is {task.out}. Nothing was replaced: to use it, set model.name to this folder."

    def _learn(self, clips: Sequence[LearntClip], background: Background) -> list[LearntRow]:
        last = self._embedder.last
        remembered = np.asarray(rehearsal.features(self._task.start, self._embedder.network).numpy(), np.float32)
        learner = CorrectionLearner(
            self._task.start.labels,
            self._task.start.calibration,
            last.weight.detach().numpy(),
            last.bias.detach().numpy(),
            background.ordinary(remembered, self._task.start.geometry),
        )
        return learner.learn(clips, self._labels)

    # What would have changed.

    def _compared(
        self, old: Classifier, new: Classifier, rows: Sequence[LearntRow], background: Background
    ) -> Iterator[str]:
        taught = {each.label.index for each in rows}
        labels = concerned(self._labels, taught)
        comparison = Comparison(old, new, labels, self._task.start.geometry.window_ns)
        for stretch, (stream, start) in zip(background.runs, background.places, strict=True):
            comparison.ordinary(background.vectors[stretch], HOP_S, stream, start)
        if self._task.history is not None:
            with HistoryReader(self._task.history) as history:
                machines = [each.name for each in history.machines()]
                self._here = {LOCAL, *(machines if len(machines) == 1 else ())}
                for index in sorted(taught):
                    if index < len(self._task.start.labels):
                        self._judge_stored(comparison, history, index)
        yield from report.changed(comparison.changes, self._labels, self._task.history is not None)

    def _judge_stored(self, comparison: Comparison, history: HistoryReader, index: int) -> None:
        wanted = EventFilter(mids=(self._labels[index].mid,), after=datetime.now(UTC) - WEEK)
        events = history.events(wanted, MOST_EVENTS).events
        for number, each in enumerate(events, 1):
            comparison.stored(index, self._vectors_of(each), HOP_S)
            self._progress.update(number, number / len(events))

    def _vectors_of(self, event: StoredEvent) -> Vectors | None:
        """The vectors of a stored event's clip, or of the recent sound around it; None if neither is here."""
        geometry = self._task.start.geometry
        assert geometry.audio
        clip = None if event.details.clip is None else Path(event.details.clip)
        try:
            if clip is not None and clip.is_file():
                return self._embedder.vectors(clip_windows(clip, geometry, HOP_S))
            if event.machine not in self._here or not self._task.recent:
                return None
            end = min(event.end, event.start + LONGEST) + AROUND
            found = recent.cut(self._task.recent[0], event.stream, event.start - AROUND, end)
        except (MediaError, OSError):
            return None
        if found is None or found.rate_hz != geometry.audio.rate_hz:
            return None
        windows = list(Run(event.stream, found.start, found.samples).windows(geometry))
        return self._embedder.vectors(windows) if windows else None

    def _description(self, text: str) -> str:
        start = self._task.start
        return "\n".join(
            [
                f"# {self._task.out.name}",
                "",
                f"Corrected with `perceiverd train fit --corrections` from {start.name} (sha256 {start.sha256[:12]}…).",
                "Only the rows and thresholds of the labels in the first table changed.",
                f"Licence of the weights: {start.licence}.",
                "",
                text,
                "",
            ]
        )


def labels_of(start: Card, corrections: Sequence[Correction]) -> tuple[Label, ...]:
    """The labels of the model, then those that only the corrections have, in the order of their first correction.

    Raises ConfigError if one that the model lacks was wrong: nothing can be learnt from it alone.
    """
    known = {label.mid for label in start.labels}
    new = {each.mid: each.name for each in corrections if each.mid not in known and each.verdict != "wrong"}
    lost = next((each for each in corrections if each.mid not in known and each.mid not in new), None)
    if lost is not None:
        raise ConfigError(
            f"correction {lost.id}: {start.name} has no label {lost.name!r}; remove the correction, or give the model"
            " that had the label with --from"
        )
    first = len(start.labels)
    return (*start.labels, *(Label(first + at, mid, name) for at, (mid, name) in enumerate(new.items())))
