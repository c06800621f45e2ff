"""What is gathered of a file for its page."""

import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.offline.timeline import timeline as gathering
from perceiverd.offline.timeline.timeline import TimelineGatherer
from perceiverd.pipeline.windower import Window
from tests.support.timelines import event_of, timeline_of

SOUNDS = [("Bark", 2.0, 4.0, 0.9), ("Bark", 8.0, 9.5, 0.7), ("Siren", 5.0, 7.0, 0.8), ("Speech", 0.5, 11.0, 0.4)]


def test_labels_with_events_come_first() -> None:
    """Labels are ordered by events and peaks; those without events follow, at least as many as fill a page."""
    found = timeline_of(12, SOUNDS)
    bark, siren, speech = found.labels[:3]
    assert [each.label.name for each in (bark, siren, speech)] == ["Bark", "Siren", "Speech"]
    assert (bark.events, bark.total_s, bark.first_s, bark.peak) == (2, 3.5, 2.0, 0.9)
    assert len(found.labels) == gathering.FEWEST_LABELS and not any(each.events for each in found.labels[3:])
    assert found.scores.shape == (len(found.labels), len(found.heard))
    column = round((5.9 - found.columns_start_s) / found.columns_span_s)
    assert found.scores[:3, column].tolist() == [pytest.approx(5, abs=5), 204, 102]
    assert found.duration_s == pytest.approx(12, abs=0.5)
    assert found.sound and found.thumbnails


def test_the_weakest_events_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many events those with the highest peaks are kept, in the order of their starts; totals count all."""
    monkeypatch.setattr(gathering, "MOST_EVENTS", 3)
    gatherer, bark = TimelineGatherer(ontology().labels, NS_PER_S, None), ontology().find("Bark")
    for start_s, peak in ((9, 0.5), (1, 0.9), (5, 0.3), (3, 0.8), (7, 0.2)):
        gatherer.event(event_of(bark, start_s, start_s + 1, peak))
    found = gatherer.timeline()
    assert [event.start_s for event in found.events] == [1, 3, 9]
    assert found.omitted == 2
    assert (found.labels[0].events, found.labels[0].first_s) == (5, 1)


def test_a_label_without_events_is_first_where_it_is_strongest() -> None:
    """A strong label without events is shown with the time of its highest score; audio and pictures may be missing."""
    gatherer = TimelineGatherer(ontology().labels, NS_PER_S, None)
    for k in range(5):
        scores = np.zeros(527)
        scores[7] = 0.5 if k == 3 else 0.2
        gatherer.window(Window(k * NS_PER_S, (k + 1) * NS_PER_S, None, None), scores)
    found = gatherer.timeline()
    assert (found.labels[0].label.index, found.labels[0].first_s) == (7, 3.0)
    assert (found.sound, found.thumbnails, found.events) == (None, (), ())


def test_memory_does_not_grow_with_the_file() -> None:
    """Arrays that a day of windows fills are as large as those that a minute fills."""
    gatherer = TimelineGatherer(ontology().labels, NS_PER_S // 2, None)
    before = gatherer._grid._cells.nbytes
    for k in range(0, 170_000, 7):
        gatherer.window(Window(k * NS_PER_S // 2, (k + 2) * NS_PER_S // 2, None, None), np.zeros(527))
    assert gatherer._grid._cells.nbytes == before < 20e6
    assert len(gatherer.timeline().heard) <= 32_768
