"""Clips as the daemon would get them, decoded once and kept on disk; any window of one can be cut at once.

They go through the very container reader and windower that files and cameras go through. What is kept depends on the
bytes of the file and on what the model wants of media, so that a second fit begins at once.
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
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.sources.decode import container
from perceiverd.training.finetune.manifest import ManifestRow

PATIENCE = replace(WindowConfig().tolerance, wait_ns=3600 * NS_PER_S)
"""All of a clip is there before a window of it is cut: nothing is waited for."""
FULL = 32_768
"""int16 of a sample of 1.0."""
SPARE_S = 0.5
"""A file that is no longer than a clip and this much is the clip, where its name leaves that open."""
FOREVER_NS = 2**62
AHEAD_NS = 10 * NS_PER_S
"""Sound and pictures may be written this far apart in a file."""
BLOCK_S = 0.1
"""Loudness is taken over such chunks."""

Pcm = NDArray[np.int16]
Pixels = NDArray[np.uint8]
Times = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DecodedClip:
    """One clip, decoded; time 0 is where it begins. Arrays may lie on disk: they are sliced, never copied whole."""

    rate_hz: int
    pcm: Any
    """(S,) int16, all chunks of sound one after the other."""
    chunks: Times
    """(C, 3): start_ns, first sample in `pcm`, samples. Kept as they came: containers round each one's time anew."""
    frames: Any
    """(F, H, W, 3) uint8."""
    times: Times
    """(F,) start_ns."""
    loudest: float
    """Root mean square of the loudest tenth of a second, 0..1."""

    @property
    def end_ns(self) -> int:
        """How far sound or pictures go."""
        sound = max((int(start + count * NS_PER_S // self.rate_hz) for start, _, count in self.chunks[-1:]), default=0)
        return max(sound, int(self.times[-1]) if len(self.times) else 0)

    def media(self, from_ns: int, to_ns: int) -> Iterator[Media]:
        """What begins in this time, sound first."""
        begin = max(0, int(np.searchsorted(self.chunks[:, 0], from_ns)) - 1)
        end = int(np.searchsorted(self.chunks[:, 0], to_ns))
        for start_ns, first, count in self.chunks[begin:end].tolist():
            skip = max(0, -(-(from_ns - start_ns) * self.rate_hz // NS_PER_S))
            stop = min(count, (to_ns - start_ns) * self.rate_hz // NS_PER_S)
            if skip < stop:
                samples = np.asarray(self.pcm[first + skip : first + stop], np.float32) / np.float32(FULL)
                yield Chunk(start_ns + skip * NS_PER_S // self.rate_hz, samples, self.rate_hz)
        first, last = np.searchsorted(self.times, [from_ns, to_ns])
        if first < last:
            pictures = np.asarray(self.frames[int(first) : int(last)])
            for time, pixels in zip(self.times[first:last].tolist(), pictures, strict=True):
                yield Frame(time, pixels)

    def window(self, geometry: Geometry, start_ns: int) -> Window | None:
        """The window nearest to this start; None where nothing is there. Of a short clip its only one."""
        length_ns = geometry.window_ns
        # The windower's grid begins where media begins, so it is given one window's length of what was before.
        found = _windows(geometry, length_ns, self.media(start_ns - length_ns, start_ns + length_ns))
        return min(found, key=lambda window: abs(window.start_ns - start_ns), default=None)

    def windows(self, geometry: Geometry, hop_ns: int) -> list[Window]:
        """All windows, as a file's are cut."""
        return _windows(geometry, hop_ns, self.media(-NS_PER_S, self.end_ns + NS_PER_S))


def _windows(geometry: Geometry, hop_ns: int, media: Iterator[Media]) -> list[Window]:
    windower = Windower(geometry, hop_ns, PATIENCE)
    return [window for item in media for window in windower.push(item)] + windower.flush()


class ClipCache:
    """Where decoded clips are kept: one file a clip, named by what it was made of."""

    def __init__(self, folder: Path, geometry: Geometry) -> None:
        """What differs in what it wants of media gets a folder of its own in `folder`."""
        self.wanted = geometry.media_format
        video = self.wanted.video
        sound = f"{self.wanted.audio_rate_hz}hz" if self.wanted.audio_rate_hz else ""
        sight = f"{video.width}x{video.height}-{video.fps:g}fps" if video else ""
        self.folder = folder / "-".join(filter(None, (sound, sight)))

    def fill(
        self, lines: Sequence[ManifestRow], threads: int, first: int = 0
    ) -> Iterator[tuple[ManifestRow, Path | MediaError]]:
        """Decode what isn't there yet; each line with its place or what is wrong with its file, in no certain order.

        A file is read once for all its clips. `first`: at which file to begin, so that processes that fill one shelf
        together do different work. Raises MediaError where the disk is full.
        """
        by_file: dict[Path, list[ManifestRow]] = defaultdict(list)
        for line in lines:
            by_file[line.file].append(line)
        files = list(by_file)
        order = files[first % len(files) :] + files[: first % len(files)] if files else []
        with ThreadPoolExecutor(threads) as pool:
            for found in pool.map(lambda file: self._fill(file, by_file[file]), order):
                yield from found

    def _fill(self, file: Path, lines: Sequence[ManifestRow]) -> list[tuple[ManifestRow, Path | MediaError]]:
        try:
            digest = _digest(file)
            places: dict[ManifestRow, Path | MediaError] = {line: self._place(digest, line) for line in lines}
            missing = [line for line, place in places.items() if isinstance(place, Path) and not place.exists()]
            for line, take in zip(missing, decode(file, missing, self.wanted) if missing else [], strict=True):
                if isinstance(take, DecodedClip):
                    _write(self._place(digest, line), take)
                else:
                    places[line] = take
        except ClipCacheError:
            raise
        except MediaError as error:
            return [(line, error) for line in lines]
        return list(places.items())

    def _place(self, digest: str, line: ManifestRow) -> Path:
        end = "end" if line.end_s is None else f"{line.end_s * 1000:.0f}"
        name = f"{digest[:32]}-{line.start_s * 1000:.0f}-{end}{'-cut' if line.cut else ''}.safetensors"
        return self.folder / digest[:2] / name


def find_overlap(learnt: Sequence[ManifestRow], held: Sequence[ManifestRow]) -> tuple[ManifestRow, ManifestRow] | None:
    """A clip that is learnt from and the held-out one that it shares media with, by the bytes of their files.

    Raises MediaError where a file can't be read. Only files of one size are read.
    """
    by_size: dict[int, set[Path]] = defaultdict(set)
    for line in (*learnt, *held):
        by_size[_size(line.file)].add(line.file)
    names = {file: _digest(file) if len(files) > 1 else str(file) for files in by_size.values() for file in files}
    by_name: dict[str, list[ManifestRow]] = defaultdict(list)
    for line in learnt:
        by_name[names[line.file]].append(line)
    for line in held:
        for other in by_name[names[line.file]]:
            if line.start_s < (other.end_s or math.inf) and other.start_s < (line.end_s or math.inf):
                return other, line
    return None


def load(path: Path) -> DecodedClip:
    """A clip from its shelf; pictures and sound stay on disk until they are asked for. Raises MediaError."""
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
        raise MediaError(f"{path}: is no decoded clip any more ({error}); delete it") from error


def decode(file: Path, lines: Sequence[ManifestRow], wanted: MediaFormat) -> list[DecodedClip | MediaError]:
    """The clips of one file, which is read once. Raises MediaError where it can't be read at all."""
    length_s = container.probe(file).duration_s or 0.0
    spans = [_span_ns(line, length_s) for line in lines]
    last_ns = max(end for _, end in spans)
    parts = [_Part(start, end, wanted.audio_rate_hz or 1) for start, end in spans]
    for item in container.read(file, wanted):
        if item.start_ns >= last_ns + AHEAD_NS:
            break
        for part in parts:
            part.add(item)
    return [part.take() or _nothing(file, line) for part, line in zip(parts, lines, strict=True)]


def _nothing(file: Path, line: ManifestRow) -> MediaError:
    end = "its end" if line.end_s is None else f"{line.end_s:g} s"
    return MediaError(f"{file}: nothing to hear or see from {line.start_s:g} s to {end}")


def _span_ns(line: ManifestRow, length_s: float) -> tuple[int, int]:
    if line.cut and line.end_s is not None and length_s <= line.end_s - line.start_s + SPARE_S:
        return 0, FOREVER_NS
    end_ns = FOREVER_NS if line.end_s is None else round(line.end_s * NS_PER_S)
    return round(line.start_s * NS_PER_S), end_ns


class _Part:
    """One clip as it is collected."""

    def __init__(self, start_ns: int, end_ns: int, rate_hz: int) -> None:
        # A codec may begin some samples before its file does: they belong to a clip from the beginning.
        self._first_ns = start_ns or -NS_PER_S
        self._start_ns, self._end_ns, self._rate_hz = start_ns, end_ns, rate_hz
        self._chunks: list[tuple[int, Pcm]] = []
        self._frames: list[Frame] = []

    def add(self, item: Media) -> None:
        if isinstance(item, Frame):
            if self._first_ns <= item.start_ns < self._end_ns:
                self._frames.append(Frame(item.start_ns - self._start_ns, item.pixels))
            return
        skip = max(0, -(-(self._first_ns - item.start_ns) * self._rate_hz // NS_PER_S))
        stop = min(len(item.samples), -(-(self._end_ns - item.start_ns) * self._rate_hz // NS_PER_S))
        if skip < stop:
            pcm = np.clip(np.rint(item.samples[skip:stop] * FULL), -FULL, FULL - 1).astype(np.int16)
            self._chunks.append((item.start_ns + skip * NS_PER_S // self._rate_hz - self._start_ns, pcm))

    def take(self) -> DecodedClip | None:
        """What was collected; None where that is nothing."""
        if not self._chunks and not self._frames:
            return None
        pcm = np.concatenate([pcm for _, pcm in self._chunks]) if self._chunks else np.zeros(0, np.int16)
        pixels = [frame.pixels for frame in self._frames]
        return DecodedClip(
            self._rate_hz,
            pcm,
            self._chunks_told(),
            np.stack(pixels) if pixels else np.zeros((0, 1, 1, 3), np.uint8),
            np.array([frame.start_ns for frame in self._frames], np.int64),
            _loudest(pcm, self._rate_hz),
        )

    def _chunks_told(self) -> Times:
        lengths = np.array([len(pcm) for _, pcm in self._chunks], np.int64)
        starts = np.array([start_ns for start_ns, _ in self._chunks], np.int64)
        return np.stack([starts, lengths.cumsum() - lengths, lengths], axis=1)


def peak_level(samples: NDArray[np.float32], rate_hz: int) -> float:
    """Root mean square of the loudest tenth of a second of sound, -1..1."""
    block = max(1, round(rate_hz * BLOCK_S))
    if not len(samples):
        return 0.0
    power = np.add.reduceat(np.square(samples, dtype=np.float64), np.arange(0, len(samples), block)) / block
    return float(np.sqrt(power.max()))


def _loudest(pcm: Pcm, rate_hz: int) -> float:
    return peak_level(pcm.astype(np.float32) / np.float32(FULL), rate_hz)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise MediaError(f"{file}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise MediaError(f"{file}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _write(path: Path, take: DecodedClip) -> None:
    """Several processes may write the same clip at once: each under a name of its own, and all the same bytes."""
    tensors: dict[str, NDArray[Any]] = {}
    if len(take.chunks):
        tensors |= {"pcm": take.pcm, "chunks": take.chunks}
    if len(take.times):
        tensors |= {"frames": take.frames, "times": take.times}
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, {"rate_hz": str(take.rate_hz), "loudest": f"{take.loudest:.9g}"})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise ClipCacheError(
            f"{path.parent}: decoded clips cannot be kept there ({error}); give another place"
        ) from error


class ClipCacheError(MediaError):
    """The place where clips are kept fails, not a clip."""
