"""The daemon: real source processes, a real (tiny) Perceiver, real sockets and signals."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from perceiverd import config
from perceiverd.config import Config, ModelConfig, PublishConfig, WindowConfig
from perceiverd.core.clock import SuspendDetector, now_ns
from perceiverd.core.errors import ConfigError
from perceiverd.core.labels import ontology
from perceiverd.core.media import NS_PER_S, Frame
from perceiverd.daemon import daemon
from perceiverd.daemon.daemon import Daemon
from perceiverd.daemon.stream import StreamState
from perceiverd.model.card import Calibration
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.pipeline.rules import EventOptions, resolve
from perceiverd.pipeline.tracker import EventTracker
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.sources.process.arrivals import Arrival, Discontinuity, StateChange
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import File, Synthetic
from perceiverd.wire import messages
from perceiverd.wire.client import Subscription, subscribe
from perceiverd.wire.messages import Event, Explain, Hello, Message, Scores, Status
from tests.support.faults import Fault, program

TOLERANCE = WindowConfig().tolerance
DEADLINE_S = 90
"""A loaded machine takes half a minute to load torch and the model."""


def listen(subscription: Subscription, done: Callable[[Message], bool]) -> list[Message]:
    """What is heard until a message for which `done` holds, that one included."""
    heard: list[Message] = []
    end_s = time.monotonic() + DEADLINE_S
    while not heard or not done(heard[-1]):
        assert time.monotonic() < end_s, f"not heard in time; {len(heard)} messages"
        if message := subscription.receive_message(1):
            heard.append(message)
    return heard


@dataclass
class Running:
    """A daemon at work with three streams: two are good, the file of the third is missing."""

    process: "subprocess.Popen[str]"
    endpoint: str
    log: Path


@pytest.fixture(scope="module")
def running(start: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The daemon of this module, once it has published scores."""
    folder = tmp_path_factory.mktemp("d")
    path, log = folder / "c.toml", folder / "log"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        window.hop_s = 0.25
        publish = {{ endpoint = "ipc://labels", top = 3, status_interval_s = 0.2 }}
        events = {{ on = 0.001, allow = ["Speech", "Music"], update_s = 0.5 }}
        streams.one.sources = [{{ kind = "synthetic" }}]
        streams.two.sources = [{{ kind = "synthetic" }}]
        streams.bad.sources = [{{ kind = "file", path = "missing.mp4" }}]
        streams.off = {{ enabled = false, sources = [{{ kind = "synthetic" }}] }}
    """)
    process = start("run", "--config", str(path), log=log)
    endpoint = f"ipc://{folder}/labels"
    try:
        with subscribe(endpoint) as subscription:
            listen(subscription, lambda m: isinstance(m, Scores))
        yield Running(process, endpoint, log)
        assert process.poll() is None, log.read_text()
    except AssertionError as error:
        raise AssertionError(log.read_text()) from error


def test_scores_are_published_as_they_should_be(running: Running) -> None:
    """Both good streams give windows on the hop's grid, with the best labels first and a latency that can be true."""
    with subscribe(running.endpoint, (messages.scores_topic("one"), messages.scores_topic("two"))) as subscription:
        heard = [subscription.receive_message(DEADLINE_S) for _ in range(12)]
    scores = [message for message in heard if isinstance(message, Scores)]
    assert len(scores) == 12
    assert {each.stream for each in scores} == {"one", "two"}
    for each in scores:
        assert each.model.name == "tiny"
        assert each.modalities == ("audio", "video")
        assert [tag.score for tag in each.labels] == sorted((tag.score for tag in each.labels), reverse=True)
        assert len(each.labels) == 3
        assert each.end_s - each.start_s == pytest.approx(0.5)
        assert each.start_s / 0.25 == pytest.approx(round(each.start_s / 0.25), abs=1e-3)
        assert (each.end - each.start).total_seconds() == pytest.approx(0.5, abs=1e-3)
        assert 0 < each.latency_ms < 20_000
        assert abs(time.time() - each.end.timestamp()) < 60
    for stream in ("one", "two"):
        numbers = [each.seq for each in scores if each.stream == stream]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_two_plain_subscribers_see_the_same(running: Running) -> None:
    """Written with nothing but pyzmq."""
    with zmq.Context() as context, context.socket(zmq.SUB) as first, context.socket(zmq.SUB) as second:
        heard: list[dict[bytes, bytes]] = [{}, {}]
        for reader in (first, second):
            reader.connect(running.endpoint)
            reader.subscribe(b"scores/one/")
        end_s = time.monotonic() + DEADLINE_S
        while len(heard[0].keys() & heard[1].keys()) < 3:
            assert time.monotonic() < end_s
            for reader, bodies in zip((first, second), heard, strict=True):
                if reader.poll(100):
                    topic, body = reader.recv_multipart()
                    assert topic == b"scores/one/"
                    bodies[body] = topic


def test_a_late_subscriber_is_greeted(running: Running) -> None:
    """Hello names the streams; the status of each follows at its interval, that of one that is switched off too."""
    with subscribe(running.endpoint, (messages.HELLO, "status/")) as subscription:
        heard = listen(subscription, lambda m: isinstance(m, Hello))
        streams = {
            m.stream for m in (subscription.receive_message(DEADLINE_S) for _ in range(12)) if isinstance(m, Status)
        }
    assert streams == {"one", "two", "bad", "off"}
    hellos = [message for message in heard if isinstance(message, Hello)]
    assert [(hello.streams, hello.disabled) for hello in hellos] == [(("one", "two", "bad"), ("off",))]
    assert hellos[0].hop_s == 0.25


def test_one_bad_stream_harms_no_other(running: Running) -> None:
    """The missing file is told with its reason's count; the others are up."""
    with subscribe(running.endpoint, ("status/",)) as subscription:
        heard = listen(subscription, lambda m: isinstance(m, Status) and m.stream == "bad" and m.state == "backing off")
        bad = heard[-1]
        assert isinstance(bad, Status)
        assert bad.sources[0].restarts["failed"] >= 1
        assert bad.sources[0].source.endswith("missing.mp4")
        assert bad.data_age_s is None
        good = listen(subscription, lambda m: isinstance(m, Status) and m.stream == "one")[-1]
    assert isinstance(good, Status)
    assert good.state == "up"
    assert good.windows > 0
    assert good.data_age_s is not None
    assert good.subscriptions >= 1


def test_a_killed_source_is_back_and_nothing_else_restarts(running: Running) -> None:
    """SIGKILL of one source's process: status says so, its events end, its windows come again; else nothing happens."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    victim = int(children[0])  # of `one`, the first that was started
    with subscribe(running.endpoint) as subscription:
        listen(subscription, lambda m: isinstance(m, Status) and m.stream == "one" and m.state == "up")
        os.kill(victim, signal.SIGKILL)
        heard = listen(
            subscription,
            lambda m: isinstance(m, Status) and sum(m.sources[0].restarts.values()) > 0 and m.stream != "bad",
        )
        lost = heard[-1]
        assert isinstance(lost, Status)
        assert lost.sources[0].restarts == {"exited": 1}
        heard_back = listen(
            subscription, lambda m: isinstance(m, Status) and m.stream == lost.stream and m.state == "up"
        )
        back = heard_back[-1]
        again = listen(subscription, lambda m: isinstance(m, Scores) and m.stream == lost.stream)[-1]
        *_, begun = listen(
            subscription, lambda m: isinstance(m, Event) and m.stream == lost.stream and m.kind == "begin"
        )
        other = listen(subscription, lambda m: isinstance(m, Status) and m.stream not in (lost.stream, "bad"))[-1]
    assert isinstance(back, Status)
    assert isinstance(other, Status)
    assert isinstance(again, Scores)
    assert again.boot_id == lost.boot_id
    assert other.sources[0].restarts == {}
    assert other.state == "up"
    assert back.gaps >= 1
    ends = {m.index: m for m in (*heard, *heard_back) if isinstance(m, Event) and m.kind == "end"}
    assert {(m.stream, m.explanation.reason) for m in ends.values()} == {(lost.stream, "stream lost")}
    assert isinstance(begun, Event)
    assert ends[begun.index].id != begun.id
    assert ends[begun.index].end_s <= begun.start_s


def test_events_are_published(running: Running) -> None:
    """A late subscriber hears of the open events, by what is repeated or by their updates, and why they are open."""
    topics = [messages.events_topic(name) for name in ("one", "two")]
    with subscribe(running.endpoint, (messages.scores_topic("one"),)) as subscription:
        listen(subscription, lambda m: isinstance(m, Scores) and m.start_s > 3)  # by then they have long begun
    with subscribe(running.endpoint, topics) as subscription:
        heard = listen(subscription, lambda m: isinstance(m, Event) and m.kind == "update" and not m.repeated)
    events = [each for each in heard if isinstance(each, Event)]
    last = events[-1]
    assert {m.start for m in events if (m.stream, m.id) == (last.stream, last.id)} == {last.start}
    assert last.name in ("Speech", "Music")
    assert last.end_s - last.start_s == pytest.approx(last.duration_s)
    assert last.duration_s >= 0.5
    assert last.explanation.reason == "goes on"
    assert last.explanation.on == 0.001 > last.explanation.off > 0
    assert last.explanation.windows >= 2
    assert last.start < last.explanation.since < last.end
    assert 0 < last.mean <= last.peak <= 1
    assert last.modalities == ("audio", "video")


def test_reasons_are_told_to_who_asks(running: Running) -> None:
    """Who subscribes to them gets each window's candidates; once nobody does, a subscriber to everything gets none."""
    with subscribe(running.endpoint, (messages.explain_topic("two"),)) as subscription:
        explain = listen(subscription, lambda m: isinstance(m, Explain))[-1]
    assert isinstance(explain, Explain)
    assert explain.stream == "two"
    assert len(explain.smoothed) == len(explain.on) == 527
    states = {each.name: each.state for each in explain.candidates}
    assert states["Speech"] in ("open", "holding")
    assert states["Silence"] == "denied"
    assert states["Dog"] == "not allowed"
    assert explain.suppressed["not allowed"] > 500
    with subscribe(running.endpoint) as subscription:
        end_s = time.monotonic() + DEADLINE_S  # the publisher hears of the end of a subscription a little later
        listen(subscription, lambda m: isinstance(m, Scores))
        while any(isinstance(m, Explain) for m in listen(subscription, lambda m: isinstance(m, Scores))):
            assert time.monotonic() < end_s


def test_systemd_is_told_and_sigterm_ends_it(start: Any, tiny_model: Path, tmp_path: Path) -> None:
    """READY after the first window, STATUS and WATCHDOG; after SIGTERM its events end, STOPPING, 0, nothing left."""
    path, log = tmp_path / "c.toml", tmp_path / "log"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        publish.endpoint = "ipc://labels"
        events = {{ on = 0.001, allow = ["Speech"] }}
        streams.one.sources = [{{ kind = "synthetic" }}]
    """)
    with (
        subscribe(f"ipc://{tmp_path}/labels", (messages.events_topic("one"),)) as subscription,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(DEADLINE_S)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        process = start("run", "--config", str(path), log=log, **environment)
        try:
            told = [systemd.recv(4096).decode()]
            while not any("1 up" in each for each in told) or told.count("WATCHDOG=1") < 2:
                told.append(systemd.recv(4096).decode())
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            begin = listen(subscription, lambda m: isinstance(m, Event))[-1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            end = listen(subscription, lambda m: isinstance(m, Event) and m.kind == "end")[-1]
        finally:
            print(log.read_text())
        systemd.setblocking(False)
        rest: list[str] = []
        while not rest or rest[-1] != "STOPPING=1":
            rest.append(systemd.recv(4096).decode())
    began = [each for each in told if each != "WATCHDOG=1"]
    assert began[:2] == ["EXTEND_TIMEOUT_USEC=600000000", "STATUS=loading the model tiny"]
    assert began[2:4] == ["EXTEND_TIMEOUT_USEC=70000000", "STATUS=waiting for the first window"]
    assert began[4] == "READY=1"
    assert re.fullmatch(r"STATUS=streams: 1 up; lag \d+\.\d\d s; [1-9]\d* windows tagged, 0 dropped", began[5])
    assert isinstance(begin, Event)
    assert isinstance(end, Event)
    assert (begin.kind, end.id, end.explanation.reason) == ("begin", begin.id, "stopped")
    assert not (tmp_path / "labels").exists()
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_amid_the_load_is_not_kept_waiting(
    start: Any, tiny_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The load is not waited out and nothing is started after it: 0, and nothing left."""
    path, log = tmp_path / "c.toml", tmp_path / "log"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        publish.endpoint = "ipc://labels"
        streams.one.sources = [{{ kind = "synthetic" }}]
    """)
    process = start("run", "--config", str(path), log=log)
    until_s = time.monotonic() + DEADLINE_S
    while "listening endpoint" not in log.read_text() and time.monotonic() < until_s:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(DEADLINE_S) == 0
    assert f"signal name={number.name}" in log.read_text()
    assert "model-loaded" not in log.read_text() and "Traceback" not in log.read_text()
    assert not (tmp_path / "labels").exists()


@pytest.mark.long
def test_a_camera_that_is_not_there_keeps_no_unit_from_starting(start: Any, tiny_model: Path, tmp_path: Path) -> None:
    """READY comes once every stream has been lost, and not before; a reload until then says nothing of its end."""
    path, log = tmp_path / "c.toml", tmp_path / "log"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        publish.endpoint = "ipc://labels"
        streams.one.sources = [{{ kind = "file", path = "missing.mp4" }}]
        streams.two.sources = [{{ kind = "synthetic" }}]
    """)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(DEADLINE_S)
        process = start(
            *("run", "--config", str(path)),
            log=log,
            program=program(Fault("hang")),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )
        told = [systemd.recv(4096).decode()]
        while told[-1] != "READY=1":
            told.append(systemd.recv(4096).decode())
            if told[-1] == "STATUS=waiting for the first window":
                process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert "ready reason=all-streams-down" in log.read_text()
    assert "reloaded " in log.read_text()
    assert not any(each.startswith("RELOADING") for each in told)


def test_the_endpoint_may_be_given_beside_the_file(start: Any, tiny_model: Path, tmp_path: Path) -> None:
    """One unit a stream: it publishes where the command line says, and a reload takes that for no change."""
    path, log = tmp_path / "c.toml", tmp_path / "log"
    path.write_text(f"""
        model = {{ name = "{tiny_model}", threads = 1 }}
        publish.endpoint = "ipc://elsewhere"
        streams.one.sources = [{{ kind = "synthetic" }}]
    """)
    endpoint = f"ipc://{tmp_path}/here"
    process = start("run", "--config", str(path), "--endpoint", endpoint, log=log)
    with subscribe(endpoint, (messages.scores_topic("one"),)) as subscription:
        listen(subscription, lambda m: isinstance(m, Scores))
        process.send_signal(signal.SIGHUP)
        until_s = time.monotonic() + DEADLINE_S
        while "reloaded " not in log.read_text() and time.monotonic() < until_s:
            listen(subscription, lambda m: isinstance(m, Scores))
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "reloaded " in log.read_text()
    assert "needs-restart" not in log.read_text()
    assert not (tmp_path / "elsewhere").exists()
    assert status_and_line("run", "--config", str(path), "--endpoint", "tcp://*:5")[0] == 78


def status_and_line(*arguments: str) -> tuple[int, str]:
    """The exit status and the last line of a daemon that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "perceiverd", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[windw]", "$.windw: unknown option; did you mean 'window'?"),
        ("", "$.streams: no stream is enabled"),
        ('model.name = "no/where"\nstreams.a.sources = [{kind = "synthetic"}]', "no model"),
    ],
)
def test_what_cannot_be_used_ends_with_78(tmp_path: Path, text: str, line: str) -> None:
    """One line with the file's name; systemd does not start it again."""
    path = tmp_path / "c.toml"
    path.write_text(text)
    status, told = status_and_line("run", "--config", str(path))
    assert status == 78
    assert f"{path}: {line}" in told


def test_an_endpoint_that_is_taken_ends_with_1(tiny_model: Path, tmp_path: Path) -> None:
    """It may be free the next time."""
    (tmp_path / "labels").write_text("mine")
    path = tmp_path / "c.toml"
    path.write_text(f"""
        model.name = "{tiny_model}"
        publish.endpoint = "ipc://labels"
        streams.a.sources = [{{ kind = "synthetic" }}]
    """)
    status, told = status_and_line("run", "--config", str(path))
    assert status == 1
    assert "cannot publish at" in told


def tracker() -> EventTracker:
    labels = ontology().labels
    return EventTracker(resolve(labels, (Calibration(),) * len(labels), EventOptions()))


def settings(model: Path, endpoint: str, hop_s: float = 0.25, **streams: File | Synthetic) -> Config:
    return Config(
        model=ModelConfig(name=str(model), threads=1),
        events=EventOptions(on=0.001, allow=("Speech",)),
        window=WindowConfig(hop_s=hop_s),
        publish=PublishConfig(endpoint=endpoint, status_interval_s=0.1),
        streams={name: config.StreamConfig((source,)) for name, source in streams.items()},
    )


def test_the_end_of_all_files_is_the_end(tiny_model: Path, tmp_path: Path, wav: Callable[[float], Path]) -> None:
    """Clips that are not looped are tagged to their last window; events and run end, the last status is `ended`."""
    endpoint = f"ipc://{tmp_path}/labels"
    with subscribe(endpoint) as subscription:
        Daemon(settings(tiny_model, endpoint, long=File(str(wav(3.1))), short=File(str(wav(0.3))))).run()
        heard = []
        while message := subscription.receive_message(1):
            heard.append(message)
    last = {m.stream: m for m in heard if isinstance(m, Status)}
    assert {name: status.state for name, status in last.items()} == {"long": "ended", "short": "ended"}
    # Starts at 0, 0.25 ... 2.5, and a last one that ends with the clip.
    assert last["long"].windows + last["long"].dropped == 12
    assert last["short"].windows == 1
    scores = [m for m in heard if isinstance(m, Scores) and m.stream == "long"]
    assert scores[-1].end_s == pytest.approx(3.1, abs=0.01)
    assert {m.modalities for m in scores} == {("audio",)}
    begin, end = (m for m in heard if isinstance(m, Event))
    assert (begin.kind, end.kind, end.explanation.reason) == ("begin", "end", "stream ended")
    assert (begin.start_s, begin.id, begin.modalities) == (0, end.id, ("audio",))
    assert end.end_s == pytest.approx(3.1, abs=0.01)
    assert end.explanation.windows == last["long"].windows


def test_windows_that_are_overtaken_are_dropped_and_counted(
    tiny_model: Path, tmp_path: Path, wav: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a network that is too slow the labels stay fresh, and every loss is told once."""
    from perceiverd.pipeline.tagger import Tagger

    quick = Tagger.tag

    def slow(self: Tagger, windows: list[Window]) -> Any:
        time.sleep(0.4)
        return quick(self, windows)

    monkeypatch.setattr(Tagger, "tag", slow)
    endpoint = f"ipc://{tmp_path}/labels"
    with subscribe(endpoint) as subscription:
        Daemon(settings(tiny_model, endpoint, hop_s=0.1, clip=File(str(wav(3))))).run()
        heard = []
        while message := subscription.receive_message(1):
            heard.append(message)
    last = next(m for m in reversed(heard) if isinstance(m, Status))
    scores = [m for m in heard if isinstance(m, Scores)]
    assert last.dropped >= 5
    assert last.windows + last.dropped == 26
    assert scores[-1].seq + 1 == last.windows
    if scores[0].seq == 0:  # otherwise the subscriber came too late for the first
        assert sum(m.dropped for m in scores) == last.dropped
    # Never older than an inference, the wait for one under way, and the patience of the windower.
    assert max(m.latency_ms for m in scores) < 5000


def test_only_the_newest_window_is_kept_until_the_end() -> None:
    """A stream that is live keeps one; one that has ended keeps all that are left."""
    geometry = Geometry(527, Trunk(4, 16, 1, 1, 2), Audio(16_000, 8_000, "raw", (160,), 2))
    stream = StreamState("a", Windower(geometry, NS_PER_S, TOLERANCE), tracker())
    windows = [Window(i, i + 1, None, None) for i in range(5, 9)]
    stream.take(windows)
    stream.drop_overtaken()
    assert stream.due == windows[-1:]
    assert (stream.dropped, stream.untold, stream.begin_ns) == (3, 3, 5)
    stream.flushed = True
    stream.take(windows)
    stream.drop_overtaken()
    assert len(stream.due) == 5


def test_signals_ask_and_are_put_back(tmp_path: Path) -> None:
    """The first SIGINT or SIGTERM asks; a second SIGINT would be the kernel's; afterwards all is as it was."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    first, second = (Daemon(settings(tmp_path, "ipc://x", a=Synthetic())) for _ in range(2))
    asked = []
    with first._signals():
        signal.raise_signal(signal.SIGHUP)
        asked.append(first.should_exit)
        signal.raise_signal(signal.SIGINT)
        asked.append(first.should_exit)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    with second._signals():
        signal.raise_signal(signal.SIGTERM)
        asked.append(second.should_exit)
    assert asked == [False, True, True]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_signal_during_startup_is_heeded(tiny_model: Path, tmp_path: Path) -> None:
    """The loop is never entered, and what was opened is closed."""
    stopped = Daemon(settings(tiny_model, f"ipc://{tmp_path}/labels", a=Synthetic()))
    stopped.should_exit = True
    stopped.run()
    assert not (tmp_path / "labels").exists()


def test_the_watchdog_is_fed_by_progress_alone(tmp_path: Path) -> None:
    """A stream that is up and gives no windows any more stops it; one that is down, or never gave one, does not."""
    watched = Daemon(settings(tmp_path, "ipc://x", a=Synthetic()))
    geometry = Geometry(527, Trunk(4, 16, 1, 1, 2), Audio(16_000, 8_000, "raw", (160,), 2))
    stream = StreamState("a", Windower(geometry, NS_PER_S, TOLERANCE), tracker())
    watched._streams, watched._window_ns = {"a": stream}, geometry.window_ns
    now, long_ago = now_ns(), now_ns() - 600 * NS_PER_S
    assert watched._progressing(now)
    stream.up_ns = long_ago
    assert watched._progressing(now)  # never gave a window
    stream.sent_ns = now - NS_PER_S
    assert watched._progressing(now)
    stream.sent_ns = long_ago
    assert not watched._progressing(now)
    stream.up_ns = now - NS_PER_S
    assert watched._progressing(now)  # only just up again
    stream.up_ns = None
    assert watched._progressing(now)  # down


def test_a_stream_that_was_down_between_two_statuses_was_down(tmp_path: Path) -> None:
    """However seldom statuses are told, what is down now does not keep the watchdog from being fed."""
    watched = Daemon(settings(tmp_path, "ipc://x", a=Synthetic()))
    geometry = Geometry(527, Trunk(4, 16, 1, 1, 2), Audio(16_000, 8_000, "raw", (160,), 2))
    long_ago = now_ns() - 600 * NS_PER_S
    stream = StreamState("a", Windower(geometry, NS_PER_S, TOLERANCE), tracker(), up_ns=long_ago, sent_ns=long_ago)
    watched._streams, watched._window_ns = {"a": stream}, geometry.window_ns
    watched._model = messages.Model("tiny", "")
    watched._runner = Supervisor({("a", 0): Synthetic()}, geometry.media_format)  # none has started
    watched._next_status_ns = watched._next_snapshot_ns = now_ns() + 600 * NS_PER_S
    watched._watchdog_ns, watched._ready = 4 * NS_PER_S, True
    watched._heartbeat()
    assert stream.up_ns is None
    assert watched._next_alive_ns > now_ns()


def test_two_cameras_are_not_mixed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where two sources of a stream give the same, the first that is there is heeded, and the log says so once."""
    watching = Daemon(settings(tmp_path, "ipc://x", a=Synthetic()))
    geometry = Geometry(527, Trunk(4, 16, 1, 1, 2), video=Video(4, 8.0, 2, 3, (1, 2, 3), 2))
    stream = StreamState("a", Windower(geometry, NS_PER_S // 2, TOLERANCE), tracker())
    watching._streams = {"a": stream}

    def see(position: int, at_ms: int) -> None:
        picture = Frame(at_ms * 1_000_000, np.full((2, 3, 3), position, np.uint8))
        watching._take(Arrival("a", position, picture))

    for at_ms in range(0, 2_000, 40):  # the second camera is up first
        see(1, at_ms)
    for at_ms in range(2_000, 4_000, 40):
        see(0, at_ms)
        see(1, at_ms + 20)
    watching._take(Arrival("a", 1, Discontinuity(("video",))))  # of no concern any more
    for at_ms in range(4_000, 5_000, 40):
        see(0, at_ms)
    for window in stream.due:
        assert window.video is not None
        assert np.unique(window.video).tolist() == [0 if window.start_ns >= 2 * NS_PER_S else 1]
    assert len(stream.due) >= 8
    assert stream.windower.counts.gaps == 1
    assert [record.message for record in caplog.records] == ["given-twice stream=a modality=video sources=0,1 heeded=0"]
    stream.due.clear()
    watching._take(Arrival("a", 0, StateChange(RunState.BACKING_OFF, "unplugged")))
    for at_ms in range(5_000, 6_000, 40):
        see(1, at_ms)
    assert stream.due[-1].video is not None and np.unique(stream.due[-1].video).tolist() == [1]


def test_a_suspend_tears_every_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line of the log tells of it, and it is counted."""
    watching = Daemon(settings(tmp_path, "ipc://x", a=Synthetic()))
    geometry = Geometry(527, Trunk(4, 16, 1, 1, 2), video=Video(4, 8.0, 2, 3, (1, 2, 3), 2))
    watching._streams = {
        name: StreamState(name, Windower(geometry, NS_PER_S // 2, TOLERANCE), tracker()) for name in "ab"
    }
    watching._model = messages.Model("tiny", "")
    asleep = iter([0, 0, 90 * NS_PER_S, 90 * NS_PER_S])
    watching._wakes = SuspendDetector(lambda: next(asleep))
    for name in "ab":
        watching._take(Arrival(name, 0, Frame(0, np.zeros((2, 3, 3), np.uint8))))
    for _ in range(3):
        watching._wake()
    assert [stream.windower.counts.gaps for stream in watching._streams.values()] == [1, 1]
    assert watching._suspends == 1
    assert [record.message for record in caplog.records] == ["machine-was-suspended slept_s=90.0 streams=2"]


def test_a_daemon_without_streams_is_a_config_error() -> None:
    """Nothing to do is no reason to run."""
    with pytest.raises(ConfigError, match="no stream is enabled"):
        Daemon(Config())


def test_reading_the_module_loads_no_torch() -> None:
    """Torch is loaded when a model is."""
    code = "import perceiverd.daemon.daemon, sys; print('torch' in sys.modules, 'av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
    assert daemon.run.__doc__
