"""The process that decodes for `perceiverd tag`: `python -m perceiverd.offline.decoding_worker JOBS RESULTS`.

The arguments are the numbers of two pipes. It does one job after the other until the pipe of jobs closes. A crash
inside FFmpeg ends this process and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import msgspec

from perceiverd.core.errors import MediaError
from perceiverd.core.media import Frame, Media, WindowGrid
from perceiverd.offline.decoding_protocol import (
    GPU_LINES,
    LENGTHS,
    MEDIA,
    NOTICE,
    START,
    TIME,
    Alive,
    Ended,
    Job,
    Length,
    LogLine,
    Notice,
    Tracks,
)
from perceiverd.sources.decode import container
from perceiverd.sources.decode.decoders import DecodeCounts
from perceiverd.sources.decode.needed import needed
from perceiverd.sources.decode.opening import INDEX_LAST
from perceiverd.sources.decode.pipes import PipeReader
from perceiverd.sources.process.protocol import media_parts
from perceiverd.sources.specs import shown

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
OPEN_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
"""Time limits for URLs. The parent watches over files."""
BLOCK_S = 0.25
"""Nobody waits for audio of a file. Blocks of this length take half of the time that its packets take one by one."""
OOM_SCORE = "500"
"""If memory runs out, the kernel ends this process before its parent."""
INHERITED = re.compile(r"-|/dev/stdin|/(?:dev|proc/self)/fd/(\d+)")
"""Paths of what the shell has opened for us."""


class Results:
    """The pipe to the parent. It blocks while the parent has no time, so at most a pipe of data waits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, item: Media) -> None:
        """Send a frame or chunk."""
        if isinstance(item, Frame) and not item.pixels.size:
            self._write(TIME, START.pack(item.start_ns), b"")
            return
        self._write(MEDIA, *media_parts(item))

    def notify(self, notice: Notice) -> None:
        """Send anything else."""
        self._write(NOTICE, msgspec.json.encode(notice), b"")

    def _write(self, kind: bytes, head: bytes, data: bytes | memoryview) -> None:
        data = memoryview(data).cast("B")
        parts = [memoryview(LENGTHS.pack(kind, len(head), len(data)) + head), data]
        while parts:
            written = os.writev(self._descriptor, parts)
            while parts and written >= len(parts[0]):
                written -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][written:]


class _LogHandler(logging.Handler):
    """Sends log lines to the parent, which knows where they belong."""

    def __init__(self, results: Results) -> None:
        super().__init__(logging.WARNING)
        self._results = results

    def emit(self, record: logging.LogRecord) -> None:
        self._results.notify(LogLine(record.name, record.levelno, _clean(record.getMessage())))


def main(jobs: int, results: int) -> None:
    """Do the jobs that come through the pipe `jobs`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody reads any more
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    pipe = Results(results)
    logging.getLogger().addHandler(_LogHandler(pipe))
    with open(jobs, "rb") as lines:
        for line in lines:
            pipe.notify(Ended(error=_done(msgspec.json.decode(line, type=Job), pipe)))


def _done(job: Job, results: Results) -> str:
    """Do the job; why not all could be read, or an empty string."""
    try:
        counts = DecodeCounts()
        media = _media(job, results, counts)
        first = next(media, None)
        results.notify(Tracks(tuple(sorted(counts.modalities))))
        media = chain(() if first is None else (first,), media)
        grid = _grid(job)
        for item in needed(media, grid, counts.modalities) if grid else media:
            results.send(item)
    except MediaError as error:
        return str(error)
    except Exception as error:
        # Whatever PyAV raises for damage that it did not expect costs this file only.
        return str(MediaError(f"{_name(job)}: cannot be decoded ({type(error).__name__}: {error}); convert it again"))
    return ""


def _grid(job: Job) -> WindowGrid | None:
    """Where windows begin, for files. What comes live must not wait until it is known whether a window needs it."""
    return job.grid if job.kind == "file" else None


def _media(job: Job, results: Results, counts: DecodeCounts) -> Iterator[Media]:
    address = os.fsdecode(job.address)
    read = partial(
        container.read,
        wanted=job.wanted,
        use=job.use,
        log_track=True,
        counts=counts,
        raw=job.raw,
        threads=job.threads,
        block_s=BLOCK_S,
        lazy=_grid(job) is not None,
    )
    match job.kind:
        case "url":
            yield from read(address, open_timeout_s=OPEN_TIMEOUT_S, read_timeout_s=READ_TIMEOUT_S)
        case "pipe":
            with contextlib.closing(_opened(address, lambda: results.notify(Alive()))) as pipe:
                delivered = False
                try:
                    for item in read(pipe):
                        delivered = True
                        yield item
                except MediaError:
                    if delivered or not pipe.is_mp4_stream():
                        raise
                    raise MediaError(f"{pipe.name}: {INDEX_LAST}") from None
        case "file":
            lines = _send_length(job, results)
            hardware = job.decoder == "gpu" or (job.decoder == "auto" and lines >= GPU_LINES)
            yield from read(Path(address), hardware=hardware)


def _send_length(job: Job, results: Results) -> int:
    """Say how long the file is; the lines of its pictures, 0 if it has none."""
    with contextlib.suppress(MediaError):  # reported when the file is read
        found = container.inspect(Path(os.fsdecode(job.address)), job.raw)
        if found.duration_s:
            results.notify(Length(found.duration_s))
        return found.lines
    return 0


def _opened(path: str, waiting: Callable[[], None]) -> PipeReader:
    """Open standard input (`-`), an inherited descriptor (`/dev/fd/63`) or a FIFO. Raises MediaError."""
    name = _name_of_path(os.fsencode(path))
    try:
        # An inherited pipe must not be opened again: if its writer has left by then, its end would never be seen.
        if inherited := INHERITED.fullmatch(path):
            return PipeReader(os.dup(int(inherited[1] or 0)), name, waiting)
        # Without O_NONBLOCK, opening a FIFO would block until somebody writes into it, and look like a hang.
        return PipeReader(os.open(path, os.O_RDONLY | os.O_NONBLOCK), name, waiting)
    except OSError as error:
        raise MediaError(f"{name}: cannot be opened ({error.strerror}); check the path and its permissions") from None


def _name(job: Job) -> str:
    return shown(os.fsdecode(job.address)) if job.kind == "url" else _name_of_path(job.address)


def _name_of_path(path: bytes) -> str:
    return "standard input" if path == b"-" else path.decode(errors="replace")


def _clean(text: str) -> str:
    """The text without bytes that are no text: JSON has no place for them."""
    return text.encode(errors="replace").decode()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
    os._exit(0)
