"""What a manifest says is there, and what it says is not: facts about clips, windows and events.

Two readings of a manifest. As `clips`, each row is a clip that has its labels somewhere; the rest of the file is not
measured. As `events`, each row is an event from its start to its end; all other time in these files lacks the
manifest's labels. A row without labels has none of them in either reading.

A label of AudioSet holds those above it too: a Bark is a Dog. Those below it may be there: they count neither way.
In AudioSet's own lists, a label that is not listed is absent, as in published measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import Label
from perceiverd.evaluation.manifest import Manifest, ManifestRow
from perceiverd.evaluation.metrics import Facts
from perceiverd.pipeline.rules import DENIED, lineage

TruthKind = Literal["clips", "events"]
COVERED = 0.5
"""A window has a label if an event covers this share of the window, or the window covers this share of the event."""


@dataclass(frozen=True, eq=False)
class MeasuredLabels:
    """The labels that are measured: those of the manifest that all models have, in a fixed order."""

    labels: tuple[Label, ...]
    """With their places here as indices. All but the denied ones if the manifest has no label at all."""
    unmeasured: tuple[str, ...]
    """The mids of the manifest's labels that some model lacks."""
    exact: bool
    """Whether a label says nothing about those above and below it."""

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The place of each label by mid."""
        return {label.mid: label.index for label in self.labels}

    @cached_property
    def implied(self) -> NDArray[np.bool_]:
        """(labels, labels): whether a row's label implies a column's, which is the same or one above it."""
        implied = np.eye(len(self.labels), dtype=np.bool_)
        if not self.exact:
            above, below = lineage(self.labels)
            implied[below, above] = True
        return implied

    @cached_property
    def related(self) -> NDArray[np.bool_]:
        """(labels, labels): whether one is the same as, above or below the other."""
        return np.asarray(self.implied | self.implied.T)

    def facts(self, present: Iterable[int], unknown: Iterable[int] = ()) -> Facts:
        """(labels,) facts if these places are present, and these others may be."""
        facts = np.zeros(len(self.labels), np.int8)
        for place in unknown:
            facts[self.related[place]] = -1
        for place in (present := list(present)):
            facts[self.related[place]] = -1
        for place in present:
            facts[self.implied[place]] = 1
        return facts


@dataclass(frozen=True, slots=True)
class TrueEvent:
    """A stretch of time that has a label."""

    place: int
    """The label's, in `MeasuredLabels`."""
    start_s: float
    end_s: float
    """Infinite: to the end of the file."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is measured as one: a clip, or a whole file with its events."""

    file: Path
    line: int
    """Its line in the manifest; of a file, its first one."""
    recording: str
    """Stretches of one recording are drawn together."""
    start_s: float
    end_s: float | None
    """None: to the end of the file."""
    cut: bool
    """Whether the file may be the clip itself; see `ManifestRow`."""
    events: tuple[TrueEvent, ...]
    """Within the file. Those of a clip last as long as the clip."""


def measured_labels(manifest: Manifest, models: Sequence[Sequence[Label]]) -> MeasuredLabels:
    """The labels that are measured with these models."""
    names = {label.mid: label.name for label in models[0]}
    known = set(names).intersection(*({label.mid for label in labels} for labels in models[1:]))
    mids = [mid for mid in manifest.mids if mid in known]
    if not manifest.mids:
        mids = [mid for mid, name in names.items() if mid in known and name not in DENIED]
    labels = tuple(Label(place, mid, names[mid]) for place, mid in enumerate(mids))
    unmeasured = tuple(mid for mid in manifest.mids if mid not in known)
    return MeasuredLabels(labels, unmeasured, exact=manifest.audioset)


def stretches(manifest: Manifest, kind: TruthKind, labels: MeasuredLabels) -> dict[Path, list[Stretch]]:
    """What is measured in each file, in the manifest's order."""
    by_file: dict[Path, list[ManifestRow]] = {}
    for row in manifest.rows:
        by_file.setdefault(row.file, []).append(row)
    if kind == "events":
        return {file: [_file(rows, labels)] for file, rows in by_file.items()}
    return {file: [_clip(row, labels) for row in rows] for file, rows in by_file.items()}


def _clip(row: ManifestRow, labels: MeasuredLabels) -> Stretch:
    return Stretch(row.file, row.number, _recording(row), row.start_s, row.end_s, row.cut, tuple(_events(row, labels)))


def _file(rows: Sequence[ManifestRow], labels: MeasuredLabels) -> Stretch:
    first = rows[0]
    events = tuple(event for row in rows for event in _events(row, labels))
    return Stretch(first.file, first.number, _recording(first), 0.0, None, False, events)


def _events(row: ManifestRow, labels: MeasuredLabels) -> Iterable[TrueEvent]:
    end_s = np.inf if row.end_s is None else row.end_s
    return (TrueEvent(labels.places[mid], row.start_s, end_s) for mid in row.labels if mid in labels.places)


def _recording(row: ManifestRow) -> str:
    return row.recording or str(row.file)


def window_facts(stretch: Stretch, labels: MeasuredLabels, start_s: float, end_s: float) -> Facts:
    """(labels,) facts about a window of a file that is read as events. Touched by an event, but not enough: unknown."""
    present, unknown = [], []
    for event in stretch.events:
        shared_s = min(end_s, event.end_s) - max(start_s, event.start_s)
        if shared_s >= COVERED * min(end_s - start_s, event.end_s - event.start_s):
            present.append(event.place)
        elif shared_s > 0:
            unknown.append(event.place)
    return labels.facts(present, unknown)


def clip_facts(stretch: Stretch, labels: MeasuredLabels) -> Facts:
    """(labels,) facts about a clip."""
    return labels.facts(event.place for event in stretch.events)
