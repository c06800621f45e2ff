"""Compares detected events with the truth: found or false, how late, and how often they flip.

The detections of a model are compared with the truth. The counts are kept by recording, so that bootstraps can draw
recordings. Pure: it knows no model and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.evaluation.detections import Detection, Threshold
from perceiverd.evaluation.scoring import ScoredStretch
from perceiverd.evaluation.truth import MeasuredLabels, Stretch, TrueEvent, TruthKind, clip_facts

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AlertCounts:
    """Events of one model at one threshold, against the truth."""

    seconds: NDArray[np.float64]
    """(recordings,) of media."""
    found: Counts
    """(recordings, labels): true events, or labels of clips, that an event of the label or of one below it meets."""
    true: Counts
    """(recordings, labels): true events, or labels of clips."""
    false: Counts
    """(recordings, labels): events that meet no truth of the label or of a related one."""
    events: Counts
    """(recordings,): all events."""
    crossings: Counts
    """(recordings,): how often a score that is not smoothed crossed its threshold."""
    delays_s: NDArray[np.float64]
    """(D,): from the start of each true event that was found until the daemon could publish it, at least 0."""
    delay_owners: NDArray[np.intp]
    """(D,): the recording of each."""


def count(
    stretches: Sequence[ScoredStretch],
    owners: NDArray[np.intp],
    recordings: int,
    threshold: Threshold,
    kind: TruthKind,
    labels: MeasuredLabels,
) -> AlertCounts:
    """Count the events of all stretches; `owners` (stretches,) are their recordings, 0 to `recordings` - 1."""
    shape = (recordings, len(labels.labels))
    seconds, events, crossings = np.zeros(recordings), np.zeros(recordings, np.int64), np.zeros(recordings, np.int64)
    found, true, false = (np.zeros(shape, np.int64) for _ in range(3))
    delays: list[tuple[float, int]] = []
    for one, owner in zip(stretches, owners.tolist(), strict=True):
        detections = one.detections[threshold]
        seconds[owner] += one.length_s
        events[owner] += len(detections)
        crossings[owner] += one.crossings[threshold]
        for event in one.stretch.events:
            true[owner, event.place] += 1
            meets = [each for each in detections if _finds(each, event, kind, labels)]
            if meets:
                found[owner, event.place] += 1
                first_s = min(each.decided_s for each in meets)
                delays.append((max(0.0, first_s - event.start_s), owner))
        for place in _false(one.stretch, detections, kind, labels):
            false[owner, place] += 1
    delays_s, delay_owners = (np.array(each) for each in zip(*delays, strict=True)) if delays else (np.zeros(0),) * 2
    if kind == "clips":  # a clip does not say when in it the sound begins
        delays_s = delay_owners = np.zeros(0)
    return AlertCounts(seconds, found, true, false, events, crossings, delays_s, delay_owners.astype(np.intp))


def _finds(detection: Detection, event: TrueEvent, kind: TruthKind, labels: MeasuredLabels) -> bool:
    """Whether the detection is of the event's label or of one below it, at its time."""
    return bool(labels.implied[detection.place, event.place]) and (kind == "clips" or _meets(detection, event))


def _false(stretch: Stretch, detections: Sequence[Detection], kind: TruthKind, labels: MeasuredLabels) -> list[int]:
    """The labels of the detections that are certainly wrong."""
    if kind == "clips":
        facts = clip_facts(stretch, labels)
        return [each.place for each in detections if facts[each.place] == 0]
    return [
        each.place
        for each in detections
        if not any(labels.related[each.place, event.place] and _meets(each, event) for event in stretch.events)
    ]


def _meets(detection: Detection, event: TrueEvent) -> bool:
    return detection.start_s < event.end_s and event.start_s < detection.end_s
