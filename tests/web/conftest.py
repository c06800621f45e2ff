"""A daemon and a page that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.history import Store, at, event, scores, status
from tests.support.pages import PageProcess, password_file, served, until
from tests.support.running_daemon import RunningDaemon

PASSWORD = "correct horse battery"


@pytest.fixture(scope="package")
def daemon() -> Iterator[RunningDaemon]:
    with RunningDaemon(("door", "yard")) as made:
        yield made


@pytest.fixture(scope="package")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a history of three events of `house/door`, and the media of the last one."""
    folder = tmp_path_factory.mktemp("history")
    media = folder / "snaps"
    media.mkdir(mode=0o700)
    (media / "last.jpg").write_bytes(bytes(range(256)) * 40)
    (media / "last.flac").write_bytes(b"fLaC" + bytes(1000))
    store = Store(folder)
    store.begin()
    store.receive(1, status(1, "up"))
    for number, name in enumerate(("Dog", "Cat", "Speech")):
        start_s = 100.0 * number
        begun = event("begin", name, start_s, start_s + 2)
        ended = event("end", name, start_s, start_s + 4, peak=0.8)
        if name == "Speech":
            paths = {"snapshot": str(media / "last.jpg"), "clip": str(media / "last.flac")}
            ended = msgspec.structs.replace(ended, **paths)
        store.receive(start_s, scores(start_s, (name, 0.7)), begun)
        store.receive(start_s + 5, ended)
    store.end(400)
    store.writer.connection.close()
    assert at(0).year == 2026
    return folder


@pytest.fixture(scope="package")
def page(daemon: RunningDaemon, stored: Path) -> Iterator[PageProcess]:
    """A page of the machine `house` without a password."""
    options = ["--endpoint", f"house={daemon.endpoint}", "--history", str(stored), "--media", str(stored / "snaps")]
    with served(stored, *options, "--corrections", str(stored / "corrections")) as made:
        until(lambda: len(made.browser().get("/api/1/streams").json["streams"]) == 2)
        yield made


@pytest.fixture(scope="package")
def guarded(daemon: RunningDaemon, stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """The same with a password, behind a proxy."""
    folder = tmp_path_factory.mktemp("guarded")
    config = folder / "web.toml"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:*"\npassword_file = "{password_file(folder, PASSWORD)}"\n'
        f'proxies = ["127.0.0.1"]\n[history]\ndirectory = "{stored}"\n'
        f'[daemons.house]\nendpoint = "{daemon.endpoint}"\n'
    )
    with served(folder, "--config", str(config)) as made:
        yield made
