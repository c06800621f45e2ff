"""SIGHUP to the real daemon: what goes on, what changes, what is refused; and that no secret is told to anybody."""

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
from typing import Any

import msgspec
import pytest

from perceiverd.wire import Item, Subscription, subscribe
from perceiverd.wire.gaps import Gap
from perceiverd.wire.messages import Hello, Scores, Status

DEADLINE_S = 90
SECRETS = {
    "CAM_PASSWORD": "hunter/2 &?",
    "CAM_KEY": "sesame-open",
    "CAM_URL": "http://bob:builder@127.0.0.1:9/can-we-fix-it",
}
WORDS = ("hunter", "sesame", "builder", "fix-it", "written-out")
"""No part of a secret is to be found anywhere."""

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
    """A daemon, what it reads, and what it tells."""

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
        """Send SIGHUP; what systemd is told until the daemon is ready again and has said how it is."""
        self.process.send_signal(signal.SIGHUP)
        told: list[str] = []
        while not any(each.startswith("RELOADING=1\n") for each in told) or not told[-1].startswith("STATUS="):
            told.append(self.systemd.recv(4096).decode())
        return told[next(i for i, each in enumerate(told) if each.startswith("RELOADING")) :]

    def children(self) -> list[str]:
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()


KEPT = 'streams.kept.sources = [{ kind = "synthetic" }]\n'
FIRST = KEPT + 'streams.gone.sources = [{ kind = "synthetic" }]\n'


@pytest.fixture(scope="module")
def daemon(start: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
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
                listen(subscription, lambda m: isinstance(m, Scores))
            yield running
            assert process.poll() is None
        except AssertionError as error:
            raise AssertionError(log.read_text()) from error


@pytest.fixture
def running(daemon: Running) -> Running:
    """The same, once it watches `kept` and `gone` (again)."""
    daemon.write(FIRST)
    daemon.reload()
    with subscribe(daemon.endpoint, ("status/",)) as subscription:
        for name in ("kept", "gone"):
            listen(subscription, is_up(name))
    return daemon


def listen(subscription: Subscription, done: Callable[[Item], bool]) -> list[Item]:
    """What is heard until an item for which `done` holds, that one included."""
    heard: list[Item] = []
    end_s = time.monotonic() + DEADLINE_S
    while not heard or not done(heard[-1]):
        assert time.monotonic() < end_s, f"not heard in time; {len(heard)} items"
        if (item := subscription.receive(1)) is not None:
            heard.append(item)
    return heard


def is_up(name: str) -> Callable[[Item], bool]:
    return lambda m: isinstance(m, Status) and m.stream == name and m.state == "up"


def test_a_reload_changes_what_changed_and_nothing_else(running: Running) -> None:
    """Streams come, go and change; one that stays keeps its process, its windows and its numbers."""
    with subscribe(running.endpoint) as subscription:
        before = listen(subscription, is_up("kept"))[-1]
        assert isinstance(before, Status)
        kept = running.children()[0]
        running.write(
            'streams.new.sources = [{ kind = "synthetic" }]\n' + KEPT,
            "top = 2, high_water_mark = 7",
            "window.hop_s = 0.25",
        )
        told = running.reload()
        heard = listen(subscription, lambda m: isinstance(m, Scores) and m.stream == "new")
        heard += listen(subscription, lambda m: isinstance(m, Scores) and m.stream == "kept")
        after = listen(subscription, is_up("kept"))[-1]
        assert isinstance(after, Status)
    assert told[0].splitlines()[0] == "RELOADING=1"
    assert abs(time.monotonic_ns() // 1000 - int(told[0].partition("MONOTONIC_USEC=")[2])) < DEADLINE_S * 1_000_000
    assert told[1] == "READY=1"
    assert told[2].endswith("; needs a restart: publish.high_water_mark")
    assert kept in running.children()
    assert len(running.children()) == 2
    assert (after.boot_id, after.gaps, after.sources[0].restarts) == (before.boot_id, before.gaps, {})
    assert after.windows > before.windows
    assert not [item for item in heard if isinstance(item, Gap)]
    hello = [item for item in heard if isinstance(item, Hello)][-1]
    assert (hello.streams, hello.hop_s) == (("new", "kept"), 0.25)
    assert [m.state for m in heard if isinstance(m, Status) and m.stream == "gone"][-1] == "ended"
    assert all(len(m.labels) == 2 for m in heard[heard.index(hello) :] if isinstance(m, Scores))
    log = running.log.read_text()
    assert "reloaded added=new removed=gone changed=- unchanged=1" in log
    assert log.count("needs-restart options=publish.high_water_mark in_force=old") == 1
    with subscribe(running.endpoint, ("status/",)) as late:  # the last words of what is gone are not repeated
        names = {m.stream for m in listen(late, is_up("new")) if isinstance(m, Status)}
    assert names <= {"new", "kept"}


def test_a_changed_source_begins_anew_within_its_stream(running: Running) -> None:
    """Another source of a stream is a gap in it; its numbers go on."""
    with subscribe(running.endpoint) as subscription:
        before = listen(subscription, is_up("gone"))[-1]
        running.write(KEPT + 'streams.gone.sources = [{ kind = "synthetic", video = false }]')
        running.reload()
        heard = listen(subscription, lambda m: isinstance(m, Scores) and m.modalities == ("audio",))
        after = listen(subscription, is_up("gone"))[-1]
    assert isinstance(before, Status) and isinstance(after, Status)
    assert heard[-1].stream == "gone"  # type: ignore[union-attr]  # it is scores
    assert after.gaps > before.gaps
    assert after.windows > before.windows
    assert not [item for item in heard if isinstance(item, Gap)]
    assert "reloaded added=- removed=- changed=gone unchanged=1" in running.log.read_text()


REFUSED = (
    (KEPT + "[windw]", "$.windw: unknown option"),
    ("", "$.streams: no stream is enabled"),
    ('streams.x.sources = [{ kind = "url", url = "rtsp://u:${NOT_SET}@h/" }]', "NOT_SET is not set"),
    (KEPT + "[events.labels.Dgo]\non = 0.5", "the model has no label"),
)


def test_what_cannot_be_used_changes_nothing(running: Running) -> None:
    """The old configuration stays in force as a whole, and the log and systemd hear why, in a line."""
    with subscribe(running.endpoint, ("scores/gone/",)) as subscription:
        listen(subscription, lambda m: isinstance(m, Scores))  # by now the processes of an earlier reload have left
    before, lines = running.children(), len(running.log.read_text().splitlines())
    for streams, why in REFUSED:
        running.write(streams, "top = 1")
        told = running.reload()
        assert told[1] == "READY=1"
        assert "reload refused, the old configuration stays" in told[-1]
        assert why in told[-1]
    refused = [line for line in running.log.read_text().splitlines()[lines:] if "reload-refused" in line]
    assert len(refused) == len(REFUSED)
    assert all(why in line for (_, why), line in zip(REFUSED, refused, strict=True))
    with subscribe(running.endpoint, ("scores/gone/",)) as subscription:
        scores = listen(subscription, lambda m: isinstance(m, Scores))[-1]
    assert isinstance(scores, Scores)
    assert len(scores.labels) == 3
    assert running.children() == before
    running.write(FIRST)
    assert "reload refused" not in running.reload()[-1]


def test_secrets_are_never_told(running: Running) -> None:
    """Whatever a daemon with passwords prints and publishes, and whatever others see of its processes, holds none."""
    urls = (
        "rtsp://user:${CAM_PASSWORD}@127.0.0.1:9/${CAM_KEY}?token=${CAM_KEY}",
        "http://user:${CAM_PASSWORD}@127.0.0.1:9/${CAM_KEY}",
        "${CAM_URL}",
        "rtsp://user:written-out@127.0.0.1:9/x?pass=written-out",
    )
    streams = "".join(f'streams.s{i}.sources = [{{ kind = "url", url = "{url}" }}]\n' for i, url in enumerate(urls))
    running.write(KEPT + streams)
    said: list[str] = []
    failed: set[str] = set()
    with subscribe(running.endpoint) as subscription:
        said += running.reload()

        def every_url_has_failed(m: Item) -> bool:
            said.append(msgspec.json.encode(m).decode())
            if isinstance(m, Status) and m.sources and m.sources[0].restarts:
                failed.add(m.stream)
            for child in running.children():
                for what in ("cmdline", "comm"):
                    with suppress(FileNotFoundError, ProcessLookupError):  # it may end at any moment
                        said.append(Path(f"/proc/{child}/{what}").read_text())
            return len(failed) == len(urls)

        listen(subscription, every_url_has_failed)
    running.write(KEPT + streams.replace("${CAM_URL}", "${CAM_KEY}"))  # refused: it makes no URL
    said += running.reload()
    for command in (["check"], ["show"], ["show", "--effective"]):
        shown = subprocess.run(
            [sys.executable, "-m", "perceiverd", "config", *command, str(running.path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            env=os.environ | SECRETS,
        ).stdout
        said.append(shown)
    said.append(running.log.read_text())
    everything = "\n".join(said)
    assert "url must begin with one of" in everything
    assert "rtsp://user:${CAM_PASSWORD}@127.0.0.1:9/${CAM_KEY}?token=${CAM_KEY}" in everything
    assert "rtsp://user:***@127.0.0.1:9/x?pass=***" in everything
    assert "source=${CAM_URL}" in everything
    assert not [word for word in WORDS if word in everything]
