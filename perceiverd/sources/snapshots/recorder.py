"""Holds the last seconds of a source, and writes a snapshot or a clip of them to disk on request.

It runs in the source's process, on a thread of its own: a slow or hanging disk delays neither the media nor the daemon.
What it holds is bounded in time, number and bytes.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from pathlib import Path

import av

from perceiverd.core.clock import now_ns
from perceiverd.core.media import NS_PER_S, Chunk, Media, StillFormat
from perceiverd.sources.snapshots.clip import CLIP_FPS, Still, clip
from perceiverd.sources.snapshots.jpeg import JpegEncoder
from perceiverd.sources.snapshots.requests import SnapshotOptions, SnapshotRequest
from perceiverd.sources.snapshots.sound import flac, joined
from perceiverd.sources.snapshots.store import SnapshotStore

HELD_NS = 10 * NS_PER_S
"""An event is published when its window has been tagged, some seconds after it could be seen: we hold this much."""
NEAR_NS = 2 * NS_PER_S
"""A still further than this from the requested time does not show it: the video had stopped."""
HELD_BYTES = 64_000_000
QUEUED_REQUESTS = 8
"""We refuse requests beyond this: the disk hangs."""
PRUNE_S = 600.0
STILL_FPS = 2.0
"""Stills a second for snapshots alone; clips need CLIP_FPS. Each still costs some milliseconds of CPU time."""
CLIP_DELAY_S = 0.5
"""After the end of a clip we wait this much longer, for media that come late."""


def stills_of(options: SnapshotOptions) -> StillFormat:
    """The stills that a source must make for these options."""
    return StillFormat(options.longest_px, CLIP_FPS if options.has_clips else STILL_FPS)


class Recorder:
    """Gets all media with `add` and requests with `request`; puts the outcomes into `results`."""

    def __init__(self, options: SnapshotOptions) -> None:
        self._options = options
        self._store = SnapshotStore(Path(options.directory), options.max_age_s, options.max_bytes)
        self._span_ns = HELD_NS + round((options.before_s + options.after_s) * NS_PER_S)
        self._held: deque[Still | Chunk] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._requests: queue.Queue[SnapshotRequest] = queue.Queue(QUEUED_REQUESTS)
        self.results: deque[str] = deque(maxlen=64)
        """For each request: why there is no snapshot; empty if it is on disk."""
        # A daemon thread: it may hang on the disk, and the end of the process must not wait for it.
        threading.Thread(target=self._work, name="recorder", daemon=True).start()

    def add(self, item: Media) -> None:
        """Hold what snapshots need of this item, and forget what is too old or too much."""
        if isinstance(item, Chunk):
            held: Still | Chunk | None = item if self._options.has_clips else None
        else:
            held = Still(item.start_ns, item.still) if item.still else None
        if held is None:
            return
        with self._lock:
            self._held.append(held)
            self._bytes += _size(held)
            while self._held and (self._bytes > HELD_BYTES or self._held[0].start_ns < item.start_ns - self._span_ns):
                self._bytes -= _size(self._held.popleft())

    def request(self, request: SnapshotRequest) -> None:
        """Write a snapshot of this time to disk, soon."""
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            self.results.append("the disk is too slow")

    def _work(self) -> None:
        prune_s = 0.0
        while True:
            if time.monotonic() >= prune_s:
                prune_s = time.monotonic() + PRUNE_S
                self._prune()
            try:
                request = self._requests.get(timeout=PRUNE_S)
            except queue.Empty:
                continue
            try:
                self._save(request)
            except (OSError, av.FFmpegError) as error:
                self.results.append(error.strerror or type(error).__name__)
            else:
                self.results.append("")
            self._prune()

    def _prune(self) -> None:
        with contextlib.suppress(OSError):  # a folder that cannot be read cannot be written either; `_save` reports it
            self._store.prune(time.time())

    def _save(self, request: SnapshotRequest) -> None:
        if request.sound:
            self._save_sound(request)
            return
        with self._lock:
            stills = [item for item in self._held if isinstance(item, Still)]
        nearest = min(stills, key=lambda each: abs(each.start_ns - request.at_ns), default=None)
        if nearest is None:
            raise FileNotFoundError(0, "the source has sent no picture recently")
        if abs(nearest.start_ns - request.at_ns) > NEAR_NS:
            raise FileNotFoundError(0, "there is no picture of that time")
        self._store.add(f"{request.name}.jpg", nearest.jpeg)
        if self._options.has_clips:
            self._store.add(f"{request.name}.mkv", self._clip(request.at_ns))

    def _clip(self, at_ns: int) -> bytes:
        """The clip around this time; waits until its end has come."""
        begin_ns, end_ns, held = self._around(at_ns)
        return clip([item for item in held if begin_ns <= item.start_ns <= end_ns])

    def _save_sound(self, request: SnapshotRequest) -> None:
        """Write the sound around this time, and its spectrogram as the picture."""
        from perceiverd.sources.snapshots.spectrogram import spectrogram  # loads OpenCV, which only sound needs here

        begin_ns, end_ns, held = self._around(request.at_ns)
        chunks = [item for item in held if isinstance(item, Chunk)]
        samples = joined(chunks, begin_ns, end_ns)
        rate_hz = chunks[0].rate_hz
        begin_ns = max(begin_ns, chunks[0].start_ns)
        pixels = spectrogram(samples, rate_hz, (request.at_ns - begin_ns) / NS_PER_S)
        encoder = JpegEncoder(StillFormat(self._options.longest_px, STILL_FPS))
        if (picture := encoder.of_pixels(0, pixels)) is None:
            raise OSError(0, "the spectrogram cannot be encoded")
        self._store.add(f"{request.name}.flac", flac(samples, rate_hz))
        self._store.add(f"{request.name}.jpg", picture)

    def _around(self, at_ns: int) -> tuple[int, int, tuple[Still | Chunk, ...]]:
        """The begin and end of the clip around this time, and what is held once its end has come."""
        begin_ns = at_ns - round(self._options.before_s * NS_PER_S)
        end_ns = at_ns + round(self._options.after_s * NS_PER_S)
        wait_s = (end_ns - now_ns()) / NS_PER_S
        time.sleep(max(0.0, min(self._options.after_s, wait_s)) + CLIP_DELAY_S)
        with self._lock:
            return begin_ns, end_ns, tuple(self._held)


def _size(item: Still | Chunk) -> int:
    return len(item.jpeg) if isinstance(item, Still) else item.samples.nbytes
