"""The supervisor with real workers: its socket, its bounds, the exchange of sources, and its exit."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from perceiverd.core.errors import WireError
from perceiverd.core.media import NS_PER_S, Chunk, MediaFormat, VideoFormat
from perceiverd.sources.process import source_process, supervisor
from perceiverd.sources.process.arrivals import Key
from perceiverd.sources.process.protocol import StartRequest, packed
from perceiverd.sources.process.restart import Timeouts
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import Source, Synthetic
from tests.support.driving import all_up, drive, media, states
from tests.support.faults import Fault, worker_command

WANTED = MediaFormat(16000, VideoFormat(30, 42, 6.25))
HURRIED = Timeouts(open_s=30.0, read_s=2.0)
"""Short enough for a test, long enough for a loaded machine, on which processes start and run slowly."""
PATIENT = Timeouts(open_s=60.0, read_s=60.0)
"""No source is lost unless the test causes it."""


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_busy_loop_kills_nobody() -> None:
    """If the daemon itself was busy for longer than the limit, sources that are well are left alone."""
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=HURRIED) as running:
        drive(running, all_up(running, "cam"))
        time.sleep(3)
        arrivals = drive(running, lambda seen: len(media(seen, "cam")) > 180)
        assert not states(arrivals, "cam")
        assert running.state("cam")[0].losses == {}


def test_a_flood_does_not_hold_the_loop() -> None:
    """One poll returns after a bounded number of messages; foreign and stale messages are counted and not used."""
    with Supervisor({("cam", 0): Synthetic()}, WANTED) as running:
        drive(running, all_up(running, "cam"))
        own = running._processes[0]
        own.incarnation += 1  # as after a loss: what the process still sends is stale
        with zmq.Context() as context, context.socket(zmq.PUSH) as flood:
            flood.setsockopt(zmq.SNDHWM, 10_000)
            flood.connect(running._endpoint)
            for _ in range(2000):
                flood.send_multipart([b"{}", b"x"])
            request = StartRequest(Synthetic(), WANTED, running._endpoint, own.token, own.incarnation + 5)
            flood.send_multipart(packed(request, 0, None))
            flood.send_multipart(packed(StartRequest(Synthetic(), WANTED, "", "stranger", 0), 0, None))
            polls = 0
            until_s = time.monotonic() + 60
            while running.refused < 2002:
                assert time.monotonic() < until_s
                before = running.refused
                running.poll(50)
                polls += 1
                assert running.refused - before <= 2 * supervisor.POLL_MESSAGES
            flood.close(0)
        assert polls >= 4
        drive(running, lambda _: running.state("cam")[0].stale > 0)


def test_the_exit_leaves_nothing_behind() -> None:
    """On exit all workers are gone, stopped ones too; the directory is removed and no descriptor stays open."""
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
        began_s = time.monotonic()
    assert time.monotonic() - began_s < supervisor.TERM_S + supervisor.KILL_S + 30  # with some more on a busy machine
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not directory.exists()
    assert descriptors() <= before


def test_restarts_leak_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that crashes again and again leaves no open files in the daemon."""
    monkeypatch.setattr(source_process, "WORKER", worker_command(Fault("crash", 0.05)))
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=Timeouts(backoff_cap_s=0.05)) as running:
        drive(running, lambda _: running.state("cam")[0].losses.get("exited", 0) >= 2)
        before = descriptors()
        drive(running, lambda _: running.state("cam")[0].losses.get("exited", 0) >= 4, within_s=40)
        assert descriptors() <= before + 3


def test_an_exchange_leaves_unchanged_sources_alone() -> None:
    """A source that stays the same keeps its process and its data; new, changed and removed ones start and end."""
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


def test_a_new_source_waits_for_a_leaving_one() -> None:
    """One process at a time opens a device, even if the old process must be killed first."""
    with Supervisor({("cam", 0): Synthetic()}, WANTED, limits=PATIENT) as running:
        drive(running, all_up(running, "cam"))
        pid = running.state("cam")[0].pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        running.exchange({("renamed", 0): Synthetic()})
        drive(running, lambda _: running.state("renamed")[0].pid is not None)
        assert not Path(f"/proc/{pid}").exists()
        drive(running, all_up(running, "renamed"))


@pytest.mark.quiet
def test_poll_respects_its_timeout() -> None:
    """With nothing to do, poll returns an empty list in time."""
    with Supervisor({}, WANTED) as running:
        began_s = time.monotonic()
        assert running.poll(50) == []
        assert time.monotonic() - began_s < 10


def test_an_unusable_directory_is_an_error(tmp_path: Path) -> None:
    """A directory that is missing, or too long for a socket, raises WireError and leaves nothing behind."""
    with pytest.raises(WireError, match="check the directory"), Supervisor({}, WANTED, runtime_dir=tmp_path / "no"):
        pass
    long = tmp_path / ("x" * 120)
    long.mkdir()
    with pytest.raises(WireError, match="too long"), Supervisor({}, WANTED, runtime_dir=long):
        pass
    assert list(long.iterdir()) == []
