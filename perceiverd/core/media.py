"""Frames and chunks of audio with their capture times, and the formats that a model needs. Knows no source."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NS_PER_S = 1_000_000_000
NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of a video stream."""

    start_ns: int
    """Capture time: CLOCK_MONOTONIC of a live source, otherwise the time within the file."""
    pixels: NDArray[np.uint8] = field(repr=False)
    """(height, width, 3), RGB, 0..255; (0, 0, 3) if no window needs it."""
    still: bytes | None = field(default=None, repr=False)
    """The same image as a JPEG in a size for people; only some frames have it, and only if snapshots are on."""

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(f"pixels must be uint8 (H, W, 3), not {self.pixels.dtype} {self.pixels.shape}")

    @classmethod
    def without_pixels(cls, start_ns: int) -> Frame:
        """A frame of which only the time matters: it shows that nothing is missing."""
        return cls(start_ns, NO_PIXELS)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A short piece of mono audio."""

    start_ns: int
    """Capture time of the first sample, on the clock of `Frame.start_ns`."""
    samples: NDArray[np.float32] = field(repr=False)
    """(samples,), -1..1."""
    rate_hz: int
    """Samples per second."""

    def __post_init__(self) -> None:
        if self.samples.dtype != np.float32 or self.samples.ndim != 1 or not self.samples.size:
            raise ValueError(f"samples must be float32 (S,), S > 0, not {self.samples.dtype} {self.samples.shape}")
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz must be positive, not {self.rate_hz}")

    @property
    def end_ns(self) -> int:
        """The time after the last sample."""
        return self.start_ns + len(self.samples) * NS_PER_S // self.rate_hz


Media = Frame | Chunk


def end_of(item: Media) -> int:
    """The time up to which an item brings its modality: the end of a chunk. A frame is a point in time."""
    return item.end_ns if isinstance(item, Chunk) else item.start_ns


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """The windows that are cut from a file: one every `hop_ns`, the first one where the media begin."""

    window_ns: int
    hop_ns: int
    ticks_ns: tuple[int, ...]
    """For when a window needs frames, from its start."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A device's clock, measured against CLOCK_MONOTONIC."""

    drift_ppm: float | None
    """How fast the device's clock runs, in parts per million (negative: slow); None until it is known."""
    jitter_ms: float
    """How late its readings are on average. The capture times of media do not contain this delay."""
    steps: int
    """Sudden steps so far, including `overflows`. Media after a step do not continue the media before it."""
    overflows: int = 0
    """How many times data was lost because this machine was too slow to read it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A source has no media yet, and this is no fault."""

    what_for: str
    """What it waits for: `a program that writes`."""


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """The frames that a model needs."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fps: float
    """The model's ticks per second. A source may send up to 4 frames per tick."""


@dataclass(frozen=True, slots=True)
class StillFormat:
    """The pictures for people: snapshots and clips of events."""

    longest_px: int
    """Largest length of the longer side, in pixels; larger pictures are scaled down."""
    fps: float
    """Pictures per second."""


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """What a source must deliver."""

    audio_rate_hz: int | None = None
    """None if the model uses no audio."""
    video: VideoFormat | None = None
    """None if the model uses no video."""
    stills: StillFormat | None = None
    """None if snapshots are off."""

    def __post_init__(self) -> None:
        if self.audio_rate_hz is None and self.video is None:
            raise ValueError("a model needs audio, video or both")
