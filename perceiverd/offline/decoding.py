"""Decodes files for `tag` in a worker process, so that a crash or hang inside FFmpeg costs only that file.

One worker does all files; a new one takes its place when it dies. At most a pipe of data waits between the two. It
knows no container and no model.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from perceiverd.core.errors import MediaError
from perceiverd.core.media import Frame, Media, MediaFormat, WindowGrid
from perceiverd.core.scheduler import all_waited_ns
from perceiverd.offline.decoding_protocol import (
    LENGTHS,
    MEDIA,
    START,
    TIME,
    Ended,
    Job,
    Length,
    LogLine,
    Notice,
    Tracks,
    VideoDecoderName,
)
from perceiverd.sources.process.protocol import unpacked
from perceiverd.sources.specs import MediaOptions, RawFormat, shown

WORKER = (sys.executable, "-P", "-m", "perceiverd.offline.decoding_worker")
"""`-P` keeps the current folder, where a file may be called like a module, out of the worker's imports."""
PIPE_BYTES = 1 << 20
"""What waits between worker and parent at most: a second of frames and audio."""
STEP_MS = 500
"""How often we look at a worker that sends nothing."""
HANG_S = 10.0
"""A worker hangs if for this long it has sent and read nothing, and has not waited for a disk or a core."""
SILENT_S = 120.0
"""A worker hangs in any case if it has sent nothing for this long."""
URL_SILENT_S = 60.0
"""The same for a URL: FFmpeg's own limits end it before."""
NETWORK_SHARE = 2
"""One core in so many is for decoding. The network needs the others, and FFmpeg's threads wait for each other: with two
of them, a film takes 10 to 20 % more CPU time."""
MOST_THREADS = 8
"""Each thread holds a frame or two, of 12 MB in 4K."""
STARTING = threading.Lock()
"""One worker starts at a time. Otherwise one would inherit the pipes of another, whose crash would then look like a
hang, because the pipe stays open."""


class Decoder:
    """A context manager. The worker starts with `start` or the first job, and is gone when it exits."""

    def __init__(
        self,
        wanted: MediaFormat,
        raw: RawFormat | None = None,
        hang_s: float = HANG_S,
        jobs: int = 1,
        video: VideoDecoderName = "cpu",
    ) -> None:
        """`raw` is the format of all files if they hold audio without a container; `jobs` decoders share the cores.

        `video`: who decodes the video of files. Without a GPU that can, the CPU does.
        """
        self._wanted, self._raw, self._hang_s, self._video = wanted, raw, hang_s, video
        cores = len(os.sched_getaffinity(0))
        self._threads = max(1, min(MOST_THREADS, cores // (NETWORK_SHARE * jobs)))
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs = self._results = -1
        self.on_length: Callable[[float], None] | None = None
        """Gets the seconds that a file says it has, if it says so."""
        self.length_s: float | None = None
        """The seconds that the current file says it has, if it says so; known with its first frame or chunk."""
        self.modalities: frozenset[str] = frozenset()
        """What the current file has of `audio` and `video`; known with its first frame or chunk."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def start(self) -> None:
        """Start the worker now: it loads FFmpeg while the caller loads the model."""
        if self._process is not None:
            return
        with STARTING:
            self._start()

    def _start(self) -> None:
        jobs, self._jobs = os.pipe()
        self._results, results = os.pipe()
        with contextlib.suppress(OSError):  # the user's pipes are many and large already
            fcntl.fcntl(results, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        for descriptor in (jobs, results):
            os.set_inheritable(descriptor, True)
        try:
            self._process = subprocess.Popen(
                [*WORKER, str(jobs), str(results)],
                stdin=None,  # `tag -` reads it
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what a library prints when it crashes; we report it in a line of our own
                close_fds=False,  # `<(...)` in a shell is an inherited descriptor
                process_group=0,  # Ctrl-C is for the parent alone, which ends the worker
            )
        finally:
            os.close(jobs)
            os.close(results)

    def interrupt(self) -> None:
        """End the worker now, from another thread: `read` then raises MediaError."""
        if self._process is not None:
            self._process.kill()

    def read(
        self,
        file: str,
        use: MediaOptions = MediaOptions(),  # noqa: B008 - frozen
        grid: WindowGrid | None = None,
    ) -> Iterator[Media]:
        """The frames and chunks of a file, URL, FIFO or of standard input (`-`), in the container's order.

        Frames of a file that no window of `grid` needs come without pixels; without one, all have them.
        Raises MediaError, after the media that could be read.
        """
        job = self._job(file, use, grid)
        self.start()
        self.length_s = None
        ended: Ended | None = None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has died already; reading its results shows that
                os.write(self._jobs, msgspec.json.encode(job) + b"\n")
            while ended is None:
                kind, head, data = self._message(job)
                if kind == MEDIA:
                    item = unpacked((head, data))[1]
                    assert isinstance(item, Media)
                    yield item
                    continue
                if kind == TIME:
                    yield Frame.without_pixels(*START.unpack(head))
                    continue
                match msgspec.json.decode(head, type=Notice):
                    case Length(seconds=seconds):
                        self.length_s = seconds
                        if self.on_length:
                            self.on_length(seconds)
                    case Tracks(modalities=modalities):
                        self.modalities = frozenset(modalities)
                    case LogLine() as line:
                        logging.getLogger(line.logger).log(line.level, "%s", line.text)
                    case Ended() as ended:
                        pass
        finally:
            if ended is None:  # the caller has lost interest, or the worker is not well
                self._stop()
        if ended.error:
            raise MediaError(ended.error)

    def _job(self, file: str, use: MediaOptions, grid: WindowGrid | None) -> Job:
        """Raises MediaError if standard input is a terminal."""
        if file == "-" and os.isatty(0):
            raise MediaError("standard input: is a terminal; write media into it, as in `cat FILE | perceiverd tag -`")
        address = os.fsencode(file)
        return Job(_kind(file), address, self._wanted, use, self._raw, self._threads, self._video, grid)

    def _message(self, job: Job) -> tuple[bytes, bytes, bytes]:
        """The next message: its kind and its two parts. Raises MediaError if the worker has died or hangs."""
        kind, head, data = LENGTHS.unpack(self._bytes(LENGTHS.size, job))
        return kind, self._bytes(head, job), self._bytes(data, job)

    def _bytes(self, count: int, job: Job) -> bytes:
        """Exactly this many bytes."""
        buffer = bytearray(count)
        rest = memoryview(buffer)
        while rest:
            self._wait(job)
            read = os.readv(self._results, [rest])
            if not read:
                raise MediaError(f"{_name(job)}: {self._cause()}")
            rest = rest[read:]
        return buffer  # type: ignore[return-value]  # nobody changes it

    def _wait(self, job: Job) -> None:
        """Wait for bytes of the worker. Raises MediaError if it hangs."""
        assert self._process
        ready = select.poll()
        ready.register(self._results, select.POLLIN)
        if ready.poll(0):  # as nearly always; then nobody needs to know what the worker does
            return
        # We count steps of waiting, not time: while Ctrl-Z stops us, time passes, and the worker is not to blame.
        # The first step only looks: most waits are shorter, and looking costs as much as a frame.
        idle_ms, silent_ms, waited_ms, seen = 0, 0, 0, object()
        most_s = URL_SILENT_S if job.kind == "url" else SILENT_S
        while not ready.poll(STEP_MS):
            silent_ms += STEP_MS
            before, seen = seen, _activity(self._process.pid)
            waited_before_ms, waited_ms = waited_ms, all_waited_ns(self._process.pid) // 1_000_000
            # What remains of the step if a busy machine kept the worker from its work.
            step_ms = max(0, STEP_MS - max(0, waited_ms - waited_before_ms))
            idle_ms = idle_ms + step_ms if seen == before and job.kind != "url" else 0
            if idle_ms >= self._hang_s * 1000 or silent_ms >= most_s * 1000:
                lasted_s = (idle_ms or silent_ms) / 1000
                raise MediaError(
                    f"{_name(job)}: FFmpeg hangs: no progress for {lasted_s:.0f} s; convert it with another program"
                )

    def _cause(self) -> str:
        """Why the worker has closed its pipe."""
        assert self._process
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "the process that decodes it was killed, probably because memory ran out; convert it to less memory"
        if status < 0:
            return f"FFmpeg crashed ({_signal_name(-status)}); convert it with another program"
        return f"the process that decodes it ended with status {status}; convert it with another program"

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        os.close(self._jobs)
        os.close(self._results)
        self._process = None


def shown_name(file: str) -> str:
    """What records call it: a URL without its password, and only characters that UTF-8 can encode."""
    return shown(file) if is_url(file) else os.fsencode(file).decode(errors="replace")


def is_url(file: str) -> bool:
    """Whether this is a URL, not a path."""
    return "://" in file


def _kind(file: str) -> Literal["file", "url", "pipe"]:
    if file == "-":
        return "pipe"
    if is_url(file):
        return "url"
    try:
        mode = Path(file).stat().st_mode
    except (OSError, ValueError):
        return "file"
    return "pipe" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else "file"


def _name(job: Job) -> str:
    file = os.fsdecode(job.address)
    return "standard input" if file == "-" else shown_name(file)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _activity(pid: int) -> object:
    """Something that changes whenever the process reads, or while it waits for a disk."""
    try:
        read = Path(f"/proc/{pid}/io").read_text().partition("rchar: ")[2].split()[0]
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (OSError, IndexError):
        return None
    return object() if state == "D" else read
