"""What the daemon knows of a stream: its events as they are told, counted and ended."""

from datetime import timedelta

import msgspec
import numpy as np
import pytest

from perceiverd import clock
from perceiverd.events import EventTracker
from perceiverd.geometry import Audio, Geometry, Trunk
from perceiverd.labels import Calibration, ontology
from perceiverd.media import NS_PER_S
from perceiverd.messages import Event, Model
from perceiverd.rules import EventOptions, resolve
from perceiverd.sources.runner import SourceState
from perceiverd.sources.supervision import State
from perceiverd.streams import Stream
from perceiverd.window import Window, Windower

GEOMETRY = Geometry(527, Trunk(4, 16, 1, 1, 2), Audio(16_000, 8_000, "raw", (160,), 2))
LABELS = ontology().labels
MODEL = Model("tiny", "ab")
DOG = ontology().find("Dog")
BEGAN_NS = clock.now_ns()
SURE = np.eye(len(LABELS), dtype=np.float32)[DOG.index]


def stream(**changes: float) -> Stream:
    options = msgspec.structs.replace(EventOptions(min_duration_s=0, allow=("Dog",)), **changes)
    rules = resolve(LABELS, (Calibration(),) * len(LABELS), options)
    return Stream("door", Windower(GEOMETRY, NS_PER_S // 2), EventTracker(rules))


def window(number: int) -> Window:
    """Half a second of sound, a quarter of a second after the one before."""
    start_ns = BEGAN_NS + number * NS_PER_S // 4
    return Window(start_ns, start_ns + NS_PER_S // 2, np.zeros(8_000, np.float32), None)


def source(state: State) -> SourceState:
    return SourceState("door", 0, "a.mp4", state, "", None, 0.1, {}, 0, 0)


def test_an_event_is_told_in_utc_and_stream_time() -> None:
    """Capture times are those of its windows, stream time begins with the stream, and the label is named in full."""
    watched, first = stream(), window(0)
    watched.take([window(-4)])
    (begin,) = watched.events(first, SURE, MODEL)
    assert isinstance(begin, Event)
    assert (begin.stream, begin.kind) == ("door", "begin")
    assert (begin.mid, begin.index, begin.name) == (DOG.mid, DOG.index, DOG.name)
    assert (begin.start_s, begin.end_s, begin.duration_s) == (1.0, 1.5, 0.5)
    assert abs(begin.start - clock.utc(first.start_ns)) < timedelta(seconds=10)
    assert (begin.explanation.since - begin.start).total_seconds() == pytest.approx(0.5, abs=0.05)
    assert begin.latency_ms == pytest.approx((clock.now_ns() - first.end_ns) / 1e6, abs=10_000)


def test_the_beginning_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the wall clock is set while an event is open, its beginning is still told as it was."""
    watched = stream(update_s=0.2)
    (begin,) = watched.events(window(0), SURE, MODEL)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    (update,) = watched.events(window(1), SURE, MODEL)
    assert (update.kind, update.start, update.explanation.since) == ("update", begin.start, begin.explanation.since)
    (end,) = watched.end_events("stopped", MODEL)
    assert (end.kind, end.start) == ("end", begin.start)
    assert not watched.open_since


def test_events_that_begin_are_counted_once() -> None:
    """By label; an event that was cut and goes on as another is not another."""
    watched = stream(max_duration_s=1)
    told = [event for number in range(8) for event in watched.events(window(number), SURE, MODEL)]
    assert [event.kind for event in told] == ["begin", "end", "begin", "end", "begin"]
    assert watched.begun == {DOG.mid: 1}


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ((State.UP, State.BACKING_OFF), None),
        ((State.STALLED, State.BACKING_OFF), "stream lost"),
        ((State.BACKING_OFF, State.ENDED), "stream lost"),
        ((State.ENDED, State.ENDED), "stream ended"),
    ],
)
def test_events_end_with_their_stream(states: tuple[State, ...], reason: str | None) -> None:
    """Once none of its sources is up and its last window is out, and then once; one source less is no end."""
    watched, sources = stream(), [source(state) for state in states]
    assert watched.events_over(sources, MODEL) == []
    watched.events(window(0), SURE, MODEL)
    watched.due = [window(1)]
    assert watched.events_over(sources, MODEL) == []
    watched.due = []
    assert [event.explanation.reason for event in watched.events_over(sources, MODEL)] == ([reason] if reason else [])
    assert watched.events_over(sources, MODEL) == []


def test_reasons_are_told_of_every_label() -> None:
    """The best labels in any case, the threshold and the smoothed score of each, and the counts so far."""
    watched, first = stream(), window(0)
    watched.take([first])
    watched.events(first, SURE, MODEL)
    explain = watched.explain(first, 3, MODEL)
    # What is above Dog is as sure, and not allowed.
    assert {each.name: each.state for each in explain.candidates} == {
        "Dog": "open",
        "Domestic animals, pets": "not allowed",
        "Animal": "not allowed",
    }
    assert (explain.start_s, explain.end_s) == (0, 0.5)
    assert explain.smoothed[DOG.index] == 1
    assert set(explain.on) == {0.5}
    assert explain.suppressed["not allowed"] == 2
