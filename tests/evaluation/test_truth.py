"""What a manifest says about clips and windows, with AudioSet's hierarchy and at AudioSet's word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.labels import Label, ontology
from perceiverd.evaluation.manifest import Manifest, ManifestRow
from perceiverd.evaluation.truth import clip_facts, measured_labels, stretches, window_facts

LABELS = ontology().labels
DOG, BARK, SPEECH = "/m/0bt9lr", "/m/05tny_", "/m/09x0r"
FILE = Path("a.wav")


def manifest(*rows: tuple[float, float | None, tuple[str, ...]], audioset: bool = False) -> Manifest:
    """Rows of one file."""
    listed = tuple(ManifestRow(at + 2, FILE, *row) for at, row in enumerate(rows))
    return Manifest(Path("clips.csv"), listed, (), audioset=audioset)


def test_a_label_holds_those_above_it() -> None:
    """A clip of a bark has Dog too and lacks Speech; in a clip of a dog, Bark is unknown."""
    found = manifest((0, 2, (BARK,)), (3, 5, (DOG,)), (6, 8, (SPEECH,)), (9, 10, ()))
    labels = measured_labels(found, [LABELS])
    assert [label.name for label in labels.labels] == ["Bark", "Dog", "Speech"]
    clips = stretches(found, "clips", labels)[FILE]
    assert [clip_facts(clip, labels).tolist() for clip in clips] == [[1, 1, 0], [-1, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_audiosets_lists_are_taken_at_their_word() -> None:
    """In AudioSet's format a label says nothing about those above and below it."""
    found = manifest((0, 2, (BARK,)), (3, 5, (DOG,)), audioset=True)
    labels = measured_labels(found, [LABELS])
    clips = stretches(found, "clips", labels)[FILE]
    assert [clip_facts(clip, labels).tolist() for clip in clips] == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("start_s", "end_s", "facts"),
    [
        (0.0, 1.0, [0, 0]),
        (1.4, 2.4, [-1, 0]),
        (1.6, 2.6, [1, 0]),
        (2.5, 3.5, [1, 0]),
        (2.7, 3.7, [-1, 0]),
        (9, 10, [0, 1]),
    ],
)
def test_windows_have_what_covers_them(start_s: float, end_s: float, facts: list[int]) -> None:
    """A window has a label from half of the window on; if it is touched less, the label is unknown."""
    found = manifest((2.0, 3.0, (DOG,)), (9.3, 9.4, (SPEECH,)))
    labels = measured_labels(found, [LABELS])
    (stretch,) = stretches(found, "events", labels)[FILE]
    assert window_facts(stretch, labels, start_s, end_s).tolist() == facts


def test_an_event_without_an_end_lasts_as_long_as_the_file() -> None:
    """Without times the whole file has the label."""
    found = manifest((0.0, None, (DOG,)))
    labels = measured_labels(found, [LABELS])
    (stretch,) = stretches(found, "events", labels)[FILE]
    assert window_facts(stretch, labels, 1000, 1001).tolist() == [1]


def test_labels_that_a_model_lacks_are_not_measured() -> None:
    """Only labels of all models are measured; the others are listed by mid."""
    own = (Label(0, DOG, "Dog"), Label(1, "user/bell", "bell"))
    labels = measured_labels(manifest((0, 1, (SPEECH, DOG))), [LABELS, own])
    assert [label.name for label in labels.labels] == ["Dog"]
    assert labels.unmeasured == (SPEECH,)


def test_a_manifest_without_labels_measures_all_that_can_have_events() -> None:
    """Without any label all labels are measured, except those that are denied by default; all are absent."""
    labels = measured_labels(manifest((0, None, ())), [LABELS])
    names = {label.name for label in labels.labels}
    assert len(names) == 521 and "Silence" not in names
    (stretch,) = stretches(manifest((0, None, ())), "events", labels)[FILE]
    assert not np.any(window_facts(stretch, labels, 0, 1))
