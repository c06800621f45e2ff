"""The runner with real child processes that are killed, stopped, hung and starved."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import signal
import socket
import socketserver
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from perceiverd.core.errors import WireError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, MediaFormat, Timing, VideoFormat
from perceiverd.sources.process import supervisor
from perceiverd.sources.process.protocol import StartRequest, packed
from perceiverd.sources.process.restart import State, Supervision, Timeouts
from perceiverd.sources.process.supervisor import Arrival, Discontinuity, Key, StateChange, Supervisor
from perceiverd.sources.specs import File, Source, Synthetic, Url

WANTED = MediaFormat(16000, VideoFormat(30, 42, 6.25))
HURRIED = Timeouts(open_s=30.0, read_s=2.0)
"""Soon enough for a test, late enough for a loaded machine, which starts and runs children haltingly."""
PATIENT = Timeouts(open_s=60.0, read_s=60.0)
"""Where nothing is to be lost but what the test loses."""


def drive(running: Supervisor, until: Callable[[list[Arrival]], bool], within_s: float = 60) -> list[Arrival]:
    """Poll until what has come is enough; fails when it is not in time."""
    arrivals: list[Arrival] = []
    end = time.monotonic() + within_s
    while not until(arrivals):
        assert time.monotonic() < end, [a for a in arrivals if isinstance(a.what, StateChange)]
        arrivals += running.poll(100)
    return arrivals


def media(arrivals: list[Arrival], stream: str) -> list[Frame | Chunk]:
    return [a.what for a in arrivals if a.stream == stream and isinstance(a.what, Frame | Chunk)]


def states(arrivals: list[Arrival], stream: str) -> list[State]:
    return [a.what.state for a in arrivals if a.stream == stream and isinstance(a.what, StateChange)]


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def all_up(running: Supervisor, *streams: str) -> Callable[[list[Arrival]], bool]:
    return lambda _: all(source.state is State.UP for stream in streams for source in running.state(stream))


def test_a_killed_source_is_back_and_the_others_never_leave() -> None:
    """After SIGKILL one source has a gap and is back within seconds; the other loses nothing and keeps its process."""
    sources: dict[Key, Source] = {("one", 0): Synthetic(), ("two", 0): Synthetic()}
    with Supervisor(sources, WANTED) as running:
        began = time.monotonic()
        drive(running, all_up(running, "one", "two"))
        start_s = time.monotonic() - began
        drive(running, lambda seen: min(len(media(seen, name)) for name in ("one", "two")) > 5)
        pid, other = running.state("one")[0].pid, running.state("two")[0].pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        arrivals = drive(running, lambda seen: State.UP in states(seen, "one"))
        took_s = time.monotonic() - began
        arrivals += drive(running, lambda seen: len(media(seen, "two")) > 20)
        after, untouched = running.state("one")[0], running.state("two")[0]
    # A back-off of 0.25 s at most, and a start: 0.4 s seen on an idle machine, 1.3 s on a busy one.
    assert took_s < 1.5 + 3 * start_s
    assert states(arrivals, "one") == [State.BACKING_OFF, State.STARTING, State.UP]
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


@pytest.mark.parametrize("how", ["hangs", "is stopped"])
def test_a_silent_source_is_killed_and_started_again(how: str) -> None:
    """A source that hangs in a driver, and one that the kernel has stopped, are stalled, killed and brought back."""
    source = Synthetic(stall_after_s=0.5) if how == "hangs" else Synthetic()
    with Supervisor({("cam", 0): source}, WANTED, limits=HURRIED) as running:
        drive(running, all_up(running, "cam"))
        pid = running.state("cam")[0].pid
        assert pid
        if how == "is stopped":
            os.kill(pid, signal.SIGSTOP)
        arrivals = drive(running, lambda seen: State.UP in states(seen, "cam"))
        assert states(arrivals, "cam") == [State.STALLED, State.BACKING_OFF, State.STARTING, State.UP]
        assert running.state("cam")[0].losses == {"stalled": 1}
        assert not Path(f"/proc/{pid}").exists()


def test_a_busy_loop_kills_nobody() -> None:
    """When the daemon itself was busy for longer than the limit, sources that are well are left alone."""
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=HURRIED) as running:
        drive(running, all_up(running, "cam"))
        time.sleep(3)
        arrivals = drive(running, lambda seen: len(media(seen, "cam")) > 180)
        assert not states(arrivals, "cam")
        assert running.state("cam")[0].losses == {}


def test_what_cannot_be_opened_is_tried_again_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """A missing file and a dead URL back off with their one line; no password shows in the log."""
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
def test_what_refuses_is_left_alone_for_longer(monkeypatch: pytest.MonkeyPatch, answer: str, longest_s: float) -> None:
    """A server that says no has its tries spread to a cap of their own; one that is broken is asked soon again."""

    class Server(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever).start()
        caps_s = list[float | None]()
        lost = Supervision.lost

        def spied(self: Supervision, *arguments: Any) -> float:
            caps_s.append(min(self._limits.backoff_cap_s, 3) if arguments[3] is None else arguments[3])
            return lost(self, *arguments)

        monkeypatch.setattr(Supervision, "lost", spied)
        try:
            with Supervisor({("cam", 0): Url(f"http://127.0.0.1:{server.server_address[1]}/")}, WANTED) as running:
                drive(running, lambda _: bool(caps_s))
        finally:
            server.shutdown()
    assert caps_s[0] == longest_s


def test_flash_and_beep_stay_together_through_a_replay(clip: Callable[..., Path]) -> None:
    """Through file, process and socket, a flash and a beep of one moment stay within 40 ms; then the file has ended."""
    path = clip(
        "a.mp4",
        picture=lambda t: np.full((60, 84, 3), 255 if 0.8 <= t < 1.2 else 0, np.uint8),
        sound=lambda t: 0.5 * np.sin(2 * np.pi * 1000 * t) * (t >= 0.8) * (t < 1.2),
    )
    with Supervisor({("film", 0): File(str(path))}, WANTED) as running:
        arrivals = drive(running, lambda seen: State.ENDED in states(seen, "film"))
        arrivals += running.poll(200)
        assert running.state("film")[0].pid is None
    assert states(arrivals, "film") == [State.STARTING, State.UP, State.ENDED]
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


def test_a_loop_that_is_busy_when_a_file_ends_hears_of_it(clip: Callable[..., Path]) -> None:
    """Though the last word finds no room in time, the file has ended and is not played again."""
    path = clip("a.mp4", picture=lambda _: np.zeros((60, 84, 3), np.uint8), sound=lambda t: 0.1 * np.sin(t), seconds=4)
    with Supervisor({("film", 0): File(str(path))}, WANTED) as running:
        drive(running, all_up(running, "film"))
        process = running._children[0].process
        assert process
        process.wait(60)  # meanwhile nobody listens
        assert process.returncode == 0
        arrivals = drive(running, lambda seen: State.ENDED in states(seen, "film"))
        assert running.state("film")[0].losses == {}
    assert states(arrivals, "film") == [State.ENDED]


def test_a_flood_does_not_hold_the_loop() -> None:
    """One poll returns after a bounded number of messages, and strangers and the dead are counted, not believed."""
    with Supervisor({("cam", 0): Synthetic()}, WANTED) as running:
        drive(running, all_up(running, "cam"))
        token = running._children[0].token
        own = running._children[0]
        own.incarnation += 1  # as if it had been lost: what the process still sends is stale
        with zmq.Context() as context, context.socket(zmq.PUSH) as flood:
            flood.setsockopt(zmq.SNDHWM, 10_000)
            flood.connect(running._endpoint)
            for _ in range(2000):
                flood.send_multipart([b"{}", b"x"])
            order = StartRequest(Synthetic(), WANTED, running._endpoint, token, own.incarnation + 5)
            flood.send_multipart(packed(order, 0, None))
            flood.send_multipart(packed(StartRequest(Synthetic(), WANTED, "", "stranger", 0), 0, None))
            polls = 0
            until = time.monotonic() + 60
            while running.refused < 2002:
                assert time.monotonic() < until
                before = running.refused
                running.poll(50)
                polls += 1
                assert running.refused - before <= 2 * supervisor.MOST_MESSAGES
            flood.close(0)
        assert polls >= 4
        drive(running, lambda _: running.state("cam")[0].stale > 0)


def test_the_exit_leaves_nothing_behind() -> None:
    """On exit all children are gone, those that are stopped too, the directory is removed and no descriptor stays."""
    before = descriptors()
    sources: dict[Key, Source] = {("a", 0): Synthetic(), ("a", 1): Synthetic(), ("b", 0): Synthetic()}
    with Supervisor(sources, WANTED) as running:
        directory = running._directory
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        drive(running, all_up(running, "a", "b"))
        pids = [source.pid for name in "ab" for source in running.state(name)]
        assert len(set(pids)) == 3
        assert pids[0]
        os.kill(pids[0], signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < supervisor.TERM_S + supervisor.KILL_S + 5
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not directory.exists()
    assert descriptors() <= before


def test_restarts_leak_no_descriptors() -> None:
    """A source that crashes again and again costs the daemon nothing that adds up."""
    with Supervisor(
        {("cam", 0): Synthetic(crash_after_s=0.05)}, WANTED, limits=Timeouts(backoff_cap_s=0.05)
    ) as running:
        drive(running, lambda _: running.state("cam")[0].losses.get("exited", 0) >= 2)
        before = descriptors()
        drive(running, lambda _: running.state("cam")[0].losses.get("exited", 0) >= 4, within_s=40)
        assert descriptors() <= before + 3


def test_children_share_nothing() -> None:
    """A child has none of the daemon's descriptors and no part in its process group."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with Supervisor({("cam", 0): Synthetic()}, WANTED) as running:
        drive(running, all_up(running, "cam"))
        pid = running.state("cam")[0].pid
        assert pid
        links = set()
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the child is at work, and opens and closes
                links.add(path.readlink())
        assert Path(f"/proc/self/fd/{writing}").readlink() not in links
        assert os.getpgid(pid) != os.getpgid(0)
        command = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
        assert "ipc" not in command.stdout
    os.close(reading)
    os.close(writing)


def test_sources_are_exchanged_while_others_go_on() -> None:
    """What stays the same keeps its process and loses nothing; what is new, changed or gone is started and ended."""
    sources: dict[Key, Source] = {("a", 0): Synthetic(), ("b", 0): Synthetic(), ("c", 0): Synthetic()}
    with Supervisor(sources, WANTED, limits=PATIENT) as running:
        arrivals = drive(running, all_up(running, "a", "b", "c"))
        pids = {name: running.state(name)[0].pid for name in "abc"}
        gone = running.exchange({("d", 0): Synthetic(), ("b", 0): Synthetic(video=False), ("a", 0): Synthetic()})
        assert gone == {("b", 0), ("c", 0)}
        assert running.state("c") == ()
        arrivals += drive(running, all_up(running, "a", "b", "d"))
        after = drive(running, lambda seen: all(len(media(seen, name)) > 10 for name in "abd"))
        assert running.state("a")[0].pid == pids["a"]
        assert running.state("b")[0].pid != pids["b"]
        assert not any(Path(f"/proc/{pids[name]}").exists() for name in "bc")
        assert all(isinstance(item, Chunk) for item in media(after, "b"))
        assert not media(after, "c")
        assert not running.state("a")[0].losses
        times = [item.start_ns for item in media(arrivals + after, "a") if isinstance(item, Chunk)]
        assert max(np.diff(times)) < NS_PER_S // 20
        assert running.exchange({("a", 0): Synthetic()}) == {("b", 0), ("d", 0)}
        pid = running.state("a")[0].pid
    assert not Path(f"/proc/{pid}").exists()


def test_what_is_new_waits_for_what_leaves() -> None:
    """A device is opened by one process at a time, though the one that has it must be killed to leave."""
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=PATIENT) as running:
        drive(running, all_up(running, "cam"))
        pid = running.state("cam")[0].pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        running.exchange({("renamed", 0): Synthetic()})
        drive(running, lambda _: running.state("renamed")[0].pid is not None)
        assert not Path(f"/proc/{pid}").exists()
        drive(running, all_up(running, "renamed"))


def test_secrets_reach_the_source_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """A password is sent to the camera, and shows in no log, state or process list; another one is another source."""
    with socket.create_server(("127.0.0.1", 0)) as server, caplog.at_level(logging.DEBUG):
        port = server.getsockname()[1]
        url = Url(f"http://user:${{PW}}@127.0.0.1:{port}/${{KEY}}")
        secrets = {"PW": "hunter/2", "KEY": "hidden"}
        with Supervisor({("cam", 0): url}, WANTED, secrets=secrets) as running:
            server.settimeout(60)
            running.poll(100)
            asked = b""
            for answer in (b'401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"', b"404 Not Found"):
                connection, _ = server.accept()
                with connection:
                    asked = connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n")
            assert b"/hidden" in asked
            assert base64.b64encode(b"user:hunter/2") in asked
            pid = running.state("cam")[0].pid
            command = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
            drive(running, lambda _: running.state("cam")[0].losses.get("failed", 0) > 0)
            told = repr(running.state("cam")) + command.stdout + caplog.text
            assert "127.0.0.1" in told and "${KEY}" in told
            assert not any(word in told for word in ("hunter", "hidden"))
            assert running.exchange({("cam", 0): url}, secrets) == set()
            assert running.exchange({("cam", 0): url}, secrets | {"PW": "new"}) == {("cam", 0)}


def test_poll_waits_no_longer_than_told() -> None:
    """With nothing to do, poll comes back empty in time."""
    with Supervisor({}, WANTED) as running:
        began = time.monotonic()
        assert running.poll(50) == []
        assert time.monotonic() - began < 1


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    """A directory that is missing or whose name is too long for a socket is a WireError, and nothing is left."""
    with pytest.raises(WireError, match="check the directory"), Supervisor({}, WANTED, runtime_dir=tmp_path / "no"):
        pass
    long = tmp_path / ("x" * 120)
    long.mkdir()
    with pytest.raises(WireError, match="too long"), Supervisor({}, WANTED, runtime_dir=long):
        pass
    assert list(long.iterdir()) == []


def test_a_child_does_not_inherit_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a source's URL refers to is not in the environment of any child, and neither is the place of credentials."""
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


def test_a_step_of_a_devices_clock_is_a_gap() -> None:
    """Half a second that a device loses tears both modalities, is counted, and shows in the times after it."""
    with Supervisor({("cam", 0): Synthetic(step_after_s=3.0)}, WANTED, limits=PATIENT) as running:
        arrivals = drive(running, lambda seen: any(isinstance(a.what, Discontinuity) for a in seen))
        arrivals += drive(running, lambda seen: len(media([a for a in seen if a.stream == "cam"], "cam")) > 20)
        state = running.state("cam")[0]
    what = [a.what for a in arrivals]
    gap = what.index(Discontinuity(("audio", "video")))
    before = [item for item in what[:gap] if isinstance(item, Chunk)]
    after = [item for item in what[gap:] if isinstance(item, Chunk)]
    lost_ns = after[0].start_ns - before[-1].end_ns
    # It lost half a second, and what was held back while it was in doubt.
    assert NS_PER_S // 2 - 50_000_000 <= lost_ns < 12 * NS_PER_S
    assert state.timing is not None and state.timing.steps == 1
    assert state.losses == {}


def test_overflows_are_told_and_outlast_a_process() -> None:
    """How often the machine was too slow is the sum over all processes of a source, beside the steps."""
    with Supervisor({("mic", 0): Synthetic()}, WANTED, limits=PATIENT) as running:
        (child,) = running._children
        order = StartRequest(Synthetic(), WANTED, "", child.token, 0)
        for count in (1, 2):
            running._take([bytes(part) for part in packed(order, 0, Timing(None, 1.0, 3, count), 3)], [])
        running._lost(child, time.monotonic_ns(), "failed", "gone", [])
        order = msgspec.structs.replace(order, incarnation=1)
        running._take([bytes(part) for part in packed(order, 0, Timing(None, 1.0, 1, 1), 1)], [])
        timing = running.state("mic")[0].timing
    assert timing is not None
    assert (timing.steps, timing.overflows) == (4, 3)


def test_a_source_is_started_again_on_demand() -> None:
    """One that is up is killed and lost for the reason that was given; one that isn't is left alone."""
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=PATIENT) as running:
        assert not running.restart(("cam", 0), "frozen", "its picture is frozen")
        drive(running, all_up(running, "cam"))
        pid = running.state("cam")[0].pid
        assert running.restart(("cam", 0), "frozen", "its picture is frozen")
        arrivals = drive(running, lambda seen: State.UP in states(seen, "cam"))
        assert running.state("cam")[0].losses == {"frozen": 1}
        assert running.state("cam")[0].pid != pid
    assert any(isinstance(a.what, Discontinuity) for a in arrivals)
