"""`perceiverd teach` with a real daemon: a held key in a terminal, times, and what is missing."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from perceiverd.cli.teach import Teaching, label_of, spans_of
from perceiverd.core.errors import ConfigError
from perceiverd.corrections import Corrections
from perceiverd.sources.snapshots import recent
from perceiverd.wire.client import subscribe
from tests.support.program import PROGRAM, Perceiverd, Start

TOML = """
[model]
name = "{model}"
[publish]
endpoint = "ipc://{folder}/labels"
[snapshots]
directory = "kept"
recent_hours = {hours}
[streams.hall]
sources = [{{ kind = "synthetic", video = false }}]
"""


@pytest.fixture
def running(start: Start, tmp_path: Path, tiny_model: Path) -> Iterator[str]:
    """A daemon that keeps recent sound, with some on disk; its endpoint."""
    yield from _daemon(start, tmp_path, tiny_model, 1.0)


@pytest.fixture
def forgetful(start: Start, tmp_path: Path, tiny_model: Path) -> Iterator[str]:
    """A daemon that keeps none."""
    yield from _daemon(start, tmp_path, tiny_model, 0.0)


def _daemon(start: Start, folder: Path, model: Path, hours: float) -> Iterator[str]:
    (folder / "perceiverd.toml").write_text(TOML.format(model=model, folder=folder, hours=hours))
    process = start("run", "--config", str(folder / "perceiverd.toml"), log=folder / "log")
    endpoint, deadline_s = f"ipc://{folder}/labels", time.monotonic() + 90
    with subscribe(endpoint, ("scores/",)) as subscription:
        while subscription.receive_message(0.5) is None:
            assert time.monotonic() < deadline_s and process.poll() is None, (folder / "log").read_text()
    while hours and not recent.segments(folder / "kept/recent", "hall"):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    yield endpoint
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


@pytest.mark.timeout(240)
@pytest.mark.long
def test_a_key_is_held_twice(running: str, tmp_path: Path) -> None:
    """In a terminal, each held key becomes an example with the sound of its time, once the daemon has written it."""
    terminal, inside = pty.openpty()
    command = [*PROGRAM, "teach", running, "--stream", "hall", "--label", "Door bell at home", "--times", "2"]
    process = subprocess.Popen(
        [*command, "--corrections", str(tmp_path / "marks")], stdin=inside, stdout=inside, stderr=inside
    )
    os.close(inside)
    os.set_blocking(terminal, False)
    shown, deadline_s, pressed_s = b"", time.monotonic() + 200, 0.0
    while process.poll() is None:
        assert time.monotonic() < deadline_s, shown.decode(errors="replace")
        try:
            shown += os.read(terminal, 65536)
        except (BlockingIOError, OSError):
            time.sleep(0.02)
        count = shown.count(b" of 2: ")
        if b"Hold the space bar" in shown and count < 2 and time.monotonic() % 4 < 1.5:
            os.write(terminal, b" ")
            pressed_s = pressed_s or time.time()
            time.sleep(0.05)
    text = shown.decode(errors="replace")
    assert process.returncode == 0, text
    first, second = Corrections(tmp_path / "marks").every()
    assert first.sound and second.sound and first.sound_start
    assert (first.verdict, first.mid, first.name) == ("example", "user/door-bell-at-home", "Door bell at home")
    assert 0 <= pressed_s - first.start.timestamp() < 1.5
    samples, rate_hz = recent.read(tmp_path / "marks" / first.sound)
    assert len(samples) / rate_hz > (first.end - first.start).total_seconds()
    assert "There are 2 examples of 'Door bell at home' now." in text
    assert f"perceiverd train fit --corrections {tmp_path}/marks" in text


@pytest.mark.timeout(180)
@pytest.mark.long
def test_times_instead_of_a_key(running: str, tmp_path: Path, perceiverd: Perceiverd) -> None:
    """Given times need no terminal. A time of which there is no sound is reported, and the status is 1."""
    segment = recent.segments(tmp_path / "kept/recent", "hall")[0]
    begin, end = (segment.start + timedelta(seconds=each) for each in (5, 8))
    usual = ("teach", running, "--stream", "hall", "--label", "Doorbell", "--corrections", str(tmp_path / "marks"))
    status, out, _ = perceiverd(*usual, "--from", begin.isoformat(), "--to", end.isoformat())
    assert status == 0 and "1: 7.0 s at -" in out and "Teach 4 more" in out
    (made,) = Corrections(tmp_path / "marks").every()
    assert (made.mid, made.start, made.end) == ("/m/03wwcy", begin, end)
    early = (begin - timedelta(hours=3)).isoformat(), (end - timedelta(hours=3)).isoformat()
    status, out, _ = perceiverd(*usual, "--from", early[0], "--to", early[1])
    assert status == 1 and "1: no sound: the daemon kept no sound of that time" in out


@pytest.mark.timeout(180)
@pytest.mark.long
def test_what_is_missing_is_said(forgetful: str, perceiverd: Perceiverd) -> None:
    """No recent sound, an unknown stream, no terminal: one line each, with what to do."""
    given = ("--label", "Doorbell", "--from", "3s", "--to", "1s")
    status, _, err = perceiverd("teach", forgetful, "--stream", "hall", *given)
    assert status == 1 and "hall; set recent_hours = 1.0 under [snapshots]" in err
    status, _, err = perceiverd("teach", forgetful, "--stream", "hal", *given)
    assert status == 1 and "unknown stream 'hal'; did you mean 'hall'?" in err
    status, _, err = perceiverd("teach", forgetful, "--stream", "hall", "--label", "Doorbell")
    assert status == 1 and "this is no terminal" in err


def test_labels_and_times_are_checked_first() -> None:
    """A spelling mistake is no new label; times come in pairs, in order and in the past."""
    assert label_of("dog").mid == "/m/0bt9lr" and label_of("My gate").mid == "user/my-gate"
    with pytest.raises(ConfigError, match="--label: unknown label 'Dorbell'; did you mean 'Doorbell'"):
        label_of("Dorbell")
    now = datetime.now().astimezone()

    def spans(begins: tuple[str, ...], ends: tuple[str, ...]) -> int:
        return len(spans_of(Teaching("a", "Dog", Path("x"), 5, begins, ends), now))

    assert spans(("3s", "10s"), ("1s", "8s")) == 2
    for begins, ends, message in (
        (("3s",), (), "give pairs"),
        (("1s",), ("3s",), "must be after"),
        (("2m",), ("1s",), "by at most 60 s"),
        (("soon",), ("1s",), "cannot read the time"),
        (("1s",), ((now + timedelta(seconds=20)).isoformat(),), "is in the future"),
    ):
        with pytest.raises(ConfigError, match=message):
            spans(begins, ends)
