"""False alarms: events as the daemon makes them, counted in streams without events."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.model.card import load_card
from perceiverd.pipeline.tagger import Tagger
from perceiverd.training.data.ambient import streams
from perceiverd.training.evaluation.false_alarms import event_levels, events, report, smoothed, stream_levels

AT = {label.name: label.index for label in ontology().labels}


def rows(name: str, values: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Scores (T, classes) with these values for one label."""
    scores = np.zeros((len(values), 527))
    scores[:, AT[name]] = values
    return scores


THRESHOLDS = np.full(527, 0.5)


def test_one_window_makes_no_event() -> None:
    """A single high window makes no event; several in a row make one event."""
    assert events(rows("Dog", [0.0] * 5 + [0.95] + [0.0] * 5), THRESHOLDS, 0.5) == []
    (event,) = events(rows("Dog", [0.0] * 5 + [0.95] * 20), THRESHOLDS, 0.5)
    assert event.label == AT["Dog"] and event.window == 6


def test_a_short_gap_does_not_end_an_event() -> None:
    """A gap of one second stays inside the event; a gap of five seconds ends it."""
    on, off = [0.9] * 6, [0.0] * 2
    assert len(events(rows("Dog", on + off + on), THRESHOLDS, 0.5)) == 1
    assert len(events(rows("Dog", on + off * 5 + on), THRESHOLDS, 0.5)) == 2


def test_a_label_replaces_those_above_it() -> None:
    """A bark is also a dog, but makes one event. If only the parent reaches its threshold, the parent has the event."""
    found = events(rows("Bark", [0.9] * 6), THRESHOLDS, 0.5)
    assert [event.label for event in found] == [AT["Bark"]]
    low = THRESHOLDS.copy()
    low[AT["Dog"]] = 0.3
    assert [event.label for event in events(rows("Bark", [0.4] * 6), low, 0.5)] == [AT["Dog"]]


@pytest.mark.parametrize("name", ["Dog", "Bark"])
def test_events_begin_below_the_reached_level(name: str) -> None:
    """A threshold just below the reached level gives an event, one just above it gives none."""
    rng = np.random.default_rng(4)
    scores = rows(name, rng.random(40).tolist())
    level = event_levels(scores, 0.5)[AT[name]]
    assert 0 < level < scores.max()
    for shift, wanted in ((-1e-6, True), (1e-6, False)):
        thresholds = np.full(527, 0.999)
        thresholds[AT[name]] = level + shift
        assert bool(events(scores, thresholds, 0.5)) == wanted


def test_smoothing_has_a_time_constant() -> None:
    """After its time constant a step has reached 63 %, whatever the hop."""
    for hop in (0.1, 0.25, 0.5):
        steps = round(0.5 / hop)
        level = smoothed(rows("Dog", [0.0] + [1.0] * steps), hop)[-1, AT["Dog"]]
        assert level == pytest.approx(1 - np.exp(-1))


def test_false_alarms_are_counted_by_kind_and_label(tiny_model: Path) -> None:
    """The report has a row for each kind of stream; correct labels reach no level, others do."""
    tagger = Tagger(load_card(tiny_model))
    text = "\n".join(report(tagger, itertools.islice(streams(tagger.card.geometry, [], 2, 1, 10), 3)))
    assert "| all | 0.01 |" in text
    assert "| digital silence | 0.00 |" in text
    grid = stream_levels(tagger, itertools.islice(streams(tagger.card.geometry, [], 2, 1, 10), 3))
    assert grid.shape == (3, 527)
    assert (grid[:, AT["Silence"]] == 0).all() and (grid[:, AT["Dog"]] > 0).all()
