"""A real daemon that plays the bundled clip, a real history and a real page: what `perceiverd demo --web` runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perceiverd.core.paths import shipped_config
from perceiverd.daemon.spawn import SpawnedDaemon
from tests.support.pages import PageProcess, served, until
from tests.support.program import PROGRAM

STARTUP_S = 120


@dataclass
class RealHouse:
    """The three programs."""

    daemon: SpawnedDaemon
    page: PageProcess


@contextmanager
def real_house(folder: Path) -> Iterator[RealHouse]:
    """The clip is the stream `garden` of the machine `house`; it plays for ever, with pictures and clips of events."""
    clip = shipped_config("demo/clip.mp4")
    assert clip
    config = folder / "perceiverd.toml"
    config.write_text(
        f"""
window.hop_s = 0.8
publish.endpoint = "ipc://{folder}/labels"

[snapshots]
on_event = true
directory = "{folder}/media"
before_s = 1.0
after_s = 2.0

[streams.garden]
sources = [{{ kind = "file", path = "{clip}", loop = true }}]
"""
    )
    with SpawnedDaemon(config, STARTUP_S) as daemon:
        endpoint = f"house={daemon.endpoint()}"
        with (
            _recorded(folder, endpoint),
            served(
                folder,
                *("--endpoint", endpoint, "--history", str(folder / "history")),
                *("--media", str(folder / "media"), "--corrections", str(folder / "corrections")),
            ) as page,
        ):
            yield RealHouse(daemon, page)


@contextmanager
def _recorded(folder: Path, endpoint: str) -> Iterator[None]:
    """`perceiverd history run` of this daemon."""
    log = folder / "history.log"
    with log.open("w") as output:
        command = [*PROGRAM, "history", "run", "--endpoint", endpoint, "--directory", str(folder / "history")]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until(lambda: (folder / "history" / "history.sqlite3").exists() or process.poll() is not None, log=log)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait()
