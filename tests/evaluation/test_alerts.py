"""Events against the truth, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perceiverd.core.labels import ontology
from perceiverd.evaluation import alerts
from perceiverd.evaluation.alerts import AlertCounts
from perceiverd.evaluation.detections import Detection
from perceiverd.evaluation.manifest import Manifest, ManifestRow
from perceiverd.evaluation.scoring import ScoredStretch
from perceiverd.evaluation.truth import MeasuredLabels, TruthKind, measured_labels, stretches

LABELS = ontology().labels
DOG, BARK, SPEECH = "/m/0bt9lr", "/m/05tny_", "/m/09x0r"
FILE = Path("a.wav")


def count(
    rows: list[tuple[float, float | None, tuple[str, ...]]],
    found: list[tuple[str, float, float, float]],
    kind: TruthKind,
) -> tuple[AlertCounts, MeasuredLabels]:
    """The counts of one file of 36 s, for detections (mid, start, end, decided)."""
    everything = ManifestRow(0, FILE, 50, 51, (BARK, DOG, SPEECH))
    listed = tuple(ManifestRow(at + 2, FILE, *row) for at, row in enumerate(rows))
    labels = measured_labels(Manifest(Path("m.csv"), (everything, *listed), ()), [LABELS])
    own = stretches(Manifest(Path("m.csv"), listed, ()), kind, labels)[FILE]
    detections = [Detection(labels.places[mid], *times) for mid, *times in found]
    scored = [
        ScoredStretch(one, 36.0, np.zeros((1, 2)), np.zeros((1, 3), np.float32), {None: detections}, {None: 5})
        for one in own
    ]
    owners = np.zeros(len(scored), np.intp)
    return alerts.count(scored, owners, 1, None, kind, labels), labels


def test_an_event_of_a_label_below_finds_it() -> None:
    """A bark finds a dog at its time; a dog where there is only a bark is neither found nor false."""
    counts, _ = count([(2, 4, (DOG,)), (10, 12, (BARK,))], [(BARK, 1.5, 4.5, 3.1), (DOG, 9, 13, 10.5)], "events")
    assert counts.found[0].tolist() == [0, 1, 0] and counts.true[0].tolist() == [1, 1, 0]
    assert not counts.false.any()
    assert counts.delays_s.tolist() == [3.1 - 2]


def test_an_event_elsewhere_is_false() -> None:
    """Speech beside a dog's time is a false alarm of Speech, and so is a dog before the dog."""
    counts, _ = count([(10, 12, (DOG,))], [(SPEECH, 10, 12, 11), (DOG, 2, 4, 3)], "events")
    assert counts.false[0].tolist() == [0, 1, 1]
    assert counts.found.sum() == 0 and len(counts.delays_s) == 0
    assert (counts.seconds.tolist(), counts.events.tolist(), counts.crossings.tolist()) == ([36.0], [2], [5])


def test_an_alert_that_is_there_already_is_not_early() -> None:
    """If the event was published before the sound began, the time to alert is 0."""
    counts, _ = count([(10, 12, (DOG,))], [(DOG, 2, 12, 3)], "events")
    assert counts.delays_s.tolist() == [0.0]


def test_clips_have_no_time_to_alert() -> None:
    """In clips the label counts, wherever its event is; labels that may be there are not false."""
    counts, _ = count([(0, 10, (DOG,))], [(DOG, 30, 31, 31), (BARK, 30, 31, 31), (SPEECH, 1, 2, 2)], "clips")
    assert counts.found[0].tolist() == [0, 1, 0]
    assert counts.false[0].tolist() == [0, 0, 1]
    assert len(counts.delays_s) == 0
