"""Breadth: sources apart, and the share of clips whose named label is among the highest."""

from __future__ import annotations

import numpy as np

from perceiverd.core.labels import ontology
from perceiverd.training.evaluation.breadth import TOP, breadth_rows, hits, named, of_source
from perceiverd.training.evaluation.heldout import HeldOut
from perceiverd.training.evaluation.scores import logit

NAMES = ("Dog", "Cat", "Rain", "Bell")


def held_out() -> HeldOut:
    """Six recordings of each of four classes from one source, and two recordings of another source; two windows each.

    The teacher confuses cats and rain.
    """
    clips = [(name, f"sounds:{name}{n}") for name in NAMES for n in range(6)] + [("Dog", "other:1"), ("Dog", "other:2")]
    index = [ontology().find(name).index for name, _ in clips]
    taught = [ontology().find({"Cat": "Rain", "Rain": "Cat"}.get(name, name)).index for name, _ in clips]
    teacher = np.full((2 * len(clips), 527), -5, np.float32)
    teacher[np.arange(len(teacher)), np.repeat(taught, 2)] = 3
    teacher[:, 0] = np.nan
    assert len(index) == len(clips)
    return HeldOut(
        tuple((name,) for name, _ in clips),
        tuple(recording for _, recording in clips),
        tuple("x" for _ in clips),
        np.repeat(np.arange(len(clips)), 2),
        np.zeros(2 * len(clips)),
        np.zeros((2 * len(clips), 2, 2), np.uint8),
        teacher,
    )


def test_a_source_has_its_own_clips() -> None:
    """The windows and clips of one source are numbered anew."""
    part, rows = of_source(held_out(), "other")
    assert part.recordings == ("other:1", "other:2") and part.clip.tolist() == [0, 0, 1, 1]
    assert np.flatnonzero(rows).tolist() == [48, 49, 50, 51]


def test_only_the_most_special_label_counts() -> None:
    """A clip is named by its labels without those above them; it is a hit if one of them is among the highest ten."""
    held = held_out()
    names = named(held)
    assert names.sum(axis=1).tolist() == [1] * 26
    scores = np.tile(np.linspace(0, 1, 527, dtype=np.float32), (26, 1))
    assert hits(scores, names).sum() == 0
    scores[:3][names[:3]] = 2
    assert hits(scores, names).tolist() == [True] * 3 + [False] * 23 and TOP == 10


def test_the_table_compares_the_model_with_its_teacher() -> None:
    """A perfect model has mAP 1 and finds every label; the teacher's confusion shows. Small sources have no table."""
    held = held_out()
    model = np.full((52, 527), -5, np.float32)
    model[np.arange(52), [ontology().find(held.labels[clip][0]).index for clip in held.clip]] = 3
    lines = list(breadth_rows(held, np.asarray(1 / (1 + np.exp(-model)), np.float32), "Test", details=True))
    assert lines[0] == "Test, sounds: 24 clips of 24 recordings, 4 classes"
    assert lines[4].startswith("| this model | 1.000 [1.000, 1.000] | 1.000")
    assert lines[5].startswith("| YAMNet | 0.") and float(logit(np.array([0.5]))[0]) == 0
    assert any(line.startswith("| Cat | 6 | 6 | 1.00 | 0.") for line in lines)
    assert not any("other" in line for line in lines)
