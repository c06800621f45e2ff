"""What sources deliver: pictures and sound, each with the time at which it was taken, and how sure that time is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture."""

    start_ns: int
    """Capture time: CLOCK_MONOTONIC when live, time within the file offline."""
    pixels: NDArray[np.uint8] = field(repr=False)
    """(height, width, 3), RGB, 0..255."""
    still: bytes | None = field(default=None, repr=False)
    """The same as a person would want to see it, a JPEG; only now and then, and only where somebody asked for it."""

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(f"pixels are uint8 (H, W, 3), not {self.pixels.dtype} {self.pixels.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A stretch of mono sound."""

    start_ns: int
    """Capture time of the first sample, on the clock of `Frame.start_ns`."""
    samples: NDArray[np.float32] = field(repr=False)
    """(samples,), -1..1."""
    rate_hz: int

    def __post_init__(self) -> None:
        if self.samples.dtype != np.float32 or self.samples.ndim != 1 or not self.samples.size:
            raise ValueError(f"samples are float32 (S,), S > 0, not {self.samples.dtype} {self.samples.shape}")
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz is positive, not {self.rate_hz}")

    @property
    def end_ns(self) -> int:
        """The time just after the last sample."""
        return self.start_ns + len(self.samples) * NS_PER_S // self.rate_hz


Media = Frame | Chunk


@dataclass(frozen=True, slots=True)
class Timing:
    """What a source has found out about its device's clock against CLOCK_MONOTONIC."""

    drift_ppm: float | None
    """By how many millionths the device's clock runs fast (negative: slow); None until enough was seen of it."""
    jitter_ms: float
    """How late its readings come on average, in milliseconds; their lateness doesn't get into the times of media."""
    steps: int
    """Sudden steps found so far, `overflows` among them. What follows one does not belong to what was before."""
    overflows: int = 0
    """How often this machine was too slow to take what the device gave."""


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """What pictures a model wants."""

    height: int
    width: int
    fps: float
    """The model's ticks a second; sources may send up to 4 pictures a tick."""


@dataclass(frozen=True, slots=True)
class StillFormat:
    """What pictures people want beside it, to see what it was."""

    longest_px: int
    """Of the longer side; what is larger is shrunk."""
    fps: float


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """What a model, and who reads of it, wants of any source."""

    audio_rate_hz: int | None = None
    """None where the model hears nothing."""
    video: VideoFormat | None = None
    """None where the model sees nothing."""
    stills: StillFormat | None = None
    """None where nobody has asked for pictures."""

    def __post_init__(self) -> None:
        if self.audio_rate_hz is None and self.video is None:
            raise ValueError("a model wants audio, video or both")
