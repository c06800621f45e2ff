"""One source with real worker processes that are killed, stopped, hung and starved of replies."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiverd.core.media import NS_PER_S, Chunk, Frame, MediaFormat, Timing, VideoFormat
from perceiverd.sources.process import source_process
from perceiverd.sources.process.arrivals import Arrival, Discontinuity, Key, StateChange
from perceiverd.sources.process.protocol import Header
from perceiverd.sources.process.restart import RunState, Supervision, Timeouts
from perceiverd.sources.process.source_process import SourceProcess
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import File, Source, Synthetic, Url
from tests.support.driving import all_up, drive, media, states
from tests.support.faults import Fault, worker_command

WANTED = MediaFormat(16000, VideoFormat(30, 42, 6.25))
HURRIED = Timeouts(open_s=30.0, read_s=2.0)
"""Short enough for a test, long enough for a loaded machine, on which processes start and run slowly."""
PATIENT = Timeouts(open_s=60.0, read_s=60.0)
"""No source is lost unless the test causes it."""


@pytest.mark.quiet
def test_a_killed_source_returns_and_the_others_stay_up(caplog: pytest.LogCaptureFixture) -> None:
    """A source killed by SIGKILL has a gap and is back within seconds; the other keeps its process and all its data."""
    caplog.set_level(logging.INFO, "perceiverd.sources")
    sources: dict[Key, Source] = {("one", 0): Synthetic(), ("two", 0): Synthetic()}
    with Supervisor(sources, WANTED) as running:
        began_s = time.monotonic()
        drive(running, all_up(running, "one", "two"))
        start_s = time.monotonic() - began_s
        drive(running, lambda seen: min(len(media(seen, name)) for name in ("one", "two")) > 5)
        pid, other = running.state("one")[0].pid, running.state("two")[0].pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        began_s = time.monotonic()
        arrivals = drive(running, lambda seen: RunState.UP in states(seen, "one"))
        took_s = time.monotonic() - began_s
        arrivals += drive(running, lambda seen: len(media(seen, "two")) > 20)
        after, untouched = running.state("one")[0], running.state("two")[0]
    # A back-off of 0.25 s at most, and a start: 0.4 s measured on an idle machine, 1.3 s on a busy one.
    assert took_s < 1.5 + 3 * start_s
    assert states(arrivals, "one") == [RunState.BACKING_OFF, RunState.STARTING, RunState.UP]
    what = [a.what for a in arrivals if a.stream == "one"]
    gap = what.index(Discontinuity(("audio", "video")))
    assert not any(isinstance(item, StateChange) for item in what[:gap])
    assert after.pid != pid
    assert after.losses == {"exited": 1}
    assert "signal 9" in after.detail
    assert after.data_age_s is not None
    assert after.data_age_s < took_s + 20
    assert (untouched.pid, untouched.losses) == (other, {})
    times = [item.start_ns for item in media(arrivals, "two") if isinstance(item, Chunk)]
    assert max(np.diff(times)) < NS_PER_S // 20
    lost = [line for line in caplog.messages if line.startswith("source-lost ")]
    assert len(lost) == 1
    assert 'stream=one source=synthetic reason=exited detail="ended by signal 9" retry_s=0.' in lost[0]
    assert caplog.messages.count("source-up stream=one source=synthetic") == 2


@pytest.mark.parametrize("how", ["hangs", "is stopped"])
def test_a_silent_source_is_killed_and_restarted(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that hangs in a driver, and one that the kernel has stopped, are stalled, killed and restarted."""
    if how == "hangs":
        monkeypatch.setattr(source_process, "WORKER", worker_command(Fault("hang", 0.5)))
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=HURRIED) as running:
        drive(running, all_up(running, "cam"))
        pid = running.state("cam")[0].pid
        assert pid
        if how == "is stopped":
            os.kill(pid, signal.SIGSTOP)
        arrivals = drive(running, lambda seen: RunState.UP in states(seen, "cam"))
        assert states(arrivals, "cam") == [RunState.STALLED, RunState.BACKING_OFF, RunState.STARTING, RunState.UP]
        assert running.state("cam")[0].losses == {"stalled": 1}
        assert not Path(f"/proc/{pid}").exists()


def test_a_source_that_cannot_be_opened_is_retried_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A missing file and a dead URL are retried and logged with their one line; the log shows no password."""
    dead = Url("rtsp://user:hunter2@127.0.0.1:9/x")
    sources: dict[Key, Source] = {("file", 0): File("/no/such.mp4"), ("url", 0): dead}
    with caplog.at_level(logging.DEBUG), Supervisor(sources, WANTED) as running:
        drive(running, lambda _: all(running.state(name)[0].losses.get("failed", 0) > 1 for name in ("file", "url")))
        assert "no such file" in running.state("file")[0].detail
        assert "refused" in running.state("url")[0].detail
        assert running.state("file")[0].data_age_s is None
    assert "no such file" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(("answer", "longest_s"), [("401 Unauthorized", 300), ("404 Not Found", 30), ("500 Broken", 3)])
def test_a_refusal_lengthens_the_wait(monkeypatch: pytest.MonkeyPatch, answer: str, longest_s: float) -> None:
    """A server that refuses gets a longer wait between tries; one that is broken is tried again soon."""

    class Server(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever).start()
        caps_s = list[float | None]()
        lost = Supervision.lost

        def spy(self: Supervision, *arguments: Any) -> float:
            caps_s.append(min(self._limits.backoff_cap_s, 3) if arguments[3] is None else arguments[3])
            return lost(self, *arguments)

        monkeypatch.setattr(Supervision, "lost", spy)
        try:
            with Supervisor({("cam", 0): Url(f"http://127.0.0.1:{server.server_address[1]}/")}, WANTED) as running:
                drive(running, lambda _: bool(caps_s))
        finally:
            server.shutdown()
    assert caps_s[0] == longest_s


def test_flash_and_beep_stay_together_through_a_replay(clip: Callable[..., Path]) -> None:
    """Through file, process and socket, a simultaneous flash and beep stay within 40 ms; then the file has ended."""
    path = clip(
        "a.mp4",
        picture=lambda t: np.full((60, 84, 3), 255 if 0.8 <= t < 1.2 else 0, np.uint8),
        sound=lambda t: 0.5 * np.sin(2 * np.pi * 1000 * t) * (t >= 0.8) * (t < 1.2),
    )
    with Supervisor({("film", 0): File(str(path))}, WANTED) as running:
        arrivals = drive(running, lambda seen: RunState.ENDED in states(seen, "film"))
        arrivals += running.poll(200)
        assert running.state("film")[0].pid is None
    assert states(arrivals, "film") == [RunState.STARTING, RunState.UP, RunState.ENDED]
    frames = [item for item in media(arrivals, "film") if isinstance(item, Frame)]
    chunks = [item for item in media(arrivals, "film") if isinstance(item, Chunk)]
    flash_ns = next(frame.start_ns for frame in frames if frame.pixels.mean() > 127)
    beep_ns = next(
        chunk.start_ns + int(np.flatnonzero(np.abs(chunk.samples) > 0.2)[0]) * NS_PER_S // chunk.rate_hz
        for chunk in chunks
        if np.abs(chunk.samples).max() > 0.2
    )
    assert abs(flash_ns - beep_ns) < 40_000_000
    assert chunks[-1].end_ns - chunks[0].start_ns == pytest.approx(2 * NS_PER_S, abs=NS_PER_S // 10)


def test_a_busy_loop_notices_the_end_of_a_file(clip: Callable[..., Path]) -> None:
    """If the last message finds no room in time, the file has still ended and is not played again."""
    path = clip("a.mp4", picture=lambda _: np.zeros((60, 84, 3), np.uint8), sound=lambda t: 0.1 * np.sin(t), seconds=4)
    with Supervisor({("film", 0): File(str(path))}, WANTED) as running:
        drive(running, all_up(running, "film"))
        process = running._processes[0].process
        assert process
        process.wait(60)  # meanwhile nobody reads its messages
        assert process.returncode == 0
        arrivals = drive(running, lambda seen: RunState.ENDED in states(seen, "film"))
        assert running.state("film")[0].losses == {}
    assert states(arrivals, "film") == [RunState.ENDED]


def test_a_worker_shares_nothing_with_the_daemon() -> None:
    """A worker has none of the daemon's descriptors and is not in its process group."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with Supervisor({("cam", 0): Synthetic()}, WANTED) as running:
        drive(running, all_up(running, "cam"))
        pid = running.state("cam")[0].pid
        assert pid
        links = set()
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the worker opens and closes files meanwhile
                links.add(path.readlink())
        assert Path(f"/proc/self/fd/{writing}").readlink() not in links
        assert os.getpgid(pid) != os.getpgid(0)
        command = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
        assert "ipc" not in command.stdout
    os.close(reading)
    os.close(writing)


def test_secrets_reach_only_the_source(caplog: pytest.LogCaptureFixture) -> None:
    """A password reaches the camera and shows in no log, state or process list; another password, another source."""
    with socket.create_server(("127.0.0.1", 0)) as server, caplog.at_level(logging.DEBUG):
        port = server.getsockname()[1]
        url = Url(f"http://user:${{PW}}@127.0.0.1:{port}/${{KEY}}")
        secrets = {"PW": "hunter/2", "KEY": "hidden"}
        with Supervisor({("cam", 0): url}, WANTED, secrets=secrets) as running:
            server.settimeout(60)
            running.poll(100)
            request = b""
            for answer in (b'401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"', b"404 Not Found"):
                connection, _ = server.accept()
                with connection:
                    request = connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n")
            assert b"/hidden" in request
            assert base64.b64encode(b"user:hunter/2") in request
            pid = running.state("cam")[0].pid
            command = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
            drive(running, lambda _: running.state("cam")[0].losses.get("failed", 0) > 0)
            visible = repr(running.state("cam")) + command.stdout + caplog.text
            assert "127.0.0.1" in visible and "${KEY}" in visible
            assert not any(word in visible for word in ("hunter", "hidden"))
            assert running.exchange({("cam", 0): url}, secrets) == set()
            assert running.exchange({("cam", 0): url}, secrets | {"PW": "new"}) == {("cam", 0)}


def test_a_worker_does_not_inherit_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker's environment has the secrets of any source's URL, or the folder of credentials."""
    monkeypatch.setenv("CAM_PASSWORD", "s3cret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials")
    sources: dict[Key, Source] = {("cam", 0): Synthetic(), ("door", 0): Url("rtsp://u:${CAM_PASSWORD}@127.0.0.1:1/")}
    with Supervisor(sources, WANTED, secrets={"CAM_PASSWORD": "s3cret"}) as running:
        drive(running, all_up(running, "cam"))
        pid = running.state("cam")[0].pid
        assert pid
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"s3cret" not in environment and b"CREDENTIALS_DIRECTORY" not in environment


def test_a_step_of_a_devices_clock_is_a_gap(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """If a device loses half a second, both modalities have a gap, it is counted, and the later times show it."""
    monkeypatch.setattr(source_process, "WORKER", worker_command(Fault("step", 3.0)))
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=PATIENT) as running:
        arrivals = drive(running, lambda seen: any(isinstance(a.what, Discontinuity) for a in seen))
        arrivals += drive(running, lambda seen: len(media(seen, "cam")) > 20)
        state = running.state("cam")[0]
    what = [a.what for a in arrivals]
    gap = what.index(Discontinuity(("audio", "video")))
    before = [item for item in what[:gap] if isinstance(item, Chunk)]
    after = [item for item in what[gap:] if isinstance(item, Chunk)]
    lost_ns = after[0].start_ns - before[-1].end_ns
    # It lost half a second, and what was held back while the time was in doubt.
    assert NS_PER_S // 2 - 50_000_000 <= lost_ns < 12 * NS_PER_S
    assert state.timing is not None and state.timing.steps == 1
    assert state.losses == {}
    assert "clock-stepped stream=cam source=synthetic steps=1 suppressed=0" in caplog.messages


def test_counts_outlast_a_process() -> None:
    """Steps, overflows and dropped items are summed over all processes of a source; stale items count apart."""
    arrivals: list[Arrival] = []
    source = SourceProcess(("mic", 0), Synthetic(), {}, PATIENT, None, arrivals.append)
    header = Header(source.token, 0, "timing", dropped=5, steps=3)
    for overflows in (1, 2):
        assert source.receive(header, Timing(None, 1.0, 3, overflows), 0)
    source._lost(0, "failed", "gone")
    assert source.receive(header, Timing(None, 1.0, 3, 2), 0)
    assert not source.receive(Header(source.token, 2, "alive", 0), None, 0)
    assert source.receive(Header(source.token, 1, "timing", dropped=2, steps=1), Timing(None, 1.0, 1, 1), 0)
    state = source.state(0)
    assert state.timing is not None
    assert (state.timing.steps, state.timing.overflows, state.dropped, state.stale) == (4, 3, 7, 1)


def test_snapshots_are_counted_and_a_failed_one_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A worker reports each requested snapshot: an empty message is a success, otherwise it is the reason."""
    source = SourceProcess(("door", 0), Synthetic(), {}, PATIENT, None, list[Arrival]().append)
    for reason in ("", "", "the disk is full"):
        source.receive(Header(source.token, 0, "snapshot", 0, message=reason), None, 0)
    state = source.state(0)
    assert (state.snapshots, state.snapshots_failed) == (2, 1)
    assert caplog.messages == [
        'snapshot-failed stream=door source=synthetic reason="the disk is full" suppressed=0',
    ]


def test_a_source_is_restarted_on_demand() -> None:
    """A source that is up is killed and lost for the given reason; one that is not up is left alone."""
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=PATIENT) as running:
        assert not running.restart(("cam", 0), "frozen", "its video is frozen")
        drive(running, all_up(running, "cam"))
        pid = running.state("cam")[0].pid
        assert running.restart(("cam", 0), "frozen", "its video is frozen")
        arrivals = drive(running, lambda seen: RunState.UP in states(seen, "cam"))
        assert running.state("cam")[0].losses == {"frozen": 1}
        assert running.state("cam")[0].pid != pid
    assert any(isinstance(a.what, Discontinuity) for a in arrivals)


def test_a_crash_of_a_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each crash is one loss that says who has crashed, and waits grow; no file in the working directory is loaded."""
    (tmp_path / "msgspec.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    waits_s = list[float]()
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=PATIENT) as running:
        for losses in (1, 2, 3):
            drive(running, all_up(running, "cam"))
            pid = running.state("cam")[0].pid
            assert pid
            os.kill(pid, signal.SIGSEGV)
            drive(running, lambda seen: RunState.BACKING_OFF in states(seen, "cam"))
            began_s = time.monotonic()
            drive(running, lambda seen: RunState.STARTING in states(seen, "cam"))
            waits_s.append(time.monotonic() - began_s)
            assert running.state("cam")[0].losses == {"exited": losses}
            assert running.state("cam")[0].detail == "FFmpeg or a driver has crashed on its data (SIGSEGV)"
    assert waits_s[2] > 0.45  # half of 0.25 s, doubled twice, at least, and a little less for the clock
