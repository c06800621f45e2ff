"""Windows: the input of the model, cut from irregular frames and chunks on one time line.

The windower is pure: media in, windows out. It knows no clock, socket or file, and decides by media time alone. It cuts
a window as soon as every modality is decided (complete, or certain to be missing). It also cuts one when a modality is
`wait_ns` past the window's end and the other still has no media.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, WindowGrid, end_of
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.conceal import Span
from perceiverd.pipeline.joined import JoinedChunks
from perceiverd.pipeline.tracks import ChunkTrack, FrameTrack, pixels_of

MissingReason = Literal["no track", "hole", "late", "too far apart"]
"""Why a window lacks a modality: nothing of it has ever come; too much of it is missing, or its source has reported a
gap; it had not come in time; or the file stores it too far away from the other modality."""

TAIL = 16
"""A tail shorter than a window divided by this gets no window: codecs round a file's end up by some samples."""


@dataclass(frozen=True, slots=True)
class Skew:
    """How much later frames were captured than the audio beside them; negative if they were captured earlier."""

    mean_ns: int
    """Mean over the model's ticks."""
    most_ns: int
    """At the tick where it is furthest from 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One input of the model. A modality of which too much is missing is None, never zeros or black.

    Shorter holes are filled. Media that ends before it fills a single window is padded: see `Windower.flush`.
    """

    start_ns: int
    end_ns: int
    audio: NDArray[np.float32] | None = field(repr=False)
    """(samples,), -1..1, at the model's rate."""
    pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8] | None = field(repr=False)
    """The frames, each (height, width, 3), RGB, 0..255. A frame of two windows is the same object in both."""
    skew: Skew | None = None
    """By the capture times of both; None if one is missing or was padded."""
    holes_ns: Mapping[str, Sequence[Span]] = field(default_factory=dict, repr=False)
    """The media times of which a modality was missing and was filled, in order; only modalities with holes."""
    missing: Mapping[str, MissingReason] = field(default_factory=dict)
    """Why a modality of the model is None."""

    @classmethod
    def empty(cls, geometry: Geometry, modalities: Collection[str] = ("audio", "video")) -> Window:
        """A window of zeros in these modalities, as far as the model has them, to warm it up or to measure it."""
        audio = geometry.audio if "audio" in modalities else None
        video = geometry.video if "video" in modalities else None
        return cls(
            start_ns=0,
            end_ns=geometry.window_ns,
            audio=np.zeros(audio.samples, np.float32) if audio else None,
            pictures=np.zeros((video.frames, video.height, video.width, 3), np.uint8) if video else None,
        )

    @property
    def video(self) -> NDArray[np.uint8] | None:
        """(frames, height, width, 3): a copy of the pictures."""
        return None if self.pictures is None else np.stack(list(self.pictures))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that are present."""
        present = {"audio": self.audio is not None, "video": self.pictures is not None}
        return tuple(name for name, there in present.items() if there)

    @property
    def filled_ms(self) -> dict[str, float]:
        """How many milliseconds of a modality were filled; only modalities with holes."""
        return {name: round(sum(end - begin for begin, end in each) / 1e6, 3) for name, each in self.holes_ns.items()}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How irregular media may be."""

    wait_ns: int
    """How much longer one modality waits for the other before a window is cut without it."""
    chunk_gap_ns: int
    """The jitter of chunks: if two are at most this far apart there is no hole between them. They are joined without
    it, as long as no sample of a window is further than twice this from its time."""
    frame_gap_ns: int
    """Until so long after it a frame stands for the time after it."""
    conceal_ns: int = 0
    """The longest hole that is always filled. A modality with a longer hole is kept if `tracks.KEEP_SHARE` of it is
    present. 0 fills nothing: a modality with a hole is missing."""
    is_stored: bool = False
    """Whether the media comes from a file as fast as it can be read. Then nothing is late: what does not come in time
    is stored too far away."""


@dataclass(slots=True)
class Counts:
    """What happened to the media so far."""

    windows: int = 0
    late: int = 0
    """Frames and chunks that were ignored because the time line had passed them."""
    gaps: int = 0
    """Gaps in either modality, reported to `gap` or found in the times; the end of the media is no gap."""
    filled_ns: Mapping[str, int] = field(default_factory=dict)
    """Media time that was missing and filled, by modality. A hole counts once, even if several windows share it."""
    missing: Mapping[str, Mapping[MissingReason, int]] = field(default_factory=dict)
    """Windows without a modality, by modality and reason."""
    skipped: int = 0
    """Windows that were not cut, because nothing of any modality is there."""


class Windower:
    """Cuts windows of a model's length at any hop, on the grid `first media time + k * hop`.

    It holds no more media than one window, one hop and the tolerance need, even if one modality is missing.
    """

    def __init__(self, geometry: Geometry, hop_ns: int, tolerance: Tolerance) -> None:
        """Raises ValueError if the hop is not positive."""
        self._audio = ChunkTrack(geometry.audio, tolerance.chunk_gap_ns) if geometry.audio else None
        self._video = FrameTrack(geometry.video, tolerance.frame_gap_ns) if geometry.video else None
        self._tracks: list[ChunkTrack | FrameTrack] = [each for each in (self._audio, self._video) if each is not None]
        self.tune(hop_ns, tolerance)
        self._geometry, self._window_ns = geometry, geometry.window_ns
        self._first_ns: int | None = None
        self._next_ns = 0
        self._last_end_ns: int | None = None
        self._windows = self._skipped = 0
        self._filled_ns: Counter[str] = Counter()
        self._missing: dict[str, Counter[MissingReason]] = {}

    @property
    def counts(self) -> Counts:
        """What happened to the media so far."""
        late, gaps = sum(track.late for track in self._tracks), sum(track.gaps for track in self._tracks)
        return Counts(self._windows, late, gaps, self._filled_ns, self._missing, self._skipped)

    @property
    def hop_ns(self) -> int:
        """From the start of one window to the start of the next."""
        return self._hop_ns

    @property
    def grid(self) -> WindowGrid:
        """Where windows begin and which frames they need, as long as `tune` changes nothing."""
        return WindowGrid(self._window_ns, self._hop_ns, tuple(self._video.ticks_ns) if self._video else ())

    def tune(self, hop_ns: int, tolerance: Tolerance) -> None:
        """Change hop and tolerance. The next window starts where it would have started; the new hop counts from it."""
        if hop_ns <= 0:
            raise ValueError(f"hop_ns is positive, not {hop_ns}")
        self._hop_ns, self._tolerance = hop_ns, tolerance
        for track in self._tracks:
            track.conceal_ns = tolerance.conceal_ns
        if self._audio:
            self._audio.gap_ns = tolerance.chunk_gap_ns
        if self._video:
            self._video.gap_ns = tolerance.frame_gap_ns

    def push(self, item: Media) -> list[Window]:
        """Add a frame or chunk and return the windows that are due now. Each modality comes in the order of its times.

        Media of a modality that the model does not have is ignored. Raises ValueError for audio of another rate or
        frames of another size than the model's.
        """
        track = self._audio if isinstance(item, Chunk) else self._video
        if track is None:
            return []
        if self._first_ns is None or (self._last_end_ns is None and item.start_ns < self._first_ns):
            # Until the first window the time line may still begin earlier: containers interleave loosely.
            self._first_ns = self._next_ns = item.start_ns
        # If the hop is longer than a window, media between two windows is not late.
        unseen_ns = max(0, self._hop_ns - self._window_ns)
        if end_of(item) < self._next_ns - unseen_ns:
            track.late += 1
            return []
        if not track.add(item):  # type: ignore[arg-type]
            return []
        if end_of(item) < self._next_ns:
            self._forget()
        return list(self._due(self._tolerance.wait_ns))

    def gap(self, modality: str) -> None:
        """The next item of this modality ("audio", "video") does not follow on the last: its source was restarted."""
        track = self._audio if modality == "audio" else self._video
        if track is not None:
            track.mark_gap()

    def end(self, modality: str) -> None:
        """Nothing more of this modality ("audio", "video") comes: no window waits for it."""
        track = self._audio if modality == "audio" else self._video
        if track is not None:
            track.has_ended = True

    def flush(self) -> list[Window]:
        """The media has ended: the windows that are left.

        The last window ends where the media ends, off the grid, so that no long tail is lost. Media that never filled a
        window makes one window of the newest media: zeros around the audio, the last frame repeated. Its `end_ns` is
        the end of the media.
        """
        for track in self._tracks:
            track.has_ended = True
        windows = list(self._due(0))
        ends_ns = [track.end_ns for track in self._tracks if track.end_ns is not None]
        if not ends_ns:
            return windows
        end_ns = max(ends_ns)
        if self._last_end_ns is None:
            if only := self._only_window(end_ns):
                windows.append(self._counted(only))
        elif self._next_ns < end_ns and end_ns - self._last_end_ns > self._window_ns // TAIL:
            tail = self._cut(end_ns - self._window_ns)
            if tail.modalities:
                windows.append(self._counted(tail))
        return windows

    def _due(self, wait_ns: int) -> Iterator[Window]:
        while True:
            start_ns, end_ns = self._next_ns, self._next_ns + self._window_ns
            newest_ns = self._newest_ns
            waited = newest_ns >= end_ns + wait_ns
            if not waited and not (newest_ns >= end_ns and all(track.decided(start_ns) for track in self._tracks)):
                return
            window = self._cut(start_ns)
            if window.modalities:
                self._next_ns += self._hop_ns
                yield self._counted(window)
            else:
                hops = self._hops_to_media(start_ns)
                self._skipped += hops
                self._next_ns += self._hop_ns * hops
            self._forget()

    @property
    def _newest_ns(self) -> int:
        return max((track.end_ns for track in self._tracks if track.end_ns is not None), default=self._next_ns)

    def _forget(self) -> None:
        for track in self._tracks:
            # `flush` may still need the last window's length of media.
            track.forget(min(self._next_ns, self._newest_ns - self._window_ns))

    def _cut(self, start_ns: int) -> Window:
        chunks = self._audio.cut(start_ns) if self._audio else None
        frames = self._video.cut(start_ns) if self._video else None
        holes_ns = {"audio": chunks.holes_ns() if chunks else [], "video": frames.holes_ns if frames else []}
        return Window(
            start_ns,
            start_ns + self._window_ns,
            audio=chunks.samples() if chunks else None,
            pictures=pixels_of(frames.frames) if frames else None,
            skew=self._skew(chunks, frames.frames) if chunks and frames else None,
            holes_ns={modality: each for modality, each in holes_ns.items() if each},
            missing=self._reasons(start_ns, audio=chunks, video=frames),
        )

    def _reasons(self, start_ns: int, **found: object) -> dict[str, MissingReason]:
        """Why the modalities of the model that were not found are missing."""
        tracks = {"audio": self._audio, "video": self._video}
        return {name: self._reason(track, start_ns) for name, track in tracks.items() if track and not found[name]}

    def _reason(self, track: ChunkTrack | FrameTrack, start_ns: int) -> MissingReason:
        if track.end_ns is None and not track.late:
            return "no track"
        if track.decided(start_ns):
            return "hole"
        if not self._tolerance.is_stored:
            return "late"
        # A file's track that is behind may have ended. If anything of it comes too late, it has not.
        return "too far apart" if track.late else "hole"

    def _skew(self, chunks: JoinedChunks, frames: list[Frame]) -> Skew:
        audio = self._geometry.audio
        assert audio and self._video
        ticks_ns = np.array(self._video.ticks_ns, np.int64)
        # A tick at the very end of a window has no sample of its own.
        beside = (ticks_ns * audio.rate_hz // NS_PER_S).clip(0, audio.samples - 1)
        off_ns = np.array([frame.start_ns for frame in frames], np.int64) - chunks.captured_ns(beside)
        return Skew(round(off_ns.mean()), int(off_ns[np.abs(off_ns).argmax()]))

    def _only_window(self, end_ns: int) -> Window | None:
        """The one window of media that filled none on the grid."""
        start_ns = end_ns - self._window_ns
        if self._first_ns is not None and start_ns >= self._first_ns and (whole := self._cut(start_ns)).modalities:
            return whole
        begins_ns = [run[0].start_ns for track in self._tracks if (run := track.last_run())]
        # The window begins with the earlier of the two newest runs; if that is too long ago, with the later one.
        for begin_ns in (min(begins_ns), max(begins_ns)):
            if begin_ns > start_ns:
                # A picture alone has no end: it counts for the time from one tick to the next.
                tick_ns = 2 * self._video.ticks_ns[0] if self._video else 1
                return self._padded(begin_ns, end_ns if end_ns > begin_ns else begin_ns + tick_ns)
        return None

    def _padded(self, start_ns: int, end_ns: int) -> Window:
        chunks = self._audio.padded(start_ns) if self._audio else None
        frames = self._video.padded(start_ns) if self._video else None
        holes_ns = [(begin, min(end, end_ns)) for begin, end in (chunks.holes_ns() if chunks else []) if begin < end_ns]
        return Window(
            start_ns,
            end_ns,
            audio=chunks.padded() if chunks else None,
            pictures=pixels_of(frames) if frames else None,
            holes_ns={"audio": holes_ns} if holes_ns else {},
            missing=self._reasons(start_ns, audio=chunks, video=frames),
        )

    def _counted(self, window: Window) -> Window:
        self._windows += 1
        for modality, reason in window.missing.items():
            self._missing.setdefault(modality, Counter())[reason] += 1
        begin_ns = window.start_ns if self._last_end_ns is None else self._last_end_ns
        for modality, holes_ns in window.holes_ns.items():
            self._filled_ns[modality] += sum(max(0, end - max(begin, begin_ns)) for begin, end in holes_ns)
        self._last_end_ns = window.end_ns
        return window

    def _hops_to_media(self, start_ns: int) -> int:
        """How many hops lie before the next run: an hour's gap is one step, not thousands."""
        begins_ns = [at for track in self._tracks if (at := track.next_run_ns(start_ns, self._window_ns)) is not None]
        return max(1, -(-(min(begins_ns) - start_ns) // self._hop_ns)) if begins_ns else 1
