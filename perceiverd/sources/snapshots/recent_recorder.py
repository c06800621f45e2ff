"""Holds the last sound of a source, and writes the stretches that the daemon asks for into a folder of recent sound.

It runs in the source's process, on a thread of its own. What it holds, queues and keeps on disk is bounded.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np

from perceiverd.core.clock import utc_ns
from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.sources.snapshots import recent
from perceiverd.sources.snapshots.requests import RecentOptions, SoundRequest
from perceiverd.sources.snapshots.sound import flac, joined
from perceiverd.sources.snapshots.store import SnapshotStore

HELD_NS = 60 * NS_PER_S
"""The daemon asks for a stretch some seconds after its end, and a stretch is at most 20 s long."""
HELD_BYTES = 16_000_000
QUEUED_REQUESTS = 8
"""We refuse requests beyond this: the disk hangs."""
GAP_NS = NS_PER_S // 20
"""A longer hole between two chunks ends a file: silence that nobody recorded must not be learnt."""
LEAST_NS = NS_PER_S // 2
"""Shorter stretches are not worth a file."""
PRUNE_S = 600.0
"""Between two searches for old sound of streams that are no longer watched."""


@dataclass(frozen=True, slots=True)
class RecentResult:
    """What became of a request."""

    fault: str = ""
    """Why nothing was written; empty if it was."""
    written_ms: int = 0


class RecentRecorder:
    """Gets all chunks with `add` and requests with `request`; puts the outcomes into `results`."""

    def __init__(self, options: RecentOptions) -> None:
        self._options = options
        self._folder = Path(options.folder)
        self._store = SnapshotStore(self._folder, options.max_age_s, options.max_bytes)
        self._held: deque[Chunk] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._requests: queue.Queue[SoundRequest] = queue.Queue(QUEUED_REQUESTS)
        self._kept: deque[tuple[Path, int, datetime]] = deque()
        """Path, bytes and end of each file of this stream, the oldest first. Only the thread uses it."""
        self.results: deque[RecentResult] = deque(maxlen=64)
        # A daemon thread: it may hang on the disk, and the end of the process must not wait for it.
        threading.Thread(target=self._work, name="recent-recorder", daemon=True).start()

    def add(self, chunk: Chunk) -> None:
        """Hold this chunk, and forget what is too old or too much."""
        with self._lock:
            self._held.append(chunk)
            self._bytes += chunk.samples.nbytes
            while self._bytes > HELD_BYTES or self._held[0].start_ns < chunk.start_ns - HELD_NS:
                self._bytes -= self._held.popleft().samples.nbytes

    def request(self, request: SoundRequest) -> None:
        """Write this stretch to disk, soon."""
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            self.results.append(RecentResult("the disk is too slow"))

    def _work(self) -> None:
        prune_s = 0.0
        with contextlib.suppress(OSError):  # a folder that cannot be read cannot be written either; `_save` reports it
            self._find_kept()
        while True:
            if time.monotonic() >= prune_s:
                prune_s = time.monotonic() + PRUNE_S
                self._prune()
                with contextlib.suppress(OSError):
                    self._prune_others()
            try:
                request = self._requests.get(timeout=PRUNE_S)
            except queue.Empty:
                continue
            try:
                written_ms = sum(self._save(run, request) for run in self._runs(request))
            except (OSError, av.FFmpegError) as error:
                self.results.append(RecentResult(error.strerror or type(error).__name__))
            else:
                self.results.append(RecentResult("", written_ms))
            self._prune()

    def _runs(self, request: SoundRequest) -> Iterator[list[Chunk]]:
        """The chunks of this time, parted at holes."""
        with self._lock:
            held = sorted(self._held, key=lambda chunk: chunk.start_ns)
        run: list[Chunk] = []
        for chunk in held:
            if chunk.end_ns <= request.begin_ns or chunk.start_ns >= request.end_ns:
                continue
            if run and (chunk.start_ns > run[-1].end_ns + GAP_NS or chunk.rate_hz != run[-1].rate_hz):
                yield run
                run = []
            run.append(chunk)
        if run:
            yield run

    def _save(self, run: Sequence[Chunk], request: SoundRequest) -> int:
        """Write one file; returns its length in ms, 0 if it would be too short."""
        begin_ns, end_ns = max(request.begin_ns, run[0].start_ns), min(request.end_ns, run[-1].end_ns)
        if end_ns - begin_ns < LEAST_NS:
            return 0
        samples = joined(run, begin_ns, end_ns)
        length_ms = min(round(len(samples) * 1000 / run[0].rate_hz), recent.LONGEST_MS)
        name = recent.name_of(utc_ns(begin_ns), length_ms)
        data = flac(np.ascontiguousarray(samples), run[0].rate_hz)
        self._store.add(name, data)
        found = recent.segment_of(self._folder / name)
        assert found
        self._kept.append((found.path, len(data), found.end))
        return length_ms

    def _find_kept(self) -> None:
        """What an earlier process has written. Parts of files that it could not complete are removed."""
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir()):
            if recent.PART.fullmatch(path.name):
                path.unlink(missing_ok=True)
            elif found := recent.segment_of(path):
                self._kept.append((path, path.stat().st_size, found.end))

    def _prune(self) -> None:
        """Remove what is too old or too much of this stream."""
        oldest = datetime.now(UTC).timestamp() - self._options.max_age_s
        total = sum(size for _, size, _ in self._kept)
        while self._kept and (total > self._options.max_bytes or self._kept[0][2].timestamp() < oldest):
            path, size, _ = self._kept[0]
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            self._kept.popleft()
            total -= size

    def _prune_others(self) -> None:
        """Remove old sound of other streams too: one that was removed from the configuration has no process."""
        oldest = datetime.now(UTC).timestamp() - self._options.max_age_s
        directory = Path(self._options.directory)
        for stream in recent.streams(directory):
            for each in recent.segments(directory, stream) if stream != self._options.stream else ():
                if each.end.timestamp() < oldest:
                    each.path.unlink(missing_ok=True)
