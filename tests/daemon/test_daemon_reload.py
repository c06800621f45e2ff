"""SIGHUP to the real daemon: what continues, what changes, what is refused. No secret is ever logged or published."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from perceiverd.wire import Item, subscribe
from perceiverd.wire.gaps import Gap
from perceiverd.wire.messages import Hello, Scores, Status
from tests.support.listening import DEADLINE_S, listen_to_all
from tests.support.notified import read_waiting
from tests.support.program import Start

SECRETS = {
    "CAM_PASSWORD": "hunter/2 &?",
    "CAM_KEY": "sesame-open",
    "CAM_URL": "http://bob:builder@127.0.0.1:9/can-we-fix-it",
}
WORDS = ("hunter", "sesame", "builder", "fix-it", "written-out")
"""Parts of the secrets, none of which may appear anywhere."""

pytestmark = pytest.mark.timeout(300)  # a loaded machine takes half a minute for each source that it starts


def written(model: Path, streams: str, publish: str = "top = 3", more: str = "") -> str:
    """A configuration for quick tests."""
    return f"""
        model = {{ name = "{model}", threads = 1 }}
        {more}
        publish = {{ endpoint = "ipc://labels", status_interval_s = 0.2, {publish} }}
        {streams}
    """


@dataclass
class Running:
    """A daemon, its configuration, its log, and its notifications to systemd."""

    process: "subprocess.Popen[str]"
    path: Path
    log: Path
    systemd: socket.socket
    model: Path

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.path.parent}/labels"

    def write(self, streams: str, publish: str = "top = 3", more: str = "") -> None:
        self.path.write_text(written(self.model, streams, publish, more))

    def reload(self) -> list[str]:
        """Send SIGHUP; the notifications until the daemon is ready again and has sent its status."""
        read_waiting(self.systemd)
        self.process.send_signal(signal.SIGHUP)
        sent: list[str] = []
        while not any(each.startswith("RELOADING=1\n") for each in sent) or not sent[-1].startswith("STATUS="):
            sent.append(self.systemd.recv(4096).decode())
        return sent[next(i for i, each in enumerate(sent) if each.startswith("RELOADING")) :]

    def workers(self) -> list[str]:
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()


KEPT = 'streams.kept.sources = [{ kind = "synthetic" }]\n'
FIRST = KEPT + 'streams.gone.sources = [{ kind = "synthetic" }]\n'


@pytest.fixture(scope="module")
def daemon(start: Start, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The daemon of this module, once it has published scores."""
    folder = tmp_path_factory.mktemp("d")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(DEADLINE_S)
        path, log = folder / "c.toml", folder / "log"
        path.write_text(written(tiny_model, FIRST))
        process = start("run", "--config", str(path), log=log, NOTIFY_SOCKET=str(folder / "notify"), **SECRETS)
        running = Running(process, path, log, systemd, tiny_model)
        try:
            with subscribe(running.endpoint) as subscription:
                listen_to_all(subscription, lambda m: isinstance(m, Scores))
            yield running
            assert process.poll() is None
        except AssertionError as error:
            raise AssertionError(log.read_text()) from error


@pytest.fixture
def running(daemon: Running) -> Running:
    """The same, once it watches `kept` and `gone` again."""
    daemon.write(FIRST)
    daemon.reload()
    with subscribe(daemon.endpoint, ("status/",)) as subscription:
        for name in ("kept", "gone"):
            listen_to_all(subscription, is_up(name))
    return daemon


def is_up(name: str) -> Callable[[Item], bool]:
    return lambda m: isinstance(m, Status) and m.stream == name and m.state == "up"


def test_a_reload_changes_what_changed_and_nothing_else(running: Running) -> None:
    """Streams are added, removed and changed; one that stays keeps its process, its windows and its numbers."""
    with subscribe(running.endpoint) as subscription:
        before = listen_to_all(subscription, is_up("kept"))[-1]
        assert isinstance(before, Status)
        kept = running.workers()[0]
        running.write(
            'streams.new.sources = [{ kind = "synthetic" }]\n' + KEPT,
            "top = 2, high_water_mark = 7",
            "window.hop_s = 0.25",
        )
        sent = running.reload()
        received = listen_to_all(subscription, lambda m: isinstance(m, Scores) and m.stream == "new")
        received += listen_to_all(subscription, lambda m: isinstance(m, Scores) and m.stream == "kept")
        after = listen_to_all(subscription, is_up("kept"))[-1]
        assert isinstance(after, Status)
    assert sent[0].splitlines()[0] == "RELOADING=1"
    assert abs(time.monotonic_ns() // 1000 - int(sent[0].partition("MONOTONIC_USEC=")[2])) < DEADLINE_S * 1_000_000
    assert sent[1] == "READY=1"
    assert sent[2].endswith("; needs a restart: publish.high_water_mark")
    assert kept in running.workers()
    assert len(running.workers()) == 2
    assert (after.boot_id, after.gaps, after.sources[0].restarts) == (before.boot_id, before.gaps, {})
    assert after.windows > before.windows
    assert not [item for item in received if isinstance(item, Gap)]
    hello = [item for item in received if isinstance(item, Hello)][-1]
    assert (hello.streams, hello.hop_s) == (("new", "kept"), 0.25)
    assert [m.state for m in received if isinstance(m, Status) and m.stream == "gone"][-1] == "ended"
    assert all(len(m.labels) == 2 for m in received[received.index(hello) :] if isinstance(m, Scores))
    log = running.log.read_text()
    assert "config-reloaded added=new removed=gone changed=- unchanged=1" in log
    assert log.count("restart-needed options=publish.high_water_mark") == 1
    with subscribe(running.endpoint, ("status/",)) as late:  # the last status of a removed stream is not repeated
        names = {m.stream for m in listen_to_all(late, is_up("new")) if isinstance(m, Status)}
    assert names <= {"new", "kept"}


def test_a_changed_source_is_a_gap_in_its_stream(running: Running) -> None:
    """Another source makes a gap in the stream; the stream's numbers continue."""
    with subscribe(running.endpoint) as subscription:
        before = listen_to_all(subscription, is_up("gone"))[-1]
        running.write(KEPT + 'streams.gone.sources = [{ kind = "synthetic", video = false }]')
        running.reload()
        received = listen_to_all(subscription, lambda m: isinstance(m, Scores) and m.modalities == ("audio",))
        after = listen_to_all(subscription, is_up("gone"))[-1]
    assert isinstance(before, Status) and isinstance(after, Status)
    assert received[-1].stream == "gone"  # type: ignore[union-attr]  # it is scores
    assert after.gaps > before.gaps
    assert after.windows > before.windows
    assert not [item for item in received if isinstance(item, Gap)]
    assert "config-reloaded added=- removed=- changed=gone unchanged=1" in running.log.read_text()


REFUSED = (
    (KEPT + "[windw]", "$.windw: unknown option"),
    ("", "$.streams: no stream is enabled"),
    ('streams.x.sources = [{ kind = "url", url = "rtsp://u:${NOT_SET}@h/" }]', "NOT_SET is not set"),
    (KEPT + "[events.labels.Dgo]\non = 0.5", "unknown label 'Dgo'"),
)


def test_an_invalid_configuration_changes_nothing(running: Running) -> None:
    """The old configuration stays in force as a whole; the log and systemd get the reason in one line."""
    with subscribe(running.endpoint, ("scores/gone/",)) as subscription:
        listen_to_all(subscription, lambda m: isinstance(m, Scores))  # workers of an earlier reload have ended
    before, lines = running.workers(), len(running.log.read_text().splitlines())
    for streams, why in REFUSED:
        running.write(streams, "top = 1")
        sent = running.reload()
        assert sent[1] == "READY=1"
        assert "reload refused, the old configuration stays" in sent[-1]
        assert why in sent[-1]
    refused = [line for line in running.log.read_text().splitlines()[lines:] if "reload-refused" in line]
    assert len(refused) == len(REFUSED)
    assert all(why in line for (_, why), line in zip(REFUSED, refused, strict=True))
    with subscribe(running.endpoint, ("scores/gone/",)) as subscription:
        scores = listen_to_all(subscription, lambda m: isinstance(m, Scores))[-1]
    assert isinstance(scores, Scores)
    assert len(scores.labels) == 3
    assert running.workers() == before
    running.write(FIRST)
    assert "reload refused" not in running.reload()[-1]


def test_secrets_are_never_published(running: Running) -> None:
    """No secret is in what a daemon logs and publishes, or in what other users see of its processes."""
    urls = (
        "rtsp://user:${CAM_PASSWORD}@127.0.0.1:9/${CAM_KEY}?token=${CAM_KEY}",
        "http://user:${CAM_PASSWORD}@127.0.0.1:9/${CAM_KEY}",
        "${CAM_URL}",
        "rtsp://user:written-out@127.0.0.1:9/x?pass=written-out",
    )
    streams = "".join(f'streams.s{i}.sources = [{{ kind = "url", url = "{url}" }}]\n' for i, url in enumerate(urls))
    running.write(KEPT + streams)
    seen: list[str] = []
    failed: set[str] = set()
    with subscribe(running.endpoint) as subscription:
        seen += running.reload()

        def every_url_has_failed(m: Item) -> bool:
            seen.append(msgspec.json.encode(m).decode())
            if isinstance(m, Status) and m.sources and m.sources[0].restarts:
                failed.add(m.stream)
            for worker in running.workers():
                for what in ("cmdline", "comm"):
                    with suppress(FileNotFoundError, ProcessLookupError):  # it may end at any moment
                        seen.append(Path(f"/proc/{worker}/{what}").read_text())
            return len(failed) == len(urls)

        listen_to_all(subscription, every_url_has_failed)
    running.write(KEPT + streams.replace("${CAM_URL}", "${CAM_KEY}"))  # refused: the secret is no URL
    seen += running.reload()
    for command in (["check"], ["show"], ["show", "--effective"]):
        shown = subprocess.run(
            [sys.executable, "-m", "perceiverd", "config", *command, str(running.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            env=os.environ | SECRETS,
        ).stdout
        seen.append(shown)
    seen.append(running.log.read_text())
    everything = "\n".join(seen)
    assert "url must begin with one of" in everything
    assert "rtsp://user:${CAM_PASSWORD}@127.0.0.1:9/${CAM_KEY}?token=${CAM_KEY}" in everything
    assert "rtsp://user:***@127.0.0.1:9/x?pass=***" in everything
    assert "source=${CAM_URL}" in everything
    assert not [word for word in WORDS if word in everything]
