"""The real process `python -m perceiverd.sources.process.worker`: its socket, its signals and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from perceiverd.core.media import NS_PER_S, Frame, Media, MediaFormat, VideoFormat
from perceiverd.sources.process.protocol import Header, Item, StartRequest, unpacked
from perceiverd.sources.process.source_process import WORKER
from perceiverd.sources.process.worker import Sender
from perceiverd.sources.specs import File, Source, Synthetic, Url
from tests.support.faults import Fault, worker_command

WANTED = MediaFormat(16000, VideoFormat(30, 42, 6.25))
DEADLINE_S = 60
"""How long a worker may take for anything on a very busy machine."""
START_CPU_S = 5.0
"""On an idle core it needs half a second."""


class Worker:
    """A worker that sends to a socket of this test."""

    def __init__(self, source: Source, directory: Path, command: Sequence[str]) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.PULL)
        endpoint = f"ipc://{directory}/s"
        self.socket.bind(endpoint)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        assert self.process.stdin
        self.process.stdin.write(msgspec.json.encode(StartRequest(source, WANTED, endpoint, "t", 3)) + b"\n")

    def next(self, timeout_s: float = DEADLINE_S) -> tuple[Header, Item | None]:
        """The next message that is more than a sign of life."""
        self.alive = 0
        while True:
            assert self.socket.poll(round(timeout_s * 1000)), "nothing came"
            header, item = unpacked(self.socket.recv_multipart())
            if header.kind != "alive":
                return header, item
            self.alive += 1

    def stderr(self) -> str:
        assert self.process.stderr
        return self.process.stderr.read().decode()


@contextmanager
def working(source: Source, directory: Path, command: Sequence[str] = WORKER) -> Iterator[Worker]:
    worker = Worker(source, directory, command)
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.communicate()
        worker.socket.close(0)
        worker.context.term()


def grey(_: float) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((60, 84, 3), 128, np.uint8)


def test_media_come_and_the_end_is_reported(clip: Callable[..., Path], tmp_path: Path) -> None:
    """A clip's media come live-stamped, then a message that it has ended, and the exit status is 0."""
    path = clip("a.mp4", picture=grey, sound=lambda t: 0.1 * np.sin(t), seconds=1.0)
    kinds = list[str]()
    with working(File(str(path)), tmp_path) as worker:
        while not kinds or kinds[-1] != "ended":
            header, item = worker.next()
            kinds.append(header.kind)
            assert (header.token, header.incarnation, header.dropped) == ("t", 3, 0)
            if isinstance(item, Media):
                assert abs(time.monotonic_ns() - item.start_ns) < DEADLINE_S * NS_PER_S
        assert worker.process.wait(DEADLINE_S) == 0
        assert worker.stderr() == ""
    assert {"frame", "chunk"} < set(kinds)


def test_a_failure_is_reported_in_one_line(tmp_path: Path) -> None:
    """A MediaError becomes a last message with its line, exit status 1 and no traceback."""
    with working(File("/no/such.mp4"), tmp_path) as worker:
        header, _ = worker.next()
        assert worker.alive == 2, "one before its module was loaded and one after: loading may take long"
        assert header.kind == "failed"
        assert header.message.startswith("/no/such.mp4: ")
        assert worker.process.wait(DEADLINE_S) == 1
        assert worker.stderr() == ""


def test_a_traceback_shows_no_password(tmp_path: Path) -> None:
    """The traceback of an unexpected exception has references in place of secrets."""
    code = (
        "import sys\n"
        "from perceiverd.sources.process import worker\n"
        "def broken(source, wanted):\n"
        "    raise LookupError(source.url)\n"
        "worker.media = broken\n"
        "sys.exit(worker.main())\n"
    )
    request = StartRequest(Url("http://u:${PW}@h/${PW}"), WANTED, f"ipc://{tmp_path}/s", "t", 0, {"PW": "hunter/2"})
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.bind(request.endpoint)
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdin
            assert process.stderr
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            process.stdin.flush()
            printed = process.stderr.read().decode()
    assert process.returncode == 1
    assert printed.endswith("LookupError: http://u:${PW}@h/${PW}\n")
    assert "hunter" not in printed


def test_it_logs_if_the_daemon_does(clip: Callable[..., Path], tmp_path: Path) -> None:
    """With `logs`, lines from INFO upwards are on standard error, the track that is used among them."""
    path = clip("a.mka", sound=lambda t: 0.1 * np.sin(t), seconds=0.2)
    request = StartRequest(File(str(path)), WANTED, f"ipc://{tmp_path}/s", "t", 0, logs=True)
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.bind(request.endpoint)
        with subprocess.Popen(WORKER, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdin
            assert process.stderr
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            process.stdin.flush()
            printed = process.stderr.read().decode()
    chosen = f'track-chosen source={path} track=0 tracks=0 layout=stereo mix="all channels"'
    assert printed.endswith(f" INFO perceiverd.sources {chosen}\n") and printed.count("\n") == 1


def test_sigterm_ends_it_and_sigint_does_not(tmp_path: Path) -> None:
    """A Ctrl-C is for the parent to act on; SIGTERM ends the worker at once, even one that hangs."""
    with working(Synthetic(), tmp_path, worker_command(Fault("hang", 0.4))) as worker:
        worker.next()
        worker.process.send_signal(signal.SIGINT)
        time.sleep(0.8)
        assert worker.process.poll() is None
        worker.process.terminate()
        assert worker.process.wait(DEADLINE_S) == -signal.SIGTERM


def test_it_ends_when_its_input_closes(tmp_path: Path) -> None:
    """A worker whose standard input closes exits by itself, even if it hangs."""
    with working(Synthetic(), tmp_path, worker_command(Fault("hang", 0.1))) as worker:
        worker.next()
        assert worker.process.stdin
        worker.process.stdin.close()
        assert worker.process.wait(DEADLINE_S) == 0
        worker.process.stdin = None


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    """A worker whose parent is killed by SIGKILL ends soon, even if another process holds its input open."""
    request = msgspec.json.encode(StartRequest(Synthetic(), WANTED, f"ipc://{tmp_path}/nobody", "t", 0)).decode()
    parent = (
        "import subprocess, sys, time\n"
        f"worker = subprocess.Popen({WORKER!r}, stdin=int(sys.argv[1]))\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", parent, str(reading)], stdout=subprocess.PIPE, pass_fds=[reading]
    ) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        os.write(writing, request.encode() + b"\n")
        until_s = time.monotonic() + 60
        while b"SigIgn" not in (status := Path(f"/proc/{pid}/status").read_bytes()) or not _ignores_sigint(status):
            assert time.monotonic() < until_s
            time.sleep(0.05)
        time.sleep(0.3)
        process.kill()
    until_s = time.monotonic() + 60
    while _runs(pid):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    os.close(reading)
    os.close(writing)


def _ignores_sigint(status: bytes) -> bool:
    ignored = next(line for line in status.splitlines() if line.startswith(b"SigIgn"))
    return bool(int(ignored.split()[1], 16) & 1 << (signal.SIGINT - 1))


def _runs(pid: int) -> bool:
    """Whether a process lives; without an init that reaps orphans a zombie is left, which counts as dead."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_dropped_items_are_counted(tmp_path: Path) -> None:
    """While nobody reads, sending never blocks; the next header says how many items were dropped."""
    endpoint = f"ipc://{tmp_path}/s"
    request = StartRequest(Synthetic(), WANTED, endpoint, "t", 0)
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.setsockopt(zmq.RCVHWM, 2)
        socket.bind(endpoint)
        with Sender(request) as sender:
            frame = Frame(0, np.zeros((480, 640, 3), np.uint8))  # 0.9 MB, too much for the kernel's buffers
            for _ in range(1000):  # if one blocked, it would do so until the test's time is over
                sender.send(frame)
            received, end_s = 0, time.monotonic() + DEADLINE_S
            while True:
                assert time.monotonic() < end_s
                if not socket.poll(500):
                    sender.send(None)  # its header comes after all frames that were not dropped
                    continue
                header, _ = unpacked(socket.recv_multipart())
                if header.kind == "alive":
                    break
                assert header.dropped <= 1000
                received += 1
            assert header.dropped == 1000 - received > 500


def test_it_starts_fast_and_without_torch(tmp_path: Path) -> None:
    """A worker loads no torch, and the first item of a source comes after little work."""
    names = ("process.worker", "file", "url", "synthetic", "process.supervisor")
    modules = ", ".join(f"perceiverd.sources.{name}" for name in names)
    subprocess.run([sys.executable, "-c", f"import sys, {modules}; assert 'torch' not in sys.modules"], check=True)
    with working(Synthetic(), tmp_path) as worker:
        worker.next()
        spent = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        assert sum(map(int, spent)) / os.sysconf("SC_CLK_TCK") < START_CPU_S


@pytest.mark.parametrize("text", [b"", b"{}\n"])
def test_without_a_request_it_exits(text: bytes) -> None:
    """Started by hand, it exits with an error instead of hanging."""
    done = subprocess.run(WORKER, input=text, capture_output=True, timeout=DEADLINE_S, check=False)
    assert done.returncode != 0
