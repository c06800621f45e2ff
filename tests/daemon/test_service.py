"""The daemon as a process: what it publishes of three streams, with a real (tiny) Perceiver and real sockets."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from perceiverd.wire import messages
from perceiverd.wire.client import subscribe
from perceiverd.wire.messages import Event, Explain, Hello, Scores, Status
from tests.support.listening import DEADLINE_S, listen
from tests.support.program import Start


@dataclass
class Running:
    """A daemon at work with three streams. Two are good, the file of the third is missing."""

    process: "subprocess.Popen[str]"
    endpoint: str
    log: Path


@pytest.fixture(scope="module")
def running(start: Start, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
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


def test_both_good_streams_publish_scores(running: Running) -> None:
    """Windows are on the hop's grid, with the best labels first and a latency that can be true."""
    with subscribe(running.endpoint, (messages.scores_topic("one"), messages.scores_topic("two"))) as subscription:
        received = [subscription.receive_message(DEADLINE_S) for _ in range(12)]
    scores = [message for message in received if isinstance(message, Scores)]
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


def test_two_plain_subscribers_receive_the_same(running: Running) -> None:
    """Programs that use nothing but pyzmq can subscribe."""
    with zmq.Context() as context, context.socket(zmq.SUB) as first, context.socket(zmq.SUB) as second:
        received: list[dict[bytes, bytes]] = [{}, {}]
        for reader in (first, second):
            reader.connect(running.endpoint)
            reader.subscribe(b"scores/one/")
        end_s = time.monotonic() + DEADLINE_S
        while len(received[0].keys() & received[1].keys()) < 3:
            assert time.monotonic() < end_s
            for reader, bodies in zip((first, second), received, strict=True):
                if reader.poll(100):
                    topic, body = reader.recv_multipart()
                    assert topic == b"scores/one/"
                    bodies[body] = topic


def test_a_new_subscriber_receives_hello(running: Running) -> None:
    """Hello names the streams. The status of each follows at its interval, also of the disabled one."""
    with subscribe(running.endpoint, (messages.HELLO, "status/")) as subscription:
        received = listen(subscription, lambda m: isinstance(m, Hello))
        statuses = [subscription.receive_message(DEADLINE_S) for _ in range(12)]
    assert {m.stream for m in statuses if isinstance(m, Status)} == {"one", "two", "bad", "off"}
    hellos = [message for message in received if isinstance(message, Hello)]
    assert [(hello.streams, hello.disabled) for hello in hellos] == [(("one", "two", "bad"), ("off",))]
    assert hellos[0].hop_s == 0.25


def test_one_bad_stream_harms_no_other(running: Running) -> None:
    """The status of the missing file counts its failures; the other streams are up."""
    with subscribe(running.endpoint, ("status/",)) as subscription:
        *_, bad = listen(
            subscription, lambda m: isinstance(m, Status) and m.stream == "bad" and m.state == "backing off"
        )
        *_, good = listen(subscription, lambda m: isinstance(m, Status) and m.stream == "one")
    assert isinstance(bad, Status)
    assert bad.sources[0].restarts["failed"] >= 1
    assert bad.sources[0].source.endswith("missing.mp4")
    assert bad.data_age_s is None
    assert isinstance(good, Status)
    assert good.state == "up"
    assert good.windows > 0
    assert good.data_age_s is not None
    assert good.subscriptions >= 1


def test_a_killed_source_is_restarted_and_no_other(running: Running) -> None:
    """After SIGKILL of a source's process its events end, its status has the loss, and its windows come again."""
    workers = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    victim = int(workers[0])  # of `one`, the first that was started
    with subscribe(running.endpoint) as subscription:
        listen(subscription, lambda m: isinstance(m, Status) and m.stream == "one" and m.state == "up")
        listen(subscription, lambda m: isinstance(m, Event) and m.stream == "one" and m.kind != "end")
        os.kill(victim, signal.SIGKILL)
        received = listen(
            subscription,
            lambda m: isinstance(m, Status) and sum(m.sources[0].restarts.values()) > 0 and m.stream != "bad",
        )
        lost = received[-1]
        assert isinstance(lost, Status)
        assert lost.sources[0].restarts == {"exited": 1}
        received_later = listen(
            subscription, lambda m: isinstance(m, Status) and m.stream == lost.stream and m.state == "up"
        )
        back = received_later[-1]
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
    ends = {m.index: m for m in (*received, *received_later) if isinstance(m, Event) and m.kind == "end"}
    assert {(m.stream, m.explanation.reason) for m in ends.values()} == {(lost.stream, "stream lost")}
    assert isinstance(begun, Event)
    assert ends[begun.index].id != begun.id
    assert ends[begun.index].end_s <= begun.start_s


def test_a_new_subscriber_receives_the_open_events(running: Running) -> None:
    """It receives them as repeated messages or as updates, with the reason why they are open."""
    topics = [messages.events_topic(name) for name in ("one", "two")]
    with subscribe(running.endpoint, (messages.scores_topic("one"),)) as subscription:
        listen(subscription, lambda m: isinstance(m, Scores) and m.start_s > 3)  # by then they have long begun
    with subscribe(running.endpoint, topics) as subscription:
        received = listen(subscription, lambda m: isinstance(m, Event) and m.kind == "update" and not m.repeated)
    events = [each for each in received if isinstance(each, Event)]
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


def test_explain_is_published_only_on_request(running: Running) -> None:
    """A subscriber to the reasons gets each window's candidates. Without one, a subscriber to everything gets none."""
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
        end_s = time.monotonic() + DEADLINE_S  # the publisher learns of the end of a subscription a little later
        listen(subscription, lambda m: isinstance(m, Scores))
        while any(isinstance(m, Explain) for m in listen(subscription, lambda m: isinstance(m, Scores))):
            assert time.monotonic() < end_s
