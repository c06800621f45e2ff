"""Each rule of events by example: scores of one or some labels, a window each half second."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from perceiverd.core.media import NS_PER_S
from perceiverd.pipeline.rules import EventOptions, LabelOptions
from perceiverd.pipeline.tracker import EventTracker
from tests.support.events import (
    ANIMAL,
    BARK,
    CAT,
    DOG,
    HINGE,
    HOP_NS,
    HOWL,
    LABELS,
    MUSIC,
    NAMES,
    WINDOW_NS,
    N,
    make,
    make_rules,
)

PLAIN = EventOptions(smoothing_s=0, min_duration_s=0, merge_gap_s=0, subsume=False, deny=())


def play(tracker: EventTracker, first: int = 0, **scores: Sequence[float]) -> list[tuple[str, str, str]]:
    """The changes of these windows: (kind, label, reason)."""
    changes: list[tuple[str, str, str]] = []
    for k in range(max(map(len, scores.values()))):
        row = np.zeros(N, np.float32)
        for name, each in scores.items():
            row[NAMES.index(name) if name in NAMES else HINGE] = each[k]
        start = (first + k) * HOP_NS
        changes += [
            (change.kind, LABELS[change.index].name, change.reason)
            for change in tracker.track(row, start, start + WINDOW_NS, ("audio",))
        ]
    return changes


def set_to(**changes: Any) -> EventOptions:
    return msgspec.structs.replace(PLAIN, **changes)


def state_of(tracker: EventTracker, index: int) -> tuple[str, str]:
    return next((each.state, each.reason) for each in tracker.candidates(N) if each.index == index)


def test_one_window_makes_no_event() -> None:
    """By default a single window of 0.975 among quiet ones is no event; it is counted as suppressed."""
    tracker = make()
    assert play(tracker, Music=[0, 0, 0.6, 0, 0, 0]) == []
    assert play(tracker, 6, Music=[0, 0.975, 0, 0, 0]) == []
    assert tracker.suppressed["below on"] + tracker.suppressed["too short"] == 2


def test_a_label_without_an_event_is_counted_once() -> None:
    """A label that rises and falls again is counted by its best state; one that had an event is not."""
    tracker = make(set_to(min_duration_s=1))
    play(tracker, Music=[0, 0.4, 0.45, 0.4, 0])
    assert {reason: count for reason, count in tracker.suppressed.items() if count} == {"below on": 1}
    play(tracker, 5, Music=[0.4, 0.9, 0.4, 0])
    assert {reason: count for reason, count in tracker.suppressed.items() if count} == {"below on": 1, "too short": 1}
    play(tracker, 9, Music=[0.4, 0.9, 0.9, 0.9, 0.4, 0, 0, 0, 0])
    assert {reason: count for reason, count in tracker.suppressed.items() if count} == {"below on": 1, "too short": 1}


def test_an_event_waits_for_the_minimum_duration() -> None:
    """It begins when the score has held for this time, and its start is that of the first window at or above on."""
    tracker = make(set_to(min_duration_s=1))
    assert play(tracker, Music=[0.9, 0.9]) == []
    assert state_of(tracker, MUSIC) == (
        "holding",
        "score at or above the on threshold 0.5 for 0.5 s; an event begins after 1 s (min_duration_s)",
    )
    (change,) = tracker.track(
        np.eye(N, dtype=np.float32)[MUSIC], 2 * HOP_NS, 2 * HOP_NS + WINDOW_NS, ("audio", "video")
    )
    assert (change.kind, change.start_ns, change.since_ns, change.windows) == ("begin", 0, WINDOW_NS, 3)
    assert change.modalities == ("audio", "video")
    assert change.mean == pytest.approx((0.9 + 0.9 + 1) / 3)
    assert play(make(set_to(min_duration_s=1)), Music=[0.9, 0.9, 0.4, 0.9, 0.9, 0.4]) == []


def test_overlapping_windows_make_one_event() -> None:
    """If a score drops and comes back within the same media the event continues, even without a merge gap."""
    tracker = make(set_to())
    assert play(tracker, Music=[0.9, 0, 0, 0.9, 0, 0, 0, 0]) == [
        ("begin", "Music", "confirmed"),
        ("end", "Music", "faded"),
        ("begin", "Music", "confirmed"),
        ("end", "Music", "faded"),
    ]
    tracker = make(set_to())
    assert play(tracker, Music=[0.9, 0, 0.9, 0, 0.9, 0, 0, 0]) == [
        ("begin", "Music", "confirmed"),
        ("end", "Music", "faded"),
    ]
    assert tracker.suppressed["merged"] == 2


def test_a_label_that_comes_back_soon_is_the_same_event() -> None:
    """Within the merge gap the event continues; its end is reported after the gap, with the time at which it was."""
    tracker = make(set_to(merge_gap_s=2))
    assert play(tracker, Music=[0.9, *[0] * 5, 0.9]) == [("begin", "Music", "confirmed")]
    assert play(tracker, 7, Music=[0] * 6) == []
    reason = "score 0 below the off threshold 0.269 for 1.72 s; the event ends after 2 s (merge_gap_s)"
    assert state_of(tracker, MUSIC) == ("fading", reason)
    (change,) = tracker.track(np.zeros(N, np.float32), 13 * HOP_NS, 13 * HOP_NS + WINDOW_NS, ("audio",))
    assert (change.kind, change.start_ns, change.end_ns) == ("end", 0, 6 * HOP_NS + WINDOW_NS)
    assert change.windows == 2
    assert change.peak == pytest.approx(0.9)


def test_between_the_thresholds_an_event_continues() -> None:
    """Between off and on an event continues, and none begins."""
    tracker = make(set_to(on=0.6, off=0.2))
    assert play(tracker, Music=[0.5, 0.5]) == []
    assert state_of(tracker, MUSIC) == ("below on", "score 0.5 below the on threshold 0.6")
    assert play(tracker, 2, Music=[0.7, 0.3, 0.3, 0.3]) == [("begin", "Music", "confirmed")]


def test_reasons_have_the_operators_own_times() -> None:
    """A quarter of a second is not rounded, and what was measured is rounded down, so that it stays below its limit."""
    tracker = make(set_to(min_duration_s=1.2501))
    assert play(tracker, Music=[0.9, 0.9]) == []
    (_, reason) = state_of(tracker, MUSIC)
    assert reason.endswith("; an event begins after 1.2501 s (min_duration_s)")
    held_s = float(reason.partition(" for ")[2].partition(" s")[0])
    assert held_s <= 1.2501 and held_s == round(held_s, 2)


def test_a_cool_down_suppresses_events() -> None:
    """After an event its label has no other for this time; other labels have theirs."""
    tracker = make(set_to(cooldown_s=2))
    assert len(play(tracker, Music=[0.9, 0, 0, 0, 0.9, 0.9], Animal=[0, 0, 0, 0, 0.9, 0.9])) == 3
    assert state_of(tracker, MUSIC) == (
        "cool-down",
        "its last event ended too recently; the next one may begin in 0.78 s (cooldown_s)",
    )
    assert tracker.suppressed["cool-down"] == 1
    assert play(tracker, 6, Music=[0.9, 0.9], Animal=[0.9, 0.9]) == [("begin", "Music", "confirmed")]


def test_a_cool_down_that_ends_in_silence_begins_nothing() -> None:
    """If smoothing still holds the score above `on`, the reason names this window's own score."""
    options = set_to(cooldown_s=1, smoothing_s=5, off=0.2)
    tracker = make(options)
    play(tracker, Music=[1] * 4)
    tracker.change(make_rules(options))
    assert play(tracker, 4, Music=[1, 1, 1, 0, 0]) == []
    alone = "this window alone has 0, below the off threshold 0.2"
    reason = f"score 0.819 at or above the on threshold 0.5, but {alone}"
    assert state_of(tracker, MUSIC) == ("below on", reason)
    assert play(tracker, 9, Music=[1]) == [("begin", "Music", "confirmed")]


def test_a_split_waits_for_a_window_that_holds() -> None:
    """An event that reached its maximum keeps its end; the next one begins only if the sound is still there."""
    options = set_to(max_duration_s=3, smoothing_s=3)
    tracker = make(options)
    assert play(tracker, Music=[1] * 4) == [("begin", "Music", "confirmed")]
    assert play(tracker, 4, Music=[0]) == []
    (end, begin) = tracker.track(np.eye(N, dtype=np.float32)[MUSIC], 5 * HOP_NS, 5 * HOP_NS + WINDOW_NS, ("audio",))
    assert (end.kind, end.reason, end.end_ns) == ("end", "maximum duration", 3 * HOP_NS + WINDOW_NS)
    assert (begin.kind, begin.reason, begin.continues, begin.peak) == ("begin", "split", end.id, 1)
    tracker = make(options)
    play(tracker, Music=[1] * 4)
    assert play(tracker, 4, Music=[0] * 12) == [("end", "Music", "maximum duration")]


def test_long_events_are_updated_and_cut() -> None:
    """An event is updated at its interval and cut at its maximum; the next one continues it and names it."""
    tracker = make(set_to(max_duration_s=5, update_s=2))
    changes = [
        change
        for k in range(13)
        for change in tracker.track(np.eye(N, dtype=np.float32)[MUSIC], k * HOP_NS, k * HOP_NS + WINDOW_NS, ("audio",))
    ]
    assert [change.kind for change in changes] == ["begin", "update", "end", "begin", "update"]
    _, _, end, begin, _ = changes
    assert end.reason == "maximum duration"
    assert end.end_ns - end.start_ns <= 5 * NS_PER_S
    assert (begin.reason, begin.continues, begin.start_ns) == ("split", end.id, end.end_ns)
    assert begin.id != end.id


def test_a_gap_ends_events() -> None:
    """If no window came for too long, events end before the next window counts, and smoothing starts again."""
    tracker = make(set_to(max_gap_s=3, smoothing_s=10))
    play(tracker, Music=[0.9, 0.9])
    assert play(tracker, 12, Cat=[0.9]) == [
        ("end", "Music", "gap"),
        ("begin", "Animal", "confirmed"),
        ("begin", "Cat", "confirmed"),
    ]
    assert tracker.smoothed[MUSIC] == 0
    assert play(tracker, 20, Cat=[0.9]) == []  # 8 hops are less than a window and the gap
    assert tracker.open == (ANIMAL, CAT)


def test_the_end_of_a_stream_ends_events() -> None:
    """Each open event ends with the reason; a possible event is counted as too short."""
    tracker = make(set_to(min_duration_s=1))
    play(tracker, Music=[0.9, 0.9, 0.9, 0.9], Hinge=[0, 0, 0, 0.9])
    (change,) = tracker.end("stream lost")
    assert (change.kind, change.reason, change.end_ns) == ("end", "stream lost", 3 * HOP_NS + WINDOW_NS)
    assert tracker.suppressed["too short"] == 1
    assert not tracker.tracking
    assert tracker.end("stopped") == []
    # The next windows share media with the event, so they begin no second one.
    assert play(tracker, 4, Music=[0.9, 0.9, 0.9]) == []


def test_a_specific_event_replaces_a_general_one() -> None:
    """The event of Dog ends when Bark begins; while Bark is open Dog has none, afterwards it may have one."""
    tracker = make(set_to(subsume=True))
    assert play(tracker, Dog=[0.9, 0.9, 0.9], Bark=[0, 0, 0.9]) == [
        ("begin", "Dog", "confirmed"),
        ("end", "Dog", "subsumed"),
        ("begin", "Bark", "confirmed"),
    ]
    assert state_of(tracker, DOG) == ("subsumed", "the more specific Bark has an event in its place (subsume)")
    assert tracker.suppressed["subsumed"] == 2  # the animal, and from the bark on the dog
    assert play(tracker, 3, Dog=[0.9] * 5) == [("end", "Bark", "faded"), ("begin", "Dog", "confirmed")]


def test_a_general_label_waits_for_a_specific_one() -> None:
    """A label that reaches on first begins no event that a label below it would replace at once."""
    tracker = make(set_to(subsume=True, min_duration_s=0.5))
    assert play(tracker, Dog=[0.9, 0.9], Bark=[0, 0.9]) == []
    held = "score at or above the on threshold 0.5 for 0.5 s; an event begins after 0.5 s (min_duration_s)"
    assert state_of(tracker, DOG) == ("holding", f"{held}; it waits for the more specific Bark")
    assert play(tracker, 2, Dog=[0.9], Bark=[0.9]) == [("begin", "Bark", "confirmed")]
    # It waits for its minimum duration again, and no longer.
    tracker = make(
        set_to(subsume=True, labels={"Bark": LabelOptions(min_duration_s=60), "Dog": LabelOptions(min_duration_s=0.5)})
    )
    assert play(tracker, Dog=[0.9] * 3, Bark=[0.9] * 3)[-1:] == [("begin", "Dog", "confirmed")]


def test_a_general_event_can_stay() -> None:
    """With subsume = false a label's event stays beside the one of a label below it."""
    tracker = make(set_to(subsume=True, labels={"Dog": LabelOptions(subsume=False)}))
    play(tracker, Bark=[0.9, 0.9])
    assert tracker.open == (DOG, BARK)


def test_an_allowed_label_includes_those_below_it() -> None:
    """With Dog alone allowed, barks and howls give one event of Dog."""
    tracker = make(set_to(subsume=True, allow=("Dog",)))
    assert play(tracker, Bark=[0.9, 0], Howl=[0, 0.9], Music=[0.9, 0.9]) == [("begin", "Dog", "confirmed")]
    assert state_of(tracker, MUSIC) == ("not allowed", "not in the configuration's list of allowed labels (allow)")
    shown = {each.index: each for each in tracker.candidates(N)}
    assert shown[DOG].score == pytest.approx(0.9)
    assert shown[DOG].surest == LABELS[HOWL].mid
    assert shown[HOWL].surest is None


def test_a_denied_label_has_no_event() -> None:
    """It raises no label above it either; a suppression that lasts many windows counts once."""
    tracker = make(set_to(deny=("Bark", "Hinge")))
    assert play(tracker, Bark=[0.9] * 9, Hinge=[0.9] * 9) == []
    assert state_of(tracker, HINGE) == ("denied", "in the configuration's list of denied labels (deny)")
    assert tracker.suppressed["denied"] == 2


def test_new_rules_end_open_events() -> None:
    """The new rules hold from the next window on, and no media counts twice."""
    tracker = make(set_to())
    play(tracker, Music=[0.9, 0.9])
    (change,) = tracker.change(make_rules(set_to(on=0.2)))
    assert (change.kind, change.reason) == ("end", "reload")
    assert play(tracker, 2, Music=[0.3] * 3) == [("begin", "Music", "confirmed")]
    assert tracker.open == (MUSIC,)


def test_windows_out_of_order_are_refused() -> None:
    """Windows that go back in time, and scores that are no numbers, raise ValueError."""
    tracker = make()
    tracker.track(np.zeros(N, np.float32), 0, WINDOW_NS, ("audio",))
    with pytest.raises(ValueError, match="after one that ended at 1280000000"):
        tracker.track(np.zeros(N, np.float32), 0, WINDOW_NS, ("audio",))
    with pytest.raises(ValueError, match="finite scores"):
        tracker.track(np.full(N, np.nan, np.float32), HOP_NS, HOP_NS + WINDOW_NS, ("audio",))
    with pytest.raises(ValueError, match="finite scores"):
        tracker.track(np.zeros(N + 1, np.float32), HOP_NS, HOP_NS + WINDOW_NS, ("audio",))
