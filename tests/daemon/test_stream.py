"""What a stream makes of its windows: due ones, and the messages that their scores bring."""

import time
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from perceiverd.core import clock
from perceiverd.core.clock import now_ns
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.stream import known_down
from perceiverd.pipeline.stalls import StallLimits
from perceiverd.pipeline.windower import Window
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.snapshots.requests import MediaRequest, SnapshotOptions, SnapshotRequest
from perceiverd.wire.messages import Event, Explain, Message, Scores
from tests.support.streams import BOTH, SURE, audio, both, rules, source, stream, window

PICTURE = np.zeros((3, 5, 3), np.uint8)
SNAPSHOTS = SnapshotOptions("/kept", 640, 0.0, 0.0, 1.0, 1)


def events(messages: list[Message]) -> list[Event]:
    return [message for message in messages if isinstance(message, Event)]


def test_a_window_brings_scores_then_events_then_reasons() -> None:
    """The messages are in the order in which they are sent; the reasons come only if they are wanted."""
    watched = stream()
    messages = watched.tagged(window(0), SURE, explain=True)
    assert [type(message) for message in messages] == [Scores, Event, Explain]
    assert [type(message) for message in watched.tagged(window(1), SURE)] == [Scores]
    assert watched.progress.tagged == 2


def test_scores_count_the_dropped_windows_before_them() -> None:
    """A live stream tags the newest window and counts the others, once."""
    watched = stream()
    watched.due = [window(n) for n in range(4)]
    newest = watched.next_window()
    assert newest is not None and newest.start_ns == window(3).start_ns
    (scores, *_) = watched.tagged(newest, SURE)
    assert isinstance(scores, Scores) and scores.dropped == 3
    (scores, *_) = watched.tagged(window(4), SURE)
    assert isinstance(scores, Scores) and scores.dropped == 0
    assert (watched.progress.dropped, watched.next_window()) == (3, None)


def test_an_ended_stream_keeps_all_windows_that_are_left() -> None:
    """Nothing newer can come, so none is dropped; the stream is over when the last one was tagged."""
    watched = stream(BOTH)
    both(watched, 0, 1.6)
    watched.due.clear()
    watched.flush()
    watched.due = [*(window(n) for n in range(3)), *watched.due]
    count = len(watched.due)
    assert count >= 3
    over = []
    while watched.next_window():
        watched.flush()  # again: harmless
        over.append(watched.is_over)
    assert over == [False] * (count - 1) + [True]
    assert watched.progress.dropped == 0


def test_stream_time_begins_with_the_first_window() -> None:
    """The start of the first window that was cut is second 0."""
    watched = stream(BOTH)
    both(watched, 5, 6)
    first = watched.due[0]
    (scores, *_) = watched.tagged(first, SURE)
    assert isinstance(scores, Scores) and (scores.start_s, scores.end_s) == (0, 0.5)


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ((RunState.UP, RunState.BACKING_OFF), None),
        ((RunState.STALLED, RunState.BACKING_OFF), "stream lost"),
        ((RunState.BACKING_OFF, RunState.ENDED), "stream lost"),
        ((RunState.ENDED, RunState.ENDED), "stream ended"),
    ],
)
def test_events_end_with_their_stream(states: tuple[RunState, ...], reason: str | None) -> None:
    """Events end once, when no source is up and the last window was tagged; one source less ends nothing."""
    watched, sources = stream(), [source(state) for state in states]
    assert watched.events_over(sources) == []
    watched.tagged(window(0), SURE)
    watched.due = [window(1)]
    assert watched.events_over(sources) == []
    watched.due = []
    assert [event.explanation.reason for event in watched.events_over(sources)] == ([reason] if reason else [])
    assert watched.events_over(sources) == []


def test_events_end_if_all_media_stand_still() -> None:
    """A stream that gives only stalled media loses its events, is not stuck, and its source is restarted when due."""
    watched = stream(BOTH, limits=StallLimits(2 * NS_PER_S, 2 * NS_PER_S))
    watched.tagged(window(0), SURE)
    watched.progress.sent_ns = 0
    both(watched, 0, 5, freeze_s=1.0, mute_s=1.0)
    watched.due.clear()
    watched.update([source(RunState.UP)], 100 * NS_PER_S)
    assert not watched.progress.is_stuck(101 * NS_PER_S, 10 * NS_PER_S)
    assert watched.inputs.restart_due(0, 100 * NS_PER_S) and not watched.inputs.restart_due(0, 101 * NS_PER_S)
    assert [event.explanation.reason for event in watched.events_over([source(RunState.UP)])] == ["stream lost"]


def test_a_suspend_ends_events_as_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events end when they were last confirmed, by the wall clock of then; there is a gap; due windows are dropped."""
    watched = stream(BOTH)
    both(watched, 0, 10)
    watched.due.clear()
    before = time.time_ns
    (begin,) = events(watched.tagged(window(0), SURE))
    last = clock.utc(window(0).end_ns)
    watched.due = [window(1)]
    monkeypatch.setattr("time.time_ns", lambda: before() + 3600 * NS_PER_S)
    (end,) = watched.suspended(3600 * NS_PER_S)
    assert (end.kind, end.id, end.explanation.reason) == ("end", begin.id, "gap")
    assert abs(end.end - last) < timedelta(seconds=10)
    assert (end.end - end.start).total_seconds() == pytest.approx(0.5, abs=0.1)
    assert (watched.due, watched.progress.dropped, watched.windower.counts.gaps) == ([], 1, 2)
    both(watched, 10.0, 10.9)  # continues without a hole, and yet no window spans the suspend
    assert [each.start_ns >= 10 * NS_PER_S for each in watched.due if each.modalities] == [True]


def test_new_rules_end_the_open_events() -> None:
    """After a reload of the rules the open events end, and the new rules hold."""
    watched = stream()
    watched.tagged(window(0), SURE)
    (end,) = watched.change_rules(rules(allow=("Cat",)))
    assert (end.kind, end.explanation.reason) == ("end", "reload")
    assert events(watched.tagged(window(9), SURE)) == []


def test_a_snapshot_is_requested_of_events_that_begin() -> None:
    """One for all events of a window, named after the one with the highest peak, at the source's own time."""
    requests: list[SnapshotRequest] = []

    def accept(request: MediaRequest) -> bool:
        assert isinstance(request, SnapshotRequest)
        requests.append(request)
        return True

    offset_ns = NS_PER_S // 10
    watched = stream(
        events=rules(allow=("Dog", "Cat"), update_s=0.1),
        request_media=accept,
        snapshots=SNAPSHOTS,
        av_offset_ns=offset_ns,
    )
    row = SURE.copy()
    row[rules().labels.index(next(label for label in rules().labels if label.name == "Cat"))] = 0.9
    begun = events(watched.tagged(replace(window(0), pictures=[PICTURE]), row))
    (request,) = requests
    assert request.name.endswith("_door_Dog")
    assert request.at_ns == (window(0).start_ns + window(0).end_ns) // 2 - offset_ns
    assert {event.snapshot for event in begun} == {f"/kept/{request.name}.jpg"}
    (update,) = {event.snapshot for event in events(watched.tagged(window(1), row))}
    assert {event.clip for event in begun} == {None}
    assert update == begun[0].snapshot
    assert len(requests) == 1
    assert {event.snapshot for event in watched.end_events("stopped")} == {update}
    assert not watched.reports.keeper.media


def test_an_event_names_no_snapshot_that_nobody_writes() -> None:
    """If no source can write one, or the stream keeps none, the event has none."""
    for watched in (stream(snapshots=SNAPSHOTS), stream(request_media=lambda _: True)):
        (begin,) = events(watched.tagged(replace(window(0), pictures=[PICTURE]), SURE))
        assert begin.snapshot is None


def test_known_down_needs_a_loss_or_an_end() -> None:
    """A stream whose sources only start is not known to be down."""
    assert known_down([source(RunState.STALLED), source(RunState.ENDED)])
    assert not known_down([source(RunState.STARTING), source(RunState.ENDED)])


def test_a_window_without_audio_has_no_level() -> None:
    """The level in the status is that of the last window's audio."""
    watched = stream(BOTH)
    silent, later = window(0), window(1)
    levels = []
    for each in (silent, Window(later.start_ns, later.end_ns, None, np.zeros((4, 3, 5, 3), np.uint8))):
        watched.tagged(each, SURE)
        levels.append(watched.progress.level_dbfs)
    assert levels == [-120, None]


def test_holes_are_in_scores_reasons_and_status() -> None:
    """Scores and reasons have what their window lacks, the status has the sums since boot."""
    watched = stream(BOTH)
    audio(watched, 0, 0, 1.0)
    audio(watched, 0, 1.08, 3.0)
    scores, explained = list[Scores](), list[Explain]()
    for each in watched.due:
        for made in watched.tagged(each, SURE, explain=True):
            scores += [made] if isinstance(made, Scores) else []
            explained += [made] if isinstance(made, Explain) else []
    filled_ms = [80.0 if each.start_ns == NS_PER_S else 0 for each in watched.due]
    assert [each.filled_ms.get("audio", 0) for each in scores] == filled_ms and sum(filled_ms) == 80
    assert [each.filled_ms for each in explained] == [each.filled_ms for each in scores]
    assert all(each.missing == {"video": "no track"} for each in scores)
    assert all(each.missing == {"video": "no track"} for each in explained)
    status = watched.status([source(RunState.UP)], subscriptions=0, at_ns=now_ns())
    assert (status.filled_s, status.missing) == ({"audio": 0.08}, {"video": {"no track": len(scores)}})
