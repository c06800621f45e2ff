"""Thresholds: each bound holds, and no threshold is higher than its bounds need."""

from __future__ import annotations

import numpy as np

from perceiverd.training.evaluation.scores import logit, sigmoid
from perceiverd.training.evaluation.thresholds import CEILING, FLOOR, MARGIN, UNMEASURED, by_recording, choose


def test_a_clean_class_gets_the_lowest_threshold() -> None:
    """If no event is wrong at the floor, the threshold is the floor."""
    values = np.array([[0.9], [0.8], [0.7], [0.1], [0.05]])
    facts = np.array([[1], [1], [1], [0], [0]], np.int8)
    (one,) = choose(values, facts, np.zeros((1, 1)))
    assert (one.threshold, one.found, one.false, one.restless) == (FLOOR, 3, 0, False)


def test_wrong_recordings_raise_the_threshold() -> None:
    """The threshold is just above the high scores of recordings that lack the label, even if it misses one with it."""
    values = np.concatenate([[0.9, 0.8, 0.5], np.full(20, 0.1), [0.6, 0.7]])[:, None]
    facts = np.concatenate([[1, 1, 1], np.zeros(22)])[:, None].astype(np.int8)
    (one,) = choose(values, facts, np.zeros((1, 1)))
    # One recording may always be wrong, but seven in ten of those with an event must be right.
    assert 0.7 < one.threshold < 0.73
    assert (one.found, one.false) == (2, 0)


def test_a_single_wrong_recording_is_allowed() -> None:
    """One recording that lacks the label may score high, if enough recordings with the label do."""
    values = np.array([[0.9], [0.8], [0.7], [0.6], [0.1]])
    facts = np.array([[1], [1], [1], [0], [0]], np.int8)
    (one,) = choose(values, facts, np.zeros((1, 1)))
    assert (one.threshold, one.found, one.false) == (FLOOR, 3, 1)


def test_streams_without_events_raise_the_threshold() -> None:
    """The threshold is above the level of these streams by a margin; at the ceiling the label is restless."""
    values, facts = np.array([[0.9], [0.9], [0.9], [0.1]]), np.array([[1], [1], [1], [0]], np.int8)
    (low,) = choose(values, facts, np.array([[0.4], [0.2]]))
    needed = float(sigmoid(logit(np.array(0.4)) + MARGIN))
    assert needed <= low.threshold < needed + 0.01 and not low.restless
    (high,) = choose(values, facts, np.array([[0.99]]))
    assert high.threshold == CEILING and high.restless


def test_a_class_without_recordings_starts_higher() -> None:
    """A class that could not be measured gets a higher first threshold than a measured one."""
    values, facts = np.zeros((4, 1)), np.full((4, 1), -1, np.int8)
    (one,) = choose(values, facts, np.zeros((1, 1)))
    assert one.threshold == UNMEASURED > FLOOR


def test_a_class_without_recordings_has_as_many_events_as_its_teacher() -> None:
    """If its scores are lower than the teacher's, its threshold is lower too: between FLOOR and UNMEASURED."""
    values, facts = np.array([[0.5, 0.9, 0.2], [0.4, 0.8, 0.1], [0.2, 0.1, 0.1]]), np.full((3, 3), -1, np.int8)
    taught = np.array([[0.9, 0.9, 0.9], [0.8, 0.1, 0.9]])  # of the first two recordings alone
    low, same, lowest = choose(values, facts, np.zeros((1, 3)), taught)
    assert (low.threshold, same.threshold, lowest.threshold) == (0.4, UNMEASURED, FLOOR)


def test_a_class_that_only_pictures_have_starts_higher() -> None:
    """Pictures tell nothing about sounds that are taken for the label, so its threshold is at least UNMEASURED."""
    values = np.array([[0.1, 0.1], [0.2, 0.9], [0.2, 0.8], [0.1, 0.8], *[[0.9, 0.9]] * 3, [0.1, 0.1]])
    facts = np.array([[-1, 0], *[[-1, 1]] * 3, *[[1, 1]] * 3, [0, 0]], np.int8)
    shown, heard = choose(values, facts, np.zeros((1, 2)), np.zeros((4, 2)))
    assert (shown.threshold, shown.recordings, shown.found) == (UNMEASURED, 3, 3)
    assert heard.threshold == FLOOR


def test_clips_of_a_recording_count_as_one() -> None:
    """A recording's level is the highest of its clips; a fact that differs between them is unknown."""
    values = np.array([[0.2, 0.1], [0.6, 0.3], [0.5, 0.4]])
    facts = np.array([[1, 0], [1, -1], [0, 0]], np.int8)
    levels, known = by_recording(values, facts, np.array(["a", "a", "b"]))
    assert levels.tolist() == [[0.6, 0.3], [0.5, 0.4]]
    assert known.tolist() == [[1, -1], [0, 0]]
