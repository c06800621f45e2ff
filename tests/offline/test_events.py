"""Events of a file: the same tracker as in the daemon, in the order that a format needs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import Calibration
from perceiverd.offline.events import FileEvents
from perceiverd.pipeline.rules import EventOptions, Rules, resolve
from perceiverd.pipeline.tracker import EventTracker
from perceiverd.pipeline.windower import Window
from perceiverd.wire.messages import Model
from perceiverd.wire.records import FileEvent

LABELS = tuple(Label(number, f"/m/{number}", f"label {number}") for number in range(5))
HOP_NS = NS_PER_S // 2


def rules(**options: float) -> Rules:
    return resolve(LABELS, (Calibration(),) * len(LABELS), EventOptions(**{"smoothing_s": 0, **options}))  # type: ignore[arg-type]


def windows(scores: list[list[float]]) -> list[tuple[Window, np.ndarray]]:
    """Windows of 1 s, 0.5 s apart."""
    silence = np.zeros(1, np.float32)
    return [
        (Window(at * HOP_NS, at * HOP_NS + NS_PER_S, silence, None), np.array(each, np.float32))
        for at, each in enumerate(scores)
    ]


def found(scores: list[list[float]], *, sorts: bool, **options: float) -> list[FileEvent]:
    events = FileEvents("a", Model("m", "s"), rules(**options), sorts=sorts)
    each = [event for window, row in windows(scores) for event in events.track(window, row)]
    return each + events.end()


ROWS = st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.9]), min_size=5, max_size=5), max_size=60)


@given(ROWS, st.sampled_from([0.0, 0.4, 2.0]), st.sampled_from([0.0, 1.0, 5.0]))
@settings(deadline=None)
def test_sorted_events_are_the_same_in_order_of_start(scores: list[list[float]], least_s: float, gap_s: float) -> None:
    """Sorting loses no event and adds none."""
    options = {"min_duration_s": least_s, "merge_gap_s": gap_s, "max_duration_s": 10.0}
    usual, ordered = (found(scores, sorts=sorts, **options) for sorts in (False, True))
    assert sorted(usual, key=lambda event: (event.start_s, event.index)) == ordered


@given(ROWS)
@settings(deadline=None)
def test_events_are_those_of_the_daemon(scores: list[list[float]]) -> None:
    """Ids, times and peaks are those at the end of the tracker's events."""
    tracker = EventTracker(rules())
    changes = [
        change
        for window, row in windows(scores)
        for change in tracker.track(row, window.start_ns, window.end_ns, window.modalities)
    ]
    changes += tracker.end("stream ended")
    ends = [
        (change.id, change.start_ns / NS_PER_S, change.end_ns / NS_PER_S) for change in changes if change.kind == "end"
    ]
    assert [(event.id, event.start_s, event.end_s) for event in found(scores, sorts=False)] == ends


def test_an_event_waits_only_for_those_that_began_before_it() -> None:
    """A short event behind a long one comes when the long one ends; one before it comes at once."""
    rows: list[list[float]] = [
        [0, 0.9, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0.9, 0, 0, 0, 0],
        [0.9, 0.9, 0, 0, 0],
    ]
    rows += [[0.9, 0, 0, 0, 0]] * 6 + [[0.0] * 5] * 4
    events = FileEvents("a", Model("m", "s"), rules(merge_gap_s=0, min_duration_s=0), sorts=True)
    came = [
        (at, event.index, event.start_s)
        for at, (window, row) in enumerate(windows(rows))
        for event in events.track(window, row)
    ]
    assert [(index, start_s) for _, index, start_s in came] == [(1, 0.0), (0, 1.5), (1, 2.0)]
    assert came[0][0] < 4
    assert came[1][0] == came[2][0] > 10


def test_waiting_events_are_bounded_by_the_longest_event() -> None:
    """A label that holds for ever is cut by the maximum duration, so others do not wait for ever."""
    rows = [[0.9, 0.9 * (at % 8 == 3), 0, 0, 0] for at in range(200)]
    events = FileEvents("a", Model("m", "s"), rules(max_duration_s=5, merge_gap_s=0, min_duration_s=0), sorts=True)
    most = 0
    for window, row in windows(rows):
        events.track(window, row)
        most = max(most, len(events._waiting))
    assert 0 < most <= 4


@pytest.mark.parametrize("sorts", [False, True])
def test_open_events_end_with_the_file(sorts: bool) -> None:
    """Their reason is `stream ended`."""
    (event,) = found([[0.9, 0, 0, 0, 0]] * 4, sorts=sorts)
    assert (event.start_s, event.end_s, event.explanation.reason) == (0, 2.5, "stream ended")
