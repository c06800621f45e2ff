"""Properties of events over random tracks of scores."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S
from perceiverd.pipeline.rules import EventOptions, LabelOptions
from perceiverd.pipeline.tracker import SUPPRESSIONS, EventChange, EventTracker
from tests.support.events import HINGE, HOP_NS, MUSIC, WINDOW_NS, N, make, make_rules


@dataclass
class Track:
    """Windows with their scores, and the options for their events."""

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
    """Irregular hops with gaps, scores that stay and jump, and any options."""
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


# Made from a seed: if hypothesis drew each score, that would take most of the tests' time.
tracks = st.builds(track_of, seed=st.integers(0, 2**32), count=st.integers(1, 60))


# Seeds of `track_of(seed, 40)` with which events once began, or continued after a cut, in silence: of 12,000 all.
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
    """An event is one begin, updates, and one end; its start stays, its end grows, and its numbers fit together."""
    tracker = make(track.options)
    changes = [*track.run(tracker), *tracker.end("stopped")]
    assert not tracker.open
    for event in by_event(changes).values():
        assert [change.kind for change in event] == ["begin", *["update"] * (len(event) - 2), "end"]
        assert len({(change.index, change.start_ns, change.since_ns, change.continues) for change in event}) == 1
        for before, after in itertools.pairwise(event):
            assert before.end_ns <= after.end_ns
            assert before.decided_ns <= after.decided_ns
            assert before.windows <= after.windows
            assert before.peak <= after.peak
        longest_ns = max(track.options.max_duration_s * 1e9, event[0].end_ns - event[0].start_ns)
        for change in event:
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
    """Events share no media; merge gap and cool-down lie between two of them, unless one was cut in two."""
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
    """An event begins if the score stays at or above on for long enough; it fades below off and does not come back."""
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
    """The rules for one label, written plainly, window by window: (kind, start, end, reason) of begins and ends."""
    options = track.options
    rules = make_rules(options)
    found: list[tuple[str, int, int, str]] = []
    s = last = since = start = end = 0.0
    seen, state, over, full = False, "idle", -np.inf, False
    for begin, x in zip(track.starts_ns, scores.astype(float), strict=True):
        now = begin + WINDOW_NS
        if seen and begin - last > options.max_gap_s * 1e9:
            if state in ("open", "fading"):
                found.append(("end", int(start), int(end), "gap"))
                over = end
            seen, state, full = False, "idle", False
        weight = 1 - np.exp(-(now - last) / 1e9 / options.smoothing_s) if seen and options.smoothing_s else 1
        s, last, seen = s + weight * (x - s) if weight < 1 else x, now, True
        if state == "open" and s < rules.off[index]:
            state = "fading"
        if state == "fading":
            if begin >= end + options.merge_gap_s * 1e9:
                found.append(("end", int(start), int(end), "maximum duration" if full else "faded"))
                state, over, full = "idle", end, False
            elif s >= rules.off[index]:
                state = "open"
        if state == "open":
            full = now - start > options.max_duration_s * 1e9
            if full and x >= rules.off[index]:
                found += [("end", int(start), int(end), "maximum duration"), ("begin", int(end), now, "split")]
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
                found.append(("begin", int(start), int(end), "confirmed"))
                state = "open"
    return found


@given(tracks)
@settings(deadline=None)
def test_a_label_alone_agrees_with_the_reference(track: Track) -> None:
    """A label without relatives has exactly the events of the plain reference."""
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
    """A label never has a lower score than a label below it that is not denied, smoothed or not."""
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
def test_the_grouping_of_windows_does_not_matter(track: Track, data: st.DataObject) -> None:
    """Whether windows come one by one or in groups, the events are the same."""
    at_once = track.run(make(track.options))
    tracker, grouped = make(track.options), list[EventChange]()
    cuts = data.draw(st.lists(st.integers(0, len(track.starts_ns)), max_size=5).map(sorted))
    for first, last in itertools.pairwise([0, *cuts, len(track.starts_ns)]):
        grouped += track.run(tracker, first, last)
        tracker.candidates(3)  # reading changes nothing
    assert at_once == grouped


@given(tracks)
@settings(deadline=None)
def test_no_event_is_open_above_another(track: Track) -> None:
    """If labels subsume, no event is open together with one of a label above it."""
    tracker = make(track.options)
    rules = make_rules(track.options)
    for row, start in zip(track.scores, track.starts_ns, strict=True):
        tracker.track(row, start, start + WINDOW_NS, ("audio",))
        for above, below in zip(rules.above, rules.below, strict=True):
            assert not (rules.subsume[above] and {above, below} <= set(tracker.open))


@given(tracks)
@settings(deadline=None)
def test_every_candidate_has_a_reason(track: Track) -> None:
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
    """A window in many small steps with the same score is smoothed as one window is."""
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


def test_smoothing_solves_the_differential_equation() -> None:
    """Half a second after a step from 0 to 1, with a time constant of half a second, the smoothed score is 1 - 1/e."""
    tracker = make()
    tracker.track(np.zeros(N, np.float32), 0, WINDOW_NS, ("audio",))
    tracker.track(np.ones(N, np.float32), HOP_NS, HOP_NS + WINDOW_NS, ("audio",))
    assert tracker.smoothed == pytest.approx(np.full(N, 1 - np.exp(-1)))
