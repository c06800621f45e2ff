"""Decoded clips on disk, from which any window can be cut at once.

Clips go through the same container reader and windower as files and cameras in the daemon. A clip's key is made of
the bytes of its file and the model's media format, so that a second fit decodes nothing.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from perceiverd.config import WindowConfig
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat
from perceiverd.evaluation.manifest import ManifestRow
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.sources.decode import container

TOLERANCE = replace(WindowConfig().tolerance, wait_ns=3600 * NS_PER_S)
"""A whole clip is pushed before a window is cut without one modality."""
MIX = "mix2"
"""The version of the downmix, in the folder's name: clips that an older one mixed are decoded again."""
FULL_SCALE = 32_768
"""The int16 value of a sample of 1.0."""
SPARE_S = 0.5
"""If a file's name leaves it open, a file at most this much longer than its clip counts as the clip itself."""
FOREVER_NS = 2**62
AHEAD_NS = 10 * NS_PER_S
"""The most by which audio and video may be apart in a file."""
BLOCK_S = 0.1
"""Loudness is measured over blocks of this length."""

Pcm = NDArray[np.int16]
Times = NDArray[np.int64]


class ClipCacheError(MediaError):
    """The cache folder cannot be written. The clip is not at fault."""


@dataclass(frozen=True, eq=False)
class DecodedClip:
    """One clip; time 0 is its start. Arrays may lie on disk: they are sliced, never loaded whole."""

    rate_hz: int
    pcm: Any
    """(S,) int16, all audio chunks one after the other."""
    chunks: Times
    """(C, 3): start_ns, first sample in `pcm`, samples. Containers round the time of each chunk, so all are kept."""
    frames: Any
    """(F, H, W, 3) uint8."""
    times: Times
    """(F,) start_ns."""
    loudest: float
    """Root mean square of the loudest block, 0..1."""

    @property
    def end_ns(self) -> int:
        """The end of the last chunk, or the start of the last frame if that is later."""
        audio = max((int(start + count * NS_PER_S // self.rate_hz) for start, _, count in self.chunks[-1:]), default=0)
        return max(audio, int(self.times[-1]) if len(self.times) else 0)

    def media(self, from_ns: int, to_ns: int) -> Iterator[Media]:
        """The chunks, then the frames, that start in this time."""
        begin = max(0, int(np.searchsorted(self.chunks[:, 0], from_ns)) - 1)
        end = int(np.searchsorted(self.chunks[:, 0], to_ns))
        for start_ns, first, count in self.chunks[begin:end].tolist():
            skip = max(0, -(-(from_ns - start_ns) * self.rate_hz // NS_PER_S))
            stop = min(count, (to_ns - start_ns) * self.rate_hz // NS_PER_S)
            if skip < stop:
                samples = np.asarray(self.pcm[first + skip : first + stop], np.float32) / np.float32(FULL_SCALE)
                yield Chunk(start_ns + skip * NS_PER_S // self.rate_hz, samples, self.rate_hz)
        first, last = np.searchsorted(self.times, [from_ns, to_ns])
        if first < last:
            frames = np.asarray(self.frames[int(first) : int(last)])
            for time_ns, pixels in zip(self.times[first:last].tolist(), frames, strict=True):
                yield Frame(time_ns, pixels)

    def window(self, geometry: Geometry, start_ns: int) -> Window | None:
        """The window whose start is nearest to `start_ns`; None if no media is there. A short clip has one window."""
        length_ns = geometry.window_ns
        # The windower's grid starts where media starts, so it also gets the window length before `start_ns`.
        found = _windows(geometry, length_ns, self.media(start_ns - length_ns, start_ns + length_ns))
        return min(found, key=lambda window: abs(window.start_ns - start_ns), default=None)

    def windows(self, geometry: Geometry, hop_ns: int) -> list[Window]:
        """All windows, as the offline tagger cuts them from a file."""
        return _windows(geometry, hop_ns, self.media(-NS_PER_S, self.end_ns + NS_PER_S))


def _windows(geometry: Geometry, hop_ns: int, media: Iterator[Media]) -> list[Window]:
    windower = Windower(geometry, hop_ns, TOLERANCE)
    return [window for item in media for window in windower.push(item)] + windower.flush()


class ClipCache:
    """The folder of decoded clips, one file per clip."""

    def __init__(self, folder: Path, geometry: Geometry) -> None:
        """Each media format has its own folder in `folder`."""
        self.media_format = geometry.media_format
        video, rate_hz = self.media_format.video, self.media_format.audio_rate_hz
        audio_part = f"{rate_hz}hz-{MIX}" if rate_hz else ""
        video_part = f"{video.width}x{video.height}-{video.fps:g}fps" if video else ""
        self.folder = folder / "-".join(filter(None, (audio_part, video_part)))

    def fill(
        self, rows: Sequence[ManifestRow], threads: int, first: int = 0
    ) -> Iterator[tuple[ManifestRow, Path | MediaError]]:
        """Decode the missing clips. Gives each row with its file in the cache, or with the fault, in any order.

        A file is read once for all its clips. `first`: the file to start at, so that processes that fill one cache
        together start at different files. Raises ClipCacheError if the cache cannot be written.
        """
        by_file: dict[Path, list[ManifestRow]] = defaultdict(list)
        for row in rows:
            by_file[row.file].append(row)
        files = list(by_file)
        order = files[first % len(files) :] + files[: first % len(files)] if files else []
        with ThreadPoolExecutor(threads) as pool:
            for found in pool.map(lambda file: self._fill(file, by_file[file]), order):
                yield from found

    def _fill(self, file: Path, rows: Sequence[ManifestRow]) -> list[tuple[ManifestRow, Path | MediaError]]:
        try:
            digest = _digest(file)
            places: dict[ManifestRow, Path | MediaError] = {row: self._place(digest, row) for row in rows}
            missing = [row for row, place in places.items() if isinstance(place, Path) and not place.exists()]
            clips = decode(file, missing, self.media_format) if missing else []
            for row, clip in zip(missing, clips, strict=True):
                if isinstance(clip, DecodedClip):
                    _write(self._place(digest, row), clip)
                else:
                    places[row] = clip
        except ClipCacheError:
            raise
        except MediaError as error:
            return [(row, error) for row in rows]
        return list(places.items())

    def _place(self, digest: str, row: ManifestRow) -> Path:
        end = "end" if row.end_s is None else f"{row.end_s * 1000:.0f}"
        name = f"{digest[:32]}-{row.start_s * 1000:.0f}-{end}{'-cut' if row.cut else ''}.safetensors"
        return self.folder / digest[:2] / name


def find_overlap(
    trained: Sequence[ManifestRow], held_out: Sequence[ManifestRow]
) -> tuple[ManifestRow, ManifestRow] | None:
    """A clip to train on and a held-out clip that have a stretch of the same file in common; None if no two have.

    Files are the same if their bytes are. Only files of equal size are read. Raises MediaError if one is unreadable.
    """
    by_size: dict[int, set[Path]] = defaultdict(set)
    for row in (*trained, *held_out):
        by_size[_size(row.file)].add(row.file)
    names = {file: _digest(file) if len(files) > 1 else str(file) for files in by_size.values() for file in files}
    by_name: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in trained:
        by_name[names[row.file]].append(row)
    for row in held_out:
        for other in by_name[names[row.file]]:
            if row.start_s < (other.end_s or math.inf) and other.start_s < (row.end_s or math.inf):
                return other, row
    return None


def load(path: Path) -> DecodedClip:
    """Open a clip in the cache. Audio and frames stay on disk until they are sliced. Raises MediaError."""
    try:
        with safe_open(path, "numpy") as file:
            names = set(file.keys())
            meta = file.metadata()
            return DecodedClip(
                rate_hz=int(meta["rate_hz"]),
                pcm=file.get_slice("pcm") if "pcm" in names else np.zeros(0, np.int16),
                chunks=file.get_tensor("chunks") if "chunks" in names else np.zeros((0, 3), np.int64),
                frames=file.get_slice("frames") if "frames" in names else np.zeros((0, 1, 1, 3), np.uint8),
                times=file.get_tensor("times") if "times" in names else np.zeros(0, np.int64),
                loudest=float(meta["loudest"]),
            )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise MediaError(f"{path}: the decoded clip is damaged ({error}); delete it") from error


def decode(file: Path, rows: Sequence[ManifestRow], media_format: MediaFormat) -> list[DecodedClip | MediaError]:
    """The clips of one file, which is read once. Raises MediaError if it cannot be read at all."""
    length_s = container.inspect(file).estimate_s or 0.0
    spans = [_span_ns(row, length_s) for row in rows]
    last_ns = max(end for _, end in spans)
    collectors = [_Collector(start, end, media_format.audio_rate_hz or 1) for start, end in spans]
    for item in container.read(file, media_format):
        if item.start_ns >= last_ns + AHEAD_NS:
            break
        for collector in collectors:
            collector.add(item)
    return [collector.clip() or _empty(file, row) for collector, row in zip(collectors, rows, strict=True)]


def _empty(file: Path, row: ManifestRow) -> MediaError:
    end = "its end" if row.end_s is None else f"{row.end_s:g} s"
    return MediaError(f"{file}: has no audio or video from {row.start_s:g} s to {end}")


def _span_ns(row: ManifestRow, length_s: float) -> tuple[int, int]:
    if row.cut and row.end_s is not None and length_s <= row.end_s - row.start_s + SPARE_S:
        return 0, FOREVER_NS
    end_ns = FOREVER_NS if row.end_s is None else round(row.end_s * NS_PER_S)
    return round(row.start_s * NS_PER_S), end_ns


class _Collector:
    """Collects the media of one clip."""

    def __init__(self, start_ns: int, end_ns: int, rate_hz: int) -> None:
        # A codec may start some samples before time 0. A clip that starts at 0 includes them.
        self._first_ns = start_ns or -NS_PER_S
        self._start_ns, self._end_ns, self._rate_hz = start_ns, end_ns, rate_hz
        self._chunks: list[tuple[int, Pcm]] = []
        self._frames: list[Frame] = []

    def add(self, item: Media) -> None:
        """Add the part of a frame or chunk that lies in the clip."""
        if isinstance(item, Frame):
            if self._first_ns <= item.start_ns < self._end_ns:
                self._frames.append(Frame(item.start_ns - self._start_ns, item.pixels))
            return
        skip = max(0, -(-(self._first_ns - item.start_ns) * self._rate_hz // NS_PER_S))
        stop = min(len(item.samples), -(-(self._end_ns - item.start_ns) * self._rate_hz // NS_PER_S))
        if skip < stop:
            pcm = np.clip(np.rint(item.samples[skip:stop] * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
            self._chunks.append((item.start_ns + skip * NS_PER_S // self._rate_hz - self._start_ns, pcm))

    def clip(self) -> DecodedClip | None:
        """The clip; None if it has no media."""
        if not self._chunks and not self._frames:
            return None
        pcm = np.concatenate([pcm for _, pcm in self._chunks]) if self._chunks else np.zeros(0, np.int16)
        pixels = [frame.pixels for frame in self._frames]
        return DecodedClip(
            self._rate_hz,
            pcm,
            self._chunk_table(),
            np.stack(pixels) if pixels else np.zeros((0, 1, 1, 3), np.uint8),
            np.array([frame.start_ns for frame in self._frames], np.int64),
            peak_level(pcm.astype(np.float32) / np.float32(FULL_SCALE), self._rate_hz),
        )

    def _chunk_table(self) -> Times:
        lengths = np.array([len(pcm) for _, pcm in self._chunks], np.int64)
        starts = np.array([start_ns for start_ns, _ in self._chunks], np.int64)
        return np.stack([starts, lengths.cumsum() - lengths, lengths], axis=1)


def peak_level(samples: NDArray[np.float32], rate_hz: int) -> float:
    """Root mean square of the loudest tenth of a second of samples in -1..1."""
    block = max(1, round(rate_hz * BLOCK_S))
    if not len(samples):
        return 0.0
    power = np.add.reduceat(np.square(samples, dtype=np.float64), np.arange(0, len(samples), block)) / block
    return float(np.sqrt(power.max()))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise _unreadable(file, error) from error


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> MediaError:
    return MediaError(f"{file}: cannot be read ({error.strerror}); check the path and its permissions")


def _write(path: Path, clip: DecodedClip) -> None:
    """Write a clip atomically. Several processes may write the same bytes at once, each under its own partial name."""
    tensors: dict[str, NDArray[Any]] = {}
    if len(clip.chunks):
        tensors |= {"pcm": clip.pcm, "chunks": clip.chunks}
    if len(clip.times):
        tensors |= {"frames": clip.frames, "times": clip.times}
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, {"rate_hz": str(clip.rate_hz), "loudest": f"{clip.loudest:.9g}"})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise ClipCacheError(
            f"{path.parent}: cannot write decoded clips ({error}); give another folder with --cache"
        ) from error
