"""What is published of a stream and of the daemon."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from perceiverd.config import Config, StreamConfig, WindowConfig
from perceiverd.core import clock
from perceiverd.core.media import NS_PER_S, Timing
from perceiverd.daemon import reports
from perceiverd.daemon.progress import Progress
from perceiverd.daemon.reports import Identity
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.specs import File, Synthetic
from perceiverd.wire.messages import Event, Explain
from tests.support.streams import BOTH, DOG, MODEL, SURE, both, rules, source, stream, window

IDENTITY = Identity(MODEL, datetime(2026, 1, 31, tzinfo=UTC))
CONFIG = Config(
    window=WindowConfig(hop_s=0.25),
    streams={"door": StreamConfig((Synthetic(),)), "off": StreamConfig((File("a.mp4"),), enabled=False)},
)


def test_an_event_has_utc_and_stream_time() -> None:
    """Capture times are those of its windows, stream time begins with the stream, and the label is named in full."""
    watched, first = stream(), window(0)
    watched.reports.begin_ns = window(-4).start_ns
    _, begin = watched.tagged(first, SURE)
    assert isinstance(begin, Event)
    assert (begin.stream, begin.kind) == ("door", "begin")
    assert (begin.mid, begin.index, begin.name) == (DOG.mid, DOG.index, DOG.name)
    assert (begin.start_s, begin.end_s, begin.duration_s) == (1.0, 1.5, 0.5)
    assert abs(begin.start - clock.utc(first.start_ns)) < timedelta(seconds=10)
    assert (begin.explanation.since - begin.start).total_seconds() == pytest.approx(0.5, abs=0.05)
    assert begin.latency_ms == pytest.approx((clock.now_ns() - first.end_ns) / 1e6, abs=10_000)


def test_the_published_beginning_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the wall clock is set while an event is open, its messages keep the beginning that was published first."""
    watched = stream(events=rules(update_s=0.2))
    _, begin = watched.tagged(window(0), SURE)
    monkeypatch.setattr("time.time_ns", lambda: 0)
    _, update = watched.tagged(window(1), SURE)
    assert isinstance(begin, Event) and isinstance(update, Event)
    assert (update.kind, update.start, update.explanation.since) == ("update", begin.start, begin.explanation.since)
    (end,) = watched.end_events("stopped")
    assert (end.kind, end.start) == ("end", begin.start)
    assert watched.reports.open_count == 0


def test_events_that_begin_are_counted_once() -> None:
    """Events are counted by label; one that continues another does not count."""
    watched = stream(events=rules(max_duration_s=1))
    found = [each for number in range(8) for each in watched.tagged(window(number), SURE) if isinstance(each, Event)]
    assert [event.kind for event in found] == ["begin", "end", "begin", "end", "begin"]
    assert watched.reports.begun == {"Dog": 1}


def test_reasons_name_the_best_labels() -> None:
    """Explain has the best labels in any case, threshold and smoothed score of each label, and the counts so far."""
    watched, first = stream(), window(0)
    watched.reports.begin_ns = first.start_ns
    *_, explain = watched.tagged(first, SURE, explain=True)
    assert isinstance(explain, Explain)
    # The labels above Dog have the same score, and are not allowed.
    assert {each.name: each.state for each in explain.candidates} == {
        "Dog": "open",
        "Domestic animals, pets": "not allowed",
        "Animal": "not allowed",
    }
    assert (explain.start_s, explain.end_s) == (0, 0.5)
    assert explain.smoothed[DOG.index] == 1
    assert set(explain.on) == {0.5}
    assert explain.suppressed["not allowed"] == 2


def test_a_status_has_all_that_is_known_of_its_sources() -> None:
    """Each fact of a source has its own key; a source without a device clock has no drift and no jitter."""
    watched = stream(BOTH)
    both(watched, 0, 2)
    watched.tagged(watched.due[-1], SURE)
    clocked = replace(
        source(RunState.UP),
        losses={"failed": 2},
        dropped=3,
        snapshots=4,
        snapshots_failed=5,
        timing=Timing(drift_ppm=6.5, jitter_ms=0.12345, steps=7, overflows=1),
    )
    status = watched.status([clocked, source(RunState.STALLED, 1)], subscriptions=8, at_ns=0)
    first, second = status.sources
    assert (first.restarts, first.dropped, first.snapshots, first.snapshots_failed) == ({"failed": 2}, 3, 4, 5)
    assert (first.drift_ppm, first.jitter_ms, first.steps, first.overflows) == (6.5, 0.123, 7, 1)
    assert (second.drift_ppm, second.jitter_ms, second.steps) == (None, None, 0)
    assert (status.state, status.subscriptions, status.windows, status.data_age_s) == ("stalled", 8, 1, 0.1)
    assert status.skew_ms is not None and status.level_dbfs is not None and status.hop_s == 0.5


def test_metrics_get_the_status_and_a_few_counters() -> None:
    """Beside the very status there are latency, events, suppressions, and why each source was lost."""
    watched = stream()
    watched.tagged(window(0), SURE)
    sources = [replace(source(RunState.BACKING_OFF), detail="no route")]
    status = watched.status(sources, subscriptions=0, at_ns=0)
    found = watched.telemetry(sources, status)
    assert found.status is status
    assert (found.counters.events, found.counters.events_open, found.counters.losses) == ({"Dog": 1}, 1, ("no route",))
    assert sum(found.counters.latency.counts) == 1
    assert found.counters.suppressed["not allowed"] == 2


def test_a_disabled_stream_has_a_status() -> None:
    """Its status names its sources, all of them disabled; hello names it too."""
    (status,) = reports.all_disabled(CONFIG, IDENTITY, 0)
    assert (status.stream, status.state, status.up_since) == ("off", "disabled", IDENTITY.up_since)
    assert [(each.source, each.state) for each in status.sources] == [("a.mp4", "disabled")]
    hello = reports.hello(CONFIG, ["door"], IDENTITY)
    assert (hello.streams, hello.disabled, hello.hop_s, hello.model) == (("door",), ("off",), 0.25, MODEL)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((RunState.UP, RunState.BACKING_OFF, RunState.STALLED), RunState.BACKING_OFF),
        ((RunState.UP, RunState.STARTING), RunState.STARTING),
        ((RunState.UP, RunState.ENDED), RunState.UP),
        ((RunState.ENDED, RunState.ENDED), RunState.ENDED),
        ((), RunState.ENDED),
    ],
)
def test_a_stream_is_as_well_as_its_worst_source(states: tuple[RunState, ...], expected: RunState) -> None:
    """A source that has ended counts only if all have."""
    assert reports.state_of([source(state) for state in states]) is expected


def test_the_summary_is_one_line() -> None:
    """It counts states and windows, and has the longest lag of the streams that are up."""
    quick, slow, lost = Progress(), Progress(), Progress()
    for progress, lag_s in ((quick, 0.25), (slow, 1.5), (lost, 9.0)):
        progress.sent(window(0), window(0).end_ns + round(lag_s * NS_PER_S))
    slow.drop(2)
    streams = [(RunState.UP, quick), (RunState.UP, slow), (RunState.BACKING_OFF, lost)]
    assert reports.summary(streams) == "streams: 2 up, 1 backing off; lag 1.50 s; 3 windows tagged, 2 dropped"
    assert reports.summary([(RunState.STARTING, Progress())]) == (
        "streams: 1 starting; no lag known; 0 windows tagged, 0 dropped"
    )
