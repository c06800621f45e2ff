"""The daemon's loop in this process, with real sources and a real (tiny) Perceiver, and some of its turns alone."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiverd.config import Config, ModelConfig, PublishConfig, StreamConfig, WindowConfig
from perceiverd.core.clock import SuspendDetector, now_ns
from perceiverd.core.errors import ConfigError
from perceiverd.core.media import NS_PER_S, Frame
from perceiverd.daemon import daemon
from perceiverd.daemon.daemon import Daemon
from perceiverd.daemon.reload import Resolved
from perceiverd.daemon.reports import Identity
from perceiverd.model.card import load_card
from perceiverd.pipeline.rules import EventOptions
from perceiverd.pipeline.windower import Window
from perceiverd.sources.process.arrivals import Arrival, Discontinuity, StateChange
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import File, Source, Synthetic
from perceiverd.wire.client import Subscription, subscribe
from perceiverd.wire.messages import Event, Message, Scores, Status
from tests.support.streams import MODEL, SURE, VIDEO, audio, stream, window


def settings(model: Path, endpoint: str, hop_s: float = 0.25, **streams: Source) -> Config:
    return Config(
        model=ModelConfig(name=str(model), threads=1),
        events=EventOptions(on=0.001, allow=("Speech",)),
        window=WindowConfig(hop_s=hop_s),
        publish=PublishConfig(endpoint=endpoint, status_interval_s=0.1),
        streams={name: StreamConfig((source,)) for name, source in streams.items()},
    )


def all_messages(subscription: Subscription) -> list[Message]:
    received = []
    while message := subscription.receive_message(1):
        received.append(message)
    return received


@pytest.fixture
def watching(tiny_model: Path) -> Daemon:
    """A daemon before its first turn, with the streams `a` and `b` and nothing that was opened."""
    config = settings(tiny_model, "ipc://x", a=Synthetic(), b=Synthetic())
    made = Daemon(config)
    made._card = load_card(str(tiny_model))
    made._resolved = Resolved.of(config, made._card, {})
    made._identity = Identity(MODEL, made._up_since)
    made._supervisor = Supervisor(made._resolved.sources, made._card.geometry.media_format)  # no source has started
    made._streams = {name: made._stream(name) for name in "ab"}
    return made


def test_the_daemon_ends_with_its_files(tiny_model: Path, tmp_path: Path, wav: Callable[[float], Path]) -> None:
    """Clips without `loop` are tagged to their last window; then events and the run end, and statuses say `ended`."""
    endpoint = f"ipc://{tmp_path}/labels"
    with subscribe(endpoint) as subscription:
        Daemon(settings(tiny_model, endpoint, long=File(str(wav(3.1))), short=File(str(wav(0.3))))).run()
        received = all_messages(subscription)
    last = {m.stream: m for m in received if isinstance(m, Status)}
    assert {name: status.state for name, status in last.items()} == {"long": "ended", "short": "ended"}
    # Starts at 0, 0.25 ... 2.5, and a last one that ends with the clip.
    assert last["long"].windows + last["long"].dropped == 12
    assert last["short"].windows == 1
    scores = [m for m in received if isinstance(m, Scores) and m.stream == "long"]
    assert scores[-1].end_s == pytest.approx(3.1, abs=0.01)
    assert {m.modalities for m in scores} == {("audio",)}
    begin, end = (m for m in received if isinstance(m, Event))
    assert (begin.kind, end.kind, end.explanation.reason) == ("begin", "end", "stream ended")
    assert (begin.start_s, begin.id, begin.modalities) == (0, end.id, ("audio",))
    assert end.end_s == pytest.approx(3.1, abs=0.01)
    assert end.explanation.windows == last["long"].windows


def test_old_windows_are_dropped_and_counted(
    tiny_model: Path, tmp_path: Path, wav: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the network is too slow the labels stay fresh, and each dropped window is published once."""
    from perceiverd.pipeline.tagger import Tagger

    quick = Tagger.begin

    def slow(self: Tagger, windows: list[Window]) -> Any:
        time.sleep(0.4)
        return quick(self, windows)

    monkeypatch.setattr(Tagger, "begin", slow)
    endpoint = f"ipc://{tmp_path}/labels"
    with subscribe(endpoint) as subscription:
        Daemon(settings(tiny_model, endpoint, hop_s=0.1, clip=File(str(wav(3))))).run()
        received = all_messages(subscription)
    last = next(m for m in reversed(received) if isinstance(m, Status))
    scores = [m for m in received if isinstance(m, Scores)]
    assert last.dropped >= 5
    assert last.windows + last.dropped == 26
    assert scores[-1].seq + 1 == last.windows
    if scores[0].seq == 0:  # otherwise the subscriber came too late for the first
        assert sum(m.dropped for m in scores) == last.dropped
    # Never older than an inference, the wait for one under way, and the windower's tolerance.
    assert max(m.latency_ms for m in scores) < 5000


def test_a_stop_during_the_start_ends_it(tiny_model: Path, tmp_path: Path) -> None:
    """The loop never turns, and what was opened is closed."""
    stopped = Daemon(settings(tiny_model, f"ipc://{tmp_path}/labels", a=Synthetic()))
    stopped.stop()
    stopped.run()
    assert not (tmp_path / "labels").exists()


def test_one_stuck_stream_starves_the_watchdog(watching: Daemon) -> None:
    """The daemon is stuck as soon as one of its streams is."""
    assert not watching._is_stuck(now_ns())
    for name in "ab":
        progress = watching._streams[name].progress
        progress.update(RunState.UP, now_ns(), gaps=0, stalled=False)
        progress.sent(window(0), now_ns())
    long_after_ns = now_ns() + 600 * NS_PER_S
    assert watching._is_stuck(long_after_ns)
    watching._streams["a"].progress.sent(window(1), long_after_ns)
    assert watching._is_stuck(long_after_ns)
    watching._streams["b"].progress.sent(window(1), long_after_ns)
    assert not watching._is_stuck(long_after_ns)


def test_a_stream_that_was_down_between_two_statuses_counts_as_down(watching: Daemon) -> None:
    """The watchdog is fed although the stream was up long ago: its sources are looked at in every turn."""
    progress = watching._streams["a"].progress
    progress.update(RunState.UP, now_ns() - 600 * NS_PER_S, gaps=0, stalled=False)
    progress.sent(window(0), now_ns() - 600 * NS_PER_S)
    assert watching._is_stuck(now_ns())
    watching._next_status_ns = watching._next_telemetry_ns = now_ns() + 600 * NS_PER_S
    watching._watchdog_ns, watching._ready = 4 * NS_PER_S, True
    watching._heartbeat()
    assert not watching._is_stuck(now_ns())
    assert watching._next_alive_ns > now_ns()


def test_arrivals_reach_their_stream(watching: Daemon) -> None:
    """Media, gaps and losses of a source change its own stream only."""
    watching._streams["a"] = stream(VIDEO)
    for at_ms in range(0, 1_000, 40):
        watching._take(Arrival("a", 0, Frame(at_ms * 1_000_000, np.full((2, 3, 3), at_ms % 250, np.uint8))))
    watching._take(Arrival("a", 0, Discontinuity(("video",))))
    assert watching._streams["a"].due
    assert watching._streams["a"].windower.counts.gaps == 1
    assert watching._streams["b"].windower.counts.gaps == 0
    watching._take(Arrival("a", 0, StateChange(RunState.UP, "")))
    watching._take(Arrival("a", 0, StateChange(RunState.BACKING_OFF, "unplugged")))
    watching._take(Arrival("a", 1, Frame(2 * NS_PER_S, np.zeros((2, 3, 3), np.uint8))))
    assert watching._streams["a"].windower.counts.gaps == 1  # the gap before the next source is the same


def test_a_suspend_is_a_gap_in_every_stream(watching: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    """A suspend is logged and counted once."""
    asleep = iter([0, 0, 90 * NS_PER_S, 90 * NS_PER_S])
    watching._suspend_detector = SuspendDetector(lambda: next(asleep))
    for each in watching._streams.values():
        audio(each, 0, 0, 1)
    for _ in range(3):
        watching._check_suspend()
    assert [each.windower.counts.gaps for each in watching._streams.values()] == [1, 1]
    assert watching._counts.suspends == 1
    assert [record.message for record in caplog.records] == ["machine-suspended slept_s=90.0 streams=2"]


def test_the_start_is_over_with_a_window_or_without_hope(watching: Daemon) -> None:
    """With the first window, or after a minute; sources that only start are no reason."""
    watching._ready_by_ns = now_ns() + 60 * NS_PER_S
    assert watching._ready_for(now_ns()) == ""
    assert watching._ready_for(watching._ready_by_ns) == "time-out"
    watching._streams["b"].tagged(window(0), SURE)
    assert watching._ready_for(now_ns()) == "first-window"


def test_a_daemon_without_streams_is_a_config_error() -> None:
    """A configuration without an enabled stream is refused at once."""
    with pytest.raises(ConfigError, match="no stream is enabled"):
        Daemon(Config())


def test_importing_the_module_loads_no_torch() -> None:
    """Torch is loaded together with a model."""
    code = "import perceiverd.daemon.daemon, sys; print('torch' in sys.modules, 'av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
    assert daemon.run.__doc__
