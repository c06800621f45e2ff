"""Events from scores: properties over random tracks, and each rule by example."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.labels import Label, ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.model.card import Calibration
from perceiverd.pipeline.rules import EventOptions, LabelOptions, Rules, resolve
from perceiverd.pipeline.tracker import SUPPRESSIONS, EventChange, EventTracker

# Two families and a label that no ontology knows.
NAMES = ("Animal", "Dog", "Bark", "Howl", "Cat", "Meow", "Music")
LABELS = (
    *(Label(i, ontology().find(name).mid, name) for i, name in enumerate(NAMES)),
    Label(len(NAMES), "mine:hinge", "Hinge"),
)
ANIMAL, DOG, BARK, HOWL, CAT, MEOW, MUSIC, HINGE = range(len(LABELS))
N = len(LABELS)
WINDOW_NS = 1_280_000_000
HOP_NS = 500_000_000


def make(options: EventOptions | None = None) -> EventTracker:
    return EventTracker(make_rules(options))


def make_rules(options: EventOptions | None = None) -> Rules:
    return resolve(LABELS, (Calibration(),) * N, options or EventOptions())


@dataclass
class Track:
    """Windows with their scores, and the rules by which they are tracked."""

    options: EventOptions
    starts_ns: list[int]
    scores: NDArray[np.float32]

    def run(self, tracker: EventTracker, first: int = 0, last: int | None = None) -> list[EventChange]:
        windows = list(zip(self.starts_ns, self.scores, strict=True))[first:last]
        return [
            change
            for start, row in windows
            for change in tracker.track(row, start, start + WINDOW_NS, ("audio",) if start % 2 else ("audio", "video"))
        ]


def track_of(seed: int, count: int) -> Track:
    """Irregular hops with holes, scores that dwell and jump, and any options."""
    random = np.random.default_rng(seed)
    hops = [1, HOP_NS, HOP_NS, HOP_NS, 130_000_001, 2_000_000_000, 4_000_000_000, 20 * NS_PER_S]
    dwell = int(random.integers(1, 7))
    levels = np.array([0, 0.1, 0.3, 0.45, 0.55, 0.7, 0.95, 1], np.float32)
    rows = random.choice(levels, (-(-count // dwell), N))

    def one_of(*values: Any) -> Any:
        return values[random.integers(len(values))]

    options = EventOptions(
        smoothing_s=one_of(0.0, 0.2, 0.5, 3.0),
        min_duration_s=one_of(0.0, 0.2, 0.5, 1.0, 3.0),
        merge_gap_s=one_of(0.0, 0.5, 3.0, 10.0),
        cooldown_s=one_of(0.0, 0.5, 3.0, 10.0),
        max_duration_s=one_of(15.0, 30.0, 3600.0),
        update_s=one_of(0.5, 10.0),
        max_gap_s=one_of(0.0, 5.0),
        hysteresis=one_of(0.2, 1.0),
        subsume=one_of(False, True),
        deny=one_of((), ("Bark",), ("Animal", "Meow")),
        allow=one_of((), ("Dog", "Music", "Bark")),
        labels=one_of({}, {"Dog": LabelOptions(on=0.35, subsume=False), "Cat": LabelOptions(off=0.05)}),
    )
    return Track(options, random.choice(hops, count).cumsum().tolist(), rows.repeat(dwell, axis=0)[:count])


# Drawn from a seed: to draw each score would take most of the tests' time.
tracks = st.builds(track_of, seed=st.integers(0, 2**32), count=st.integers(1, 60))


# Of `track_of(seed, 40)`, seeds below 12,000 whose events once began (or went on after a cut) with silence.
BEGAN_WITH_SILENCE = (3699, 3920, 4035, 5922, 5970, 6758, 7218, 10190, 11552, 11609)
CONTINUED_WITH_SILENCE = (141, 585, 717, 1077, 1911, 4756, 5083, 7784, 9023, 9149, 11457)


def by_event(changes: Sequence[EventChange]) -> dict[str, list[EventChange]]:
    events: dict[str, list[EventChange]] = defaultdict(list)
    for change in changes:
        events[change.id].append(change)
    return events


@given(tracks)
@example(track_of(6758, 40))
@settings(deadline=None)
def test_begin_precedes_end(track: Track) -> None:
    """An event is one begin, updates, and one end; start stays, the end grows; what is said of it adds up."""
    tracker = make(track.options)
    changes = [*track.run(tracker), *tracker.end("stopped")]
    assert not tracker.open
    for told in by_event(changes).values():
        assert [change.kind for change in told] == ["begin", *["update"] * (len(told) - 2), "end"]
        assert len({(change.index, change.start_ns, change.since_ns, change.continues) for change in told}) == 1
        for before, after in itertools.pairwise(told):
            assert before.end_ns <= after.end_ns
            assert before.decided_ns <= after.decided_ns
            assert before.windows <= after.windows
            assert before.peak <= after.peak
        longest_ns = max(track.options.max_duration_s * 1e9, told[0].end_ns - told[0].start_ns)
        for change in told:
            assert change.end_ns - change.start_ns <= longest_ns
            assert change.start_ns < change.since_ns <= change.end_ns <= change.decided_ns
            assert 0 < change.mean <= change.peak + 1e-9 <= 1 + 1e-9
            assert change.windows >= 1
            assert change.modalities[0] == "audio"


@pytest.mark.parametrize("seed", [*BEGAN_WITH_SILENCE, *CONTINUED_WITH_SILENCE])
def test_no_event_begins_with_silence(seed: int) -> None:
    """However long smoothing holds a score up, an event begins with a window whose own score reaches `off`."""
    track = track_of(seed, 40)
    tracker = make(track.options)
    changes = [*track.run(tracker), *tracker.end("stopped")]
    assert changes
    rules = make_rules(track.options)
    for change in changes:
        assert change.windows >= 1
        assert change.peak >= change.mean > 0
        assert change.peak >= rules.off[change.index]


@given(tracks)
@settings(deadline=None, max_examples=300)
def test_every_event_has_a_score(track: Track) -> None:
    """Each event is confirmed by at least one window, its peak reaches `off`, and its mean is above 0."""
    tracker = make(track.options)
    rules = make_rules(track.options)
    for change in [*track.run(tracker), *tracker.end("stopped")]:
        assert change.windows >= 1
        assert change.mean > 0
        assert change.peak >= rules.off[change.index]


@given(tracks)
@settings(deadline=None)
def test_events_of_a_label_never_overlap(track: Track) -> None:
    """They share no media, and between two of them lie the merge gap and the cool-down, unless one was cut in two."""
    tracker = make(track.options)
    ends = [change for change in (*track.run(tracker), *tracker.end("stopped")) if change.kind == "end"]
    for index in range(N):
        mine = [change for change in ends if change.index == index]
        for before, after in itertools.pairwise(mine):
            assert before.end_ns <= after.start_ns
            if after.continues:
                assert (after.continues, before.reason) == (before.id, "maximum duration")
                assert before.end_ns == after.start_ns
            else:
                assert after.start_ns - before.end_ns >= track.options.cooldown_s * 1e9
                if before.reason == "faded":
                    assert after.start_ns - before.end_ns >= track.options.merge_gap_s * 1e9


@given(tracks)
@settings(deadline=None)
def test_hysteresis_is_obeyed(track: Track) -> None:
    """An event begins at or above on, held for long enough; it fades below off, and without coming back to it."""
    tracker = make(track.options)
    rules = make_rules(track.options)
    past: list[tuple[int, int, NDArray[np.float64]]] = []
    for row, start in zip(track.scores, track.starts_ns, strict=True):
        changes = tracker.track(row, start, start + WINDOW_NS, ("audio",))
        past.append((start, start + WINDOW_NS, tracker.smoothed))
        for change in changes:
            i = change.index
            assert rules.allowed[i] and not rules.denied[i]
            assert (change.on, change.off) == (rules.on[i], rules.off[i])
            if change.reason == "confirmed":
                held = [smoothed[i] for begin, end, smoothed in past if begin >= change.start_ns]
                assert min(held) >= change.on
                assert change.decided_ns - change.since_ns >= rules.min_duration_ns[i]
                assert len(held) == change.windows
            if change.reason == "faded":
                after = [(begin, smoothed[i]) for begin, end, smoothed in past if end > change.end_ns]
                assert after[0][1] < change.off
                soon = [level for begin, level in after if begin < change.end_ns + rules.merge_gap_ns[i]]
                assert max(soon, default=0) < change.off
                assert after[-1][0] >= change.end_ns + rules.merge_gap_ns[i]


def reference(track: Track, index: int, scores: NDArray[np.float32]) -> list[tuple[str, int, int, str]]:
    """One label alone by the book, a window after the other: (kind, start, end, reason) of begins and ends."""
    options = track.options
    rules = make_rules(options)
    told: list[tuple[str, int, int, str]] = []
    s = last = since = start = end = 0.0
    seen, state, over, full = False, "idle", -np.inf, False
    for begin, x in zip(track.starts_ns, scores.astype(float), strict=True):
        now = begin + WINDOW_NS
        if seen and begin - last > options.max_gap_s * 1e9:
            if state in ("open", "fading"):
                told.append(("end", int(start), int(end), "gap"))
                over = end
            seen, state, full = False, "idle", False
        weight = 1 - np.exp(-(now - last) / 1e9 / options.smoothing_s) if seen and options.smoothing_s else 1
        s, last, seen = s + weight * (x - s) if weight < 1 else x, now, True
        if state == "open" and s < rules.off[index]:
            state = "fading"
        if state == "fading":
            if begin >= end + options.merge_gap_s * 1e9:
                told.append(("end", int(start), int(end), "maximum duration" if full else "faded"))
                state, over, full = "idle", end, False
            elif s >= rules.off[index]:
                state = "open"
        if state == "open":
            full = now - start > options.max_duration_s * 1e9
            if full and x >= rules.off[index]:
                told += [("end", int(start), int(end), "maximum duration"), ("begin", int(end), now, "split")]
                start, full = end, False
            if not full:
                end = now
        elif state != "fading":
            audible = state == "holding" or x >= rules.off[index]
            if s < rules.on[index] or begin < over + options.cooldown_s * 1e9 or not audible:
                state = "idle"
                continue
            if state == "idle":
                state, start, since = "holding", begin, now
            end = now
            if now - since >= options.min_duration_s * 1e9:
                told.append(("begin", int(start), int(end), "confirmed"))
                state = "open"
    return told


@given(tracks)
@settings(deadline=None)
def test_a_label_alone_goes_by_the_book(track: Track) -> None:
    """Labels without relatives have the events that a plain reading of the rules gives each of them."""
    changes = track.run(make(track.options))
    for index in (MUSIC, HINGE):
        found = [
            (change.kind, change.start_ns, change.end_ns, change.reason)
            for change in changes
            if change.index == index and change.kind != "update"
        ]
        expected = reference(track, index, track.scores[:, index])
        assert found == (expected if make_rules(track.options).allowed[index] else [])


@given(tracks)
@settings(deadline=None)
def test_roll_up_is_monotone(track: Track) -> None:
    """At any time a label is at least as sure as every label below it that isn't denied, smoothed or not."""
    tracker = make(track.options)
    rules = make_rules(track.options)
    for row, start in zip(track.scores, track.starts_ns, strict=True):
        tracker.track(row, start, start + WINDOW_NS, ("audio",))
        assert (tracker.smoothed[rules.above] >= tracker.smoothed[rules.below] - 1e-12).all()
        shown = {each.index: each for each in tracker.candidates(N)}
        for above, below in zip(rules.above.tolist(), rules.below.tolist(), strict=True):
            assert shown[above].score >= shown[below].score


@given(tracks, st.data())
@settings(deadline=None)
def test_it_does_not_matter_how_windows_come(track: Track, data: st.DataObject) -> None:
    """One by one or in groups, the events are the same."""
    at_once = track.run(make(track.options))
    tracker, grouped = make(track.options), list[EventChange]()
    cuts = data.draw(st.lists(st.integers(0, len(track.starts_ns)), max_size=5).map(sorted))
    for first, last in itertools.pairwise([0, *cuts, len(track.starts_ns)]):
        grouped += track.run(tracker, first, last)
        tracker.candidates(3)  # a question changes nothing
    assert at_once == grouped


@given(tracks)
@settings(deadline=None)
def test_no_parent_has_an_event_beside_its_child(track: Track) -> None:
    """Where labels subsume, no event is open together with one above it."""
    tracker = make(track.options)
    rules = make_rules(track.options)
    for row, start in zip(track.scores, track.starts_ns, strict=True):
        tracker.track(row, start, start + WINDOW_NS, ("audio",))
        for above, below in zip(rules.above, rules.below, strict=True):
            assert not (rules.subsume[above] and {above, below} <= set(tracker.open))


@given(tracks)
@settings(deadline=None)
def test_every_candidate_says_why(track: Track) -> None:
    """Each label has one state that fits its score, and a reason; suppressed ones are counted."""
    tracker = make(track.options)
    rules = make_rules(track.options)
    track.run(tracker)
    shown = tracker.candidates(N)
    assert sorted(each.index for each in shown) == list(range(N))
    assert [each.smoothed for each in shown] == sorted((each.smoothed for each in shown), reverse=True)
    for each in shown:
        assert each.reason
        assert (each.event is not None) == (each.state in ("open", "fading"))
        if each.state in ("quiet", "below on"):
            assert each.smoothed <= each.on or each.score < each.off
        if each.state in ("cool-down", "subsumed", "not allowed", "denied", "holding"):
            assert each.smoothed >= each.on - 1e-6
        assert (each.state == "denied") <= bool(rules.denied[each.index])
    assert set(tracker.suppressed) == set(SUPPRESSIONS)
    assert min(tracker.suppressed.values()) >= 0


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.integers(1, 10), st.floats(0.05, 5))
@settings(max_examples=50, deadline=None)
def test_smoothing_is_exact_at_any_hop(scores: list[float], parts: int, tau_s: float) -> None:
    """A window told in many small steps, its score unchanged, smooths to the same as in one."""
    once, often = (make(EventOptions(smoothing_s=tau_s, max_gap_s=60)) for _ in range(2))
    end_ns = 0
    for score in scores:
        row = np.full(N, score, np.float32)
        for part in range(parts):
            at_ns = end_ns + HOP_NS * (part + 1) // parts
            often.track(row, at_ns - WINDOW_NS, at_ns, ("audio",))
        end_ns += HOP_NS
        once.track(row, end_ns - WINDOW_NS, end_ns, ("audio",))
    assert once.smoothed == pytest.approx(often.smoothed, abs=1e-9)


def test_smoothing_is_the_differential_equations() -> None:
    """Half a second after a step from 0 to 1 the smoothed score is 1 - 1/e at a time constant of half a second."""
    tracker = make()
    tracker.track(np.zeros(N, np.float32), 0, WINDOW_NS, ("audio",))
    tracker.track(np.ones(N, np.float32), HOP_NS, HOP_NS + WINDOW_NS, ("audio",))
    assert tracker.smoothed == pytest.approx(np.full(N, 1 - np.exp(-1)))


# Each rule by example: scores of one or some labels, a window each half second.

PLAIN = EventOptions(smoothing_s=0, min_duration_s=0, merge_gap_s=0, subsume=False, deny=())


def play(tracker: EventTracker, first: int = 0, **scores: Sequence[float]) -> list[tuple[str, str, str]]:
    """What is told: (kind, label, reason)."""
    told: list[tuple[str, str, str]] = []
    for k in range(max(map(len, scores.values()))):
        row = np.zeros(N, np.float32)
        for name, each in scores.items():
            row[NAMES.index(name) if name in NAMES else HINGE] = each[k]
        start = (first + k) * HOP_NS
        told += [
            (change.kind, LABELS[change.index].name, change.reason)
            for change in tracker.track(row, start, start + WINDOW_NS, ("audio",))
        ]
    return told


def set_to(**changes: Any) -> EventOptions:
    return msgspec.structs.replace(PLAIN, **changes)


def state_of(tracker: EventTracker, index: int) -> tuple[str, str]:
    return next((each.state, each.reason) for each in tracker.candidates(N) if each.index == index)


def test_one_sure_window_does_not_fire() -> None:
    """By default a single window of 0.975 among quiet ones is no event, and is counted as smoothed away."""
    tracker = make()
    assert play(tracker, Music=[0, 0, 0.6, 0, 0, 0]) == []
    assert play(tracker, 6, Music=[0, 0.975, 0, 0, 0]) == []
    assert tracker.suppressed["below on"] + tracker.suppressed["too short"] == 2


def test_what_comes_to_nothing_is_counted_once() -> None:
    """A label that rises and falls again is counted by the best that it came to; one that had an event isn't."""
    tracker = make(set_to(min_duration_s=1))
    play(tracker, Music=[0, 0.4, 0.45, 0.4, 0])
    assert {reason: count for reason, count in tracker.suppressed.items() if count} == {"below on": 1}
    play(tracker, 5, Music=[0.4, 0.9, 0.4, 0])
    assert {reason: count for reason, count in tracker.suppressed.items() if count} == {"below on": 1, "too short": 1}
    play(tracker, 9, Music=[0.4, 0.9, 0.9, 0.9, 0.4, 0, 0, 0, 0])
    assert {reason: count for reason, count in tracker.suppressed.items() if count} == {"below on": 1, "too short": 1}


def test_a_minimum_duration_is_waited_for() -> None:
    """It begins with the first window that is so far from the first at or above on, and reaches back to that one."""
    tracker = make(set_to(min_duration_s=1))
    assert play(tracker, Music=[0.9, 0.9]) == []
    assert state_of(tracker, MUSIC) == ("holding", "at or above on, 0.5, for 0.5 of 1 s")
    (change,) = tracker.track(
        np.eye(N, dtype=np.float32)[MUSIC], 2 * HOP_NS, 2 * HOP_NS + WINDOW_NS, ("audio", "video")
    )
    assert (change.kind, change.start_ns, change.since_ns, change.windows) == ("begin", 0, WINDOW_NS, 3)
    assert change.modalities == ("audio", "video")
    assert change.mean == pytest.approx((0.9 + 0.9 + 1) / 3)
    assert play(make(set_to(min_duration_s=1)), Music=[0.9, 0.9, 0.4, 0.9, 0.9, 0.4]) == []


def test_windows_that_overlap_make_one_event() -> None:
    """A score that drops for some windows and comes back within the same media goes on, even without a merge gap."""
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


def test_what_comes_back_soon_is_the_same_event() -> None:
    """Within the merge gap it goes on; the end is told when the gap is over, and says when it was."""
    tracker = make(set_to(merge_gap_s=2))
    assert play(tracker, Music=[0.9, *[0] * 5, 0.9]) == [("begin", "Music", "confirmed")]
    assert play(tracker, 7, Music=[0] * 6) == []
    assert state_of(tracker, MUSIC)[0] == "fading"
    (change,) = tracker.track(np.zeros(N, np.float32), 13 * HOP_NS, 13 * HOP_NS + WINDOW_NS, ("audio",))
    assert (change.kind, change.start_ns, change.end_ns) == ("end", 0, 6 * HOP_NS + WINDOW_NS)
    assert change.windows == 2
    assert change.peak == pytest.approx(0.9)


def test_between_the_thresholds_it_goes_on() -> None:
    """Above off an event stays, and doesn't begin."""
    tracker = make(set_to(on=0.6, off=0.2))
    assert play(tracker, Music=[0.5, 0.5]) == []
    assert state_of(tracker, MUSIC) == ("below on", "0.5 is below on, 0.6")
    assert play(tracker, 2, Music=[0.7, 0.3, 0.3, 0.3]) == [("begin", "Music", "confirmed")]


def test_a_cool_down_is_kept() -> None:
    """After an event its label has none for so long; the other labels have."""
    tracker = make(set_to(cooldown_s=2))
    assert len(play(tracker, Music=[0.9, 0, 0, 0, 0.9, 0.9], Animal=[0, 0, 0, 0, 0.9, 0.9])) == 3
    assert state_of(tracker, MUSIC)[0] == "cool-down"
    assert tracker.suppressed["cool-down"] == 1
    assert play(tracker, 6, Music=[0.9, 0.9], Animal=[0.9, 0.9]) == [("begin", "Music", "confirmed")]


def test_a_cool_down_that_ends_in_silence_begins_nothing() -> None:
    """If smoothing still holds the score above `on`, the reason names this window's own score."""
    options = set_to(cooldown_s=1, smoothing_s=5, off=0.2)
    tracker = make(options)
    play(tracker, Music=[1] * 4)
    tracker.change(make_rules(options))
    assert play(tracker, 4, Music=[1, 1, 1, 0, 0]) == []
    reason = "0.819 is at or above on, 0.5, but 0 in this window is below off, 0.2"
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


def test_long_events_are_told_of_and_cut() -> None:
    """An event is updated at its interval, and cut at its maximum; the next goes on from it and names it."""
    tracker = make(set_to(max_duration_s=5, update_s=2))
    told = [
        change
        for k in range(13)
        for change in tracker.track(np.eye(N, dtype=np.float32)[MUSIC], k * HOP_NS, k * HOP_NS + WINDOW_NS, ("audio",))
    ]
    assert [change.kind for change in told] == ["begin", "update", "end", "begin", "update"]
    _, _, end, begin, _ = told
    assert end.reason == "maximum duration"
    assert end.end_ns - end.start_ns <= 5 * NS_PER_S
    assert (begin.reason, begin.continues, begin.start_ns) == ("split", end.id, end.end_ns)
    assert begin.id != end.id


def test_a_gap_ends_events() -> None:
    """Where no window came for too long, events end before the next window counts, and smoothing begins anew."""
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
    """Each open one is told with the reason; what was about to begin is counted, and nothing follows."""
    tracker = make(set_to(min_duration_s=1))
    play(tracker, Music=[0.9, 0.9, 0.9, 0.9], Hinge=[0, 0, 0, 0.9])
    (change,) = tracker.end("stream lost")
    assert (change.kind, change.reason, change.end_ns) == ("end", "stream lost", 3 * HOP_NS + WINDOW_NS)
    assert tracker.suppressed["too short"] == 1
    assert not tracker.tracking
    assert tracker.end("stopped") == []
    # What comes at once begins no second event of the same media.
    assert play(tracker, 4, Music=[0.9, 0.9, 0.9]) == []


def test_a_childs_event_takes_its_parents_place() -> None:
    """A dog's event ends when it barks; while the bark is open there is no dog, and afterwards there may be."""
    tracker = make(set_to(subsume=True))
    assert play(tracker, Dog=[0.9, 0.9, 0.9], Bark=[0, 0, 0.9]) == [
        ("begin", "Dog", "confirmed"),
        ("end", "Dog", "subsumed"),
        ("begin", "Bark", "confirmed"),
    ]
    assert state_of(tracker, DOG) == ("subsumed", "Bark took its place")
    assert tracker.suppressed["subsumed"] == 2  # the animal, and from the bark on the dog
    assert play(tracker, 3, Dog=[0.9] * 5) == [("end", "Bark", "faded"), ("begin", "Dog", "confirmed")]


def test_a_parent_waits_for_its_child() -> None:
    """What crosses first because it is surer doesn't begin an event that would be taken back at once."""
    tracker = make(set_to(subsume=True, min_duration_s=0.5))
    assert play(tracker, Dog=[0.9, 0.9], Bark=[0, 0.9]) == []
    assert state_of(tracker, DOG) == ("holding", "at or above on, 0.5, for 0.5 of 0.5 s; waits for Bark")
    assert play(tracker, 2, Dog=[0.9], Bark=[0.9]) == [("begin", "Bark", "confirmed")]
    # It waits for as long again as it has to hold, and no longer.
    tracker = make(
        set_to(subsume=True, labels={"Bark": LabelOptions(min_duration_s=60), "Dog": LabelOptions(min_duration_s=0.5)})
    )
    assert play(tracker, Dog=[0.9] * 3, Bark=[0.9] * 3)[-1:] == [("begin", "Dog", "confirmed")]


def test_a_parent_may_be_kept() -> None:
    """Where a label is not to be subsumed its event stays beside its child's."""
    tracker = make(set_to(subsume=True, labels={"Dog": LabelOptions(subsume=False)}))
    play(tracker, Bark=[0.9, 0.9])
    assert tracker.open == (DOG, BARK)


def test_an_allowed_parent_hears_for_its_children() -> None:
    """Whoever allows Dog alone has an event when it barks or howls, one for all of it."""
    tracker = make(set_to(subsume=True, allow=("Dog",)))
    assert play(tracker, Bark=[0.9, 0], Howl=[0, 0.9], Music=[0.9, 0.9]) == [("begin", "Dog", "confirmed")]
    assert state_of(tracker, MUSIC) == ("not allowed", "not on the list of allowed labels")
    shown = {each.index: each for each in tracker.candidates(N)}
    assert shown[DOG].score == pytest.approx(0.9)
    assert shown[DOG].surest == LABELS[HOWL].mid
    assert shown[HOWL].surest is None


def test_a_denied_label_is_silent() -> None:
    """It has no event and makes no parent surer; a hold-down of many windows counts once."""
    tracker = make(set_to(deny=("Bark", "Hinge")))
    assert play(tracker, Bark=[0.9] * 9, Hinge=[0.9] * 9) == []
    assert state_of(tracker, HINGE) == ("denied", "on the list of denied labels")
    assert tracker.suppressed["denied"] == 2


def test_other_rules_end_what_was_open() -> None:
    """A change of rules ends events; the new ones hold from the next window on, and no media counts twice."""
    tracker = make(set_to())
    play(tracker, Music=[0.9, 0.9])
    (change,) = tracker.change(make_rules(set_to(on=0.2)))
    assert (change.kind, change.reason) == ("end", "reload")
    assert play(tracker, 2, Music=[0.3] * 3) == [("begin", "Music", "confirmed")]
    assert tracker.open == (MUSIC,)


def test_windows_out_of_order_are_refused() -> None:
    """Time goes on, and scores are numbers; anything else is a fault of the program."""
    tracker = make()
    tracker.track(np.zeros(N, np.float32), 0, WINDOW_NS, ("audio",))
    with pytest.raises(ValueError, match="after one that ended at 1280000000"):
        tracker.track(np.zeros(N, np.float32), 0, WINDOW_NS, ("audio",))
    with pytest.raises(ValueError, match="finite scores"):
        tracker.track(np.full(N, np.nan, np.float32), HOP_NS, HOP_NS + WINDOW_NS, ("audio",))
    with pytest.raises(ValueError, match="finite scores"):
        tracker.track(np.zeros(N + 1, np.float32), HOP_NS, HOP_NS + WINDOW_NS, ("audio",))
