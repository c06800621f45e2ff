"""Keeps the last seconds of a source at hand, and puts a picture or a clip of them on disk when it is asked to.

It lives in the source's process, on a thread of its own: a disk that is slow or hangs holds up neither the media nor
the daemon. What waits is bounded in time, in number and in bytes.
"""

from __future__ import annotations

import contextlib
import io
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from perceiverd.core.clock import now_ns
from perceiverd.core.media import NS_PER_S, Chunk, Media, StillFormat
from perceiverd.sources.snapshots.requests import SnapshotOptions, SnapshotRequest
from perceiverd.sources.snapshots.store import SnapshotStore

REACH_NS = 10 * NS_PER_S
"""An event is told when its window has been tagged, some seconds after it was to be seen; so much is kept for that."""
NEAR_NS = 2 * NS_PER_S
"""A picture that was taken longer before or after is none of that time: pictures had ceased to come."""
HELD_BYTES = 64_000_000
ASKED = 8
"""More that wait than this are refused: the disk hangs."""
PRUNE_S = 600.0
STILL_FPS, CLIP_FPS = 2.0, 5.0
"""Pictures a second that are kept at hand: each costs some milliseconds of a processor, so no more than serve."""
MILLI = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class BufferedPicture:
    """What is held of a frame: not the model's pixels, which nobody asks for again."""

    start_ns: int
    still: bytes = field(repr=False)
    """A JPEG."""


def stills_of(keep: SnapshotOptions) -> StillFormat:
    """What pictures a source should make for this."""
    return StillFormat(keep.longest_px, CLIP_FPS if keep.before_s or keep.after_s else STILL_FPS)


class Recorder:
    """Give it all media; ask it for pictures; look at `said`."""

    def __init__(self, keep: SnapshotOptions) -> None:
        self._keep, self._clips = keep, bool(keep.before_s or keep.after_s)
        self._album = SnapshotStore(Path(keep.directory), keep.max_age_s, keep.max_bytes)
        self._span_ns = REACH_NS + round((keep.before_s + keep.after_s) * NS_PER_S)
        self._held: deque[BufferedPicture | Chunk] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._asked: queue.Queue[SnapshotRequest] = queue.Queue(ASKED)
        self.said: deque[str] = deque(maxlen=64)
        """For each picture that was asked for: why there is none, or nothing where it is on disk."""
        # A daemon thread: it may hang on the disk, and the end of the process must not wait for that.
        threading.Thread(target=self._work, name="keeper", daemon=True).start()

    def see(self, item: Media) -> None:
        """Take note of what passes."""
        if isinstance(item, Chunk):
            held: BufferedPicture | Chunk | None = item if self._clips else None
        else:
            held = BufferedPicture(item.start_ns, item.still) if item.still else None
        if held is None:
            return
        with self._lock:
            self._held.append(held)
            self._bytes += _size(held)
            while self._held and (self._bytes > HELD_BYTES or self._held[0].start_ns < item.start_ns - self._span_ns):
                self._bytes -= _size(self._held.popleft())

    def ask(self, ask: SnapshotRequest) -> None:
        """Put what was to be seen then on disk, soon."""
        try:
            self._asked.put_nowait(ask)
        except queue.Full:
            self.said.append("the disk is too slow")

    def _work(self) -> None:
        prune_s = 0.0
        while True:
            if time.monotonic() >= prune_s:
                prune_s = time.monotonic() + PRUNE_S
                self._prune()
            try:
                ask = self._asked.get(timeout=PRUNE_S)
            except queue.Empty:
                continue
            try:
                self._save(ask)
            except (OSError, av.FFmpegError) as error:
                self.said.append(error.strerror or type(error).__name__)
            else:
                self.said.append("")
            self._prune()

    def _prune(self) -> None:
        with contextlib.suppress(OSError):  # a folder that can't be looked into can't be written to, which is told
            self._album.prune(time.time())

    def _save(self, ask: SnapshotRequest) -> None:
        with self._lock:
            pictures = [item for item in self._held if isinstance(item, BufferedPicture)]
        nearest = min(pictures, key=lambda each: abs(each.start_ns - ask.at_ns), default=None)
        if nearest is None:
            raise FileNotFoundError(0, "no picture has come lately")
        if abs(nearest.start_ns - ask.at_ns) > NEAR_NS:
            raise FileNotFoundError(0, "there is no picture of that time")
        self._album.add(f"{ask.name}.jpg", nearest.still)
        if self._clips:
            end_ns = ask.at_ns + round(self._keep.after_s * NS_PER_S)
            time.sleep(max(0.0, min(self._keep.after_s, (end_ns - now_ns()) / NS_PER_S)) + 0.5)
            with self._lock:
                held = tuple(self._held)
            begin_ns = ask.at_ns - round(self._keep.before_s * NS_PER_S)
            self._album.add(f"{ask.name}.mkv", clip([i for i in held if begin_ns <= i.start_ns <= end_ns]))


def clip(items: Iterable[BufferedPicture | Chunk]) -> bytes:
    """A film of these: its pictures as they are, and the sound of its chunks."""
    items = sorted(items, key=lambda each: each.start_ns)
    if not items:
        raise FileNotFoundError(0, "nothing has come lately")
    begin_ns = items[0].start_ns
    film, chunk = (
        next((i for i in items if isinstance(i, BufferedPicture)), None),
        next((i for i in items if isinstance(i, Chunk)), None),
    )
    body = io.BytesIO()
    with av.open(body, "w", format="matroska") as container:
        video = audio = None
        if film is not None:
            with av.open(io.BytesIO(film.still), "r", format="mjpeg") as still:
                size = still.streams.video[0]
                video = container.add_stream("mjpeg", rate=round(CLIP_FPS))
                video.width, video.height, video.pix_fmt = size.width, size.height, "yuvj420p"
                video.time_base = MILLI
        if chunk is not None:
            audio = container.add_stream("pcm_s16le", rate=chunk.rate_hz, layout="mono")
        for item in items:
            at_ms = (item.start_ns - begin_ns) // 1_000_000
            if isinstance(item, BufferedPicture) and video is not None:
                packet = av.Packet(item.still)
                packet.stream, packet.time_base, packet.pts, packet.dts = video, MILLI, at_ms, at_ms
                packet.is_keyframe = True
                container.mux(packet)
            elif isinstance(item, Chunk) and audio is not None:
                samples = np.round(item.samples * 32767).astype("<i2")
                packet = av.Packet(samples.tobytes())
                packet.stream, packet.time_base, packet.pts, packet.dts = audio, MILLI, at_ms, at_ms
                container.mux(packet)
    return body.getvalue()


def _size(item: BufferedPicture | Chunk) -> int:
    return len(item.still) if isinstance(item, BufferedPicture) else item.samples.nbytes
