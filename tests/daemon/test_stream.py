"""What the daemon knows of a stream: its events as they are told, counted and ended."""

import time
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from perceiverd.config import WindowConfig
from perceiverd.core import clock
from perceiverd.core.labels import ontology
from perceiverd.core.media import NS_PER_S, Chunk, Frame
from perceiverd.daemon.stream import StreamState, disabled
from perceiverd.model.card import Calibration
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.pipeline.rules import EventOptions, resolve
from perceiverd.pipeline.stalls import StallLimits
from perceiverd.pipeline.tracker import EventTracker
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.sources.process.arrivals import Arrival, SourceState
from perceiverd.sources.process.restart import RunState
from perceiverd.wire.messages import Event, Model

GEOMETRY = Geometry(527, Trunk(4, 16, 1, 1, 2), Audio(16_000, 8_000, "raw", (160,), 2))
LABELS = ontology().labels
TOLERANCE = WindowConfig().tolerance
MODEL = Model("tiny", "ab")
DOG = ontology().find("Dog")
BEGAN_NS = clock.now_ns()
SURE = np.eye(len(LABELS), dtype=np.float32)[DOG.index]


def stream(**changes: float) -> StreamState:
    options = msgspec.structs.replace(EventOptions(min_duration_s=0, allow=("Dog",)), **changes)
    rules = resolve(LABELS, (Calibration(),) * len(LABELS), options)
    return StreamState("door", Windower(GEOMETRY, NS_PER_S // 2, TOLERANCE), EventTracker(rules))


def window(number: int) -> Window:
    """Half a second of sound, a quarter of a second after the one before."""
    start_ns = BEGAN_NS + number * NS_PER_S // 4
    return Window(start_ns, start_ns + NS_PER_S // 2, np.zeros(8_000, np.float32), None)


def source(state: RunState) -> SourceState:
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


def test_a_suspend_ends_events_as_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """They end when they were confirmed last by the wall clock of then; both lines are torn; what is due is dropped."""
    watched = seeing()
    watched.due.clear()
    before = time.time_ns
    began = watched.events(window(0), SURE, MODEL)
    last = clock.utc(window(0).end_ns)
    watched.due = [window(1)]
    monkeypatch.setattr("time.time_ns", lambda: before() + 3600 * NS_PER_S)
    ends = watched.slept(3600 * NS_PER_S, MODEL)
    assert [end.id for end in ends] == [begin.id for begin in began if begin.kind == "begin"] != []
    for end in ends:
        assert (end.kind, end.explanation.reason) == ("end", "gap")
        assert abs(end.end - last) < timedelta(seconds=10)
        assert (end.end - end.start).total_seconds() == pytest.approx(0.5, abs=0.1)
    assert (watched.due, watched.dropped, watched.windower.counts.gaps) == ([], 1, 2)
    pass_on(watched, 10.0, 10.9)  # goes on without a hole, and yet no window reaches over the suspend
    assert [each.start_ns >= 10 * NS_PER_S for each in watched.due if each.modalities] == [True]


def test_events_that_begin_are_counted_once() -> None:
    """By label; an event that was cut and goes on as another is not another."""
    watched = stream(max_duration_s=1)
    told = [event for number in range(8) for event in watched.events(window(number), SURE, MODEL)]
    assert [event.kind for event in told] == ["begin", "end", "begin", "end", "begin"]
    assert watched.begun == {DOG.mid: 1}


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


BOTH = Geometry(527, Trunk(4, 16, 1, 1, 2), Audio(16_000, 8_000, "raw", (160,), 2), Video(4, 8, 3, 5, (1, 3, 5), 2))
CHANCE = np.random.default_rng(1)


def seeing(*, offset_ms: float = 0, freeze_s: float = 1e9, mute_s: float = 1e9, until_s: float = 10.0) -> StreamState:
    """A stream that has watched and heard for a while, with limits of 2 s."""
    rules = resolve(LABELS, (Calibration(),) * len(LABELS), EventOptions(min_duration_s=0))
    watched = StreamState(
        "door",
        Windower(BOTH, NS_PER_S // 2, TOLERANCE),
        EventTracker(rules),
        av_offset_ns=round(offset_ms * 1e6),
    )
    watched.limits = StallLimits(2 * NS_PER_S, 2 * NS_PER_S)
    pass_on(watched, 0.0, until_s, freeze_s, mute_s)
    return watched


def pass_on(watched: StreamState, from_s: float, until_s: float, freeze_s: float = 1e9, mute_s: float = 1e9) -> None:
    still = CHANCE.integers(0, 255, (3, 5, 3), np.uint8)
    for n in range(round(from_s * 25), round(until_s * 25)):
        at_ns = n * NS_PER_S // 25
        pixels = still if n / 25 >= freeze_s else CHANCE.integers(0, 255, (3, 5, 3), np.uint8)
        samples = CHANCE.uniform(-1, 1, 640).astype(np.float32) * (n / 25 < mute_s)
        for modality, item in (("video", Frame(at_ns, pixels)), ("audio", Chunk(at_ns, samples, 16_000))):
            watched.hear(modality, Arrival("door", 0, item), item)  # type: ignore[arg-type]


def test_a_frozen_picture_is_masked_and_the_stream_goes_on_by_ear(caplog: pytest.LogCaptureFixture) -> None:
    """From 2 s after it froze windows have sound alone, in their time; they see again once it moves again."""
    watched = seeing(freeze_s=4.0)
    assert watched.stalls_of(0) == ("frozen picture",)
    seen = {window.end_ns / NS_PER_S: window.modalities for window in watched.due}
    assert all(modalities == (("audio", "video") if end_s <= 6 else ("audio",)) for end_s, modalities in seen.items())
    assert list(seen) == [0.5 * n for n in range(1, 21)]  # none is missing, none waits for pictures
    assert "frozen-picture stream=door source=0 counts_as_missing=true" in caplog.text
    watched.due.clear()
    pass_on(watched, 10, 13)
    assert watched.stalls_of(0) == ()
    assert watched.due[-1].modalities == ("audio", "video")


def test_dead_sound_is_masked_and_the_stream_goes_on_by_eye() -> None:
    """From 2 s of zeros on windows have pictures alone."""
    watched = seeing(mute_s=4.0)
    assert watched.stalls_of(0) == ("dead silence",)
    assert watched.due[-1].modalities == ("video",)
    assert watched.due[-1].end_ns >= 9 * NS_PER_S
    assert not watched.frozen_due(0, 0)  # a mute may be meant


def sound(watched: StreamState, position: int, from_s: float, until_s: float, loud: float = 1.0) -> None:
    for n in range(round(from_s * 25), round(until_s * 25)):
        chunk = Chunk(n * NS_PER_S // 25, loud * CHANCE.uniform(-1, 1, 640).astype(np.float32), 16_000)
        watched.hear("audio", Arrival("door", position, chunk), chunk)


def heard_s(watched: StreamState) -> list[float]:
    """The ends of the windows that are due and have sound."""
    return [window.end_ns / NS_PER_S for window in watched.due if "audio" in window.modalities]


def test_the_next_is_heeded_while_the_first_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A microphone beside a camera with sound is heard once the camera is lost, until it is back; the log says once."""
    watched = stream()
    for begin_s in (0, 10):
        for n in range(5):
            sound(watched, 0, begin_s + n, begin_s + n + 1)
            sound(watched, 1, begin_s + n, begin_s + n + 1)
        watched.torn("audio", 0)
        watched.lost(0)
        sound(watched, 1, begin_s + 5, begin_s + 10)
    assert heard_s(watched) == [n / 2 for n in range(1, 41)]
    assert watched.windower.counts.gaps == 3
    assert watched.events_over([source(RunState.BACKING_OFF), replace(source(RunState.UP), position=1)], MODEL) == []
    assert [record.message for record in caplog.records] == [
        "given-twice stream=door modality=audio sources=0,1 heeded=0"
    ]


def test_the_next_is_heeded_while_the_first_is_dead() -> None:
    """A microphone is heard beside a camera's dead sound, and the camera again once its sound lives."""
    watched = stream()
    watched.limits = StallLimits(2 * NS_PER_S, 2 * NS_PER_S)
    for n in range(10):
        sound(watched, 0, n, n + 1, loud=0.0 if n < 6 else 1.0)
        watched.note(RunState.UP, n * NS_PER_S)
        sound(watched, 1, n, n + 1)
    assert watched.stalls_of(0) == ()
    heard = heard_s(watched)
    assert len(heard) >= 18 and heard[-1] == 10.0
    assert watched.excused_ns <= 7 * NS_PER_S  # the watchdog goes by what is heeded
    assert watched.windower.counts.gaps == 2


def test_events_end_where_all_that_comes_stands_still() -> None:
    """Also what is not heeded because another comes first."""
    watched = stream()
    watched.limits = StallLimits(2 * NS_PER_S, 2 * NS_PER_S)
    watched.events(window(0), SURE, MODEL)
    sources = [source(RunState.UP), replace(source(RunState.UP), position=1)]
    for n in range(10):
        for position in (0, 1):
            sound(watched, position, n, n + 1, loud=0.0)
    watched.due.clear()
    assert watched.stalls_of(0) == watched.stalls_of(1) == ("dead silence",)
    assert [event.explanation.reason for event in watched.events_over(sources, MODEL)] == ["stream lost"]


def test_a_clip_may_hold_still() -> None:
    """Files that are replayed are not watched."""
    rules = resolve(LABELS, (Calibration(),) * len(LABELS), EventOptions())
    watched = StreamState(
        "door", Windower(BOTH, NS_PER_S // 2, TOLERANCE), EventTracker(rules), replayed=frozenset({0})
    )
    watched.limits = StallLimits(NS_PER_S, NS_PER_S)
    pass_on(watched, 0, 5, freeze_s=0, mute_s=0)
    assert watched.stalls_of(0) == ()
    assert watched.due[-1].modalities == ("audio", "video")


def test_a_stream_that_gives_nothing_but_stalls_is_no_fault_of_the_loop() -> None:
    """Its events end as those of one that is lost do; the watchdog is fed; it is started again when it is time."""
    watched = seeing(freeze_s=1.0, mute_s=1.0, until_s=5)
    watched.events(window(0), SURE, MODEL)
    watched.due.clear()
    watched.up_ns = watched.sent_ns = 0
    watched.note(RunState.UP, 100 * NS_PER_S)
    assert watched.progressing(101 * NS_PER_S, 10 * NS_PER_S)
    assert watched.frozen_due(0, 100 * NS_PER_S) and not watched.frozen_due(0, 101 * NS_PER_S)
    ended = watched.events_over([source(RunState.UP)], MODEL)
    assert ended and {event.explanation.reason for event in ended} == {"stream lost"}


def test_a_camera_that_is_slow_at_night_keeps_the_watchdog_fed() -> None:
    """Less than a picture a second tears the line each time, so that no window is due; silence without a gap is."""
    watched = seeing(until_s=3)
    watched.up_ns = watched.sent_ns = 3 * NS_PER_S
    for second in range(4, 60, 2):
        item = Frame(second * NS_PER_S, CHANCE.integers(0, 255, (3, 5, 3), np.uint8))
        watched.hear("video", Arrival("door", 0, item), item)
        watched.note(RunState.UP, second * NS_PER_S)
    assert watched.progressing(60 * NS_PER_S, 10 * NS_PER_S)
    watched.note(RunState.UP, 80 * NS_PER_S)
    assert not watched.progressing(80 * NS_PER_S, 10 * NS_PER_S)


@pytest.mark.parametrize("offset_ms", [-800.0, 300.0])
def test_the_offset_moves_pictures_beside_sound(offset_ms: float) -> None:
    """Pictures are stamped so much later, and skew is told by the corrected times."""
    rules = resolve(LABELS, (Calibration(),) * len(LABELS), EventOptions())
    patience = replace(TOLERANCE, wait_ns=NS_PER_S // 2 + round(abs(offset_ms) * 1e6))
    watched = StreamState(
        "door", Windower(BOTH, NS_PER_S // 2, patience), EventTracker(rules), av_offset_ns=round(offset_ms * 1e6)
    )
    for n in range(200):
        frame = Frame(n * 40_000_000 - round(offset_ms * 1e6), np.full((3, 5, 3), n, np.uint8))
        chunk = Chunk(n * 40_000_000, np.full(640, n / 250, np.float32), 16_000)
        watched.hear("audio", Arrival("door", 0, chunk), chunk)
        watched.hear("video", Arrival("door", 0, frame), frame)
    assert len(watched.due) >= 12
    for each in watched.due:
        assert each.video is not None and each.audio is not None and each.skew is not None
        shown = each.video[:, 0, 0, 0].astype(int)
        beside = np.round(each.audio[[1000, 3000, 5000, 7000]] * 250)
        assert np.abs(shown - beside).max() <= 1
        assert abs(each.skew.most_ns) <= 20_000_000


def test_the_hop_is_told_as_it_is_lately() -> None:
    """Twice as long where every second window is overtaken; as configured where none is."""
    watched = stream()
    assert watched.hop_s is None
    for number in range(60):
        watched.take([window(number)] if number < 30 else [window(number), window(number)])
        watched.drop_overtaken()
        watched.sent(watched.due.pop(), clock.now_ns())
        if number == 29:
            assert watched.hop_s == 0.5
    assert watched.hop_s == 1.0


def test_a_stream_that_is_off_says_so() -> None:
    """Its status names its sources, all of them disabled."""
    status = disabled("door", ["a.mp4"], 0, clock.utc(0), MODEL)
    assert (status.state, status.sources[0].source, status.sources[0].state) == ("disabled", "a.mp4", "disabled")
