"""What the loop measures, as values that another thread may read. Pure: it knows no socket, clock or format.

The loop counts in plain numbers. Once a second it leaves a `Snapshot` of them on a `Board`, in place of the one before;
whoever answers a question about the daemon looks there, and so needs no lock and never makes the loop wait.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUIETEST_DBFS = -120.0
"""What complete silence is given as, which has no level: 24-bit sound can't be quieter."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How many values were how large."""

    bounds: tuple[float, ...]
    """Upper bounds of the classes, ascending; the last class, above all of them, has none."""
    counts: tuple[int, ...]
    """One more than there are bounds."""
    total: float
    """The sum of all values."""

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds) + 1 or list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"{len(self.counts)} counts for the bounds {self.bounds}")


class Histogram:
    """Counts values by their size. Belongs to the thread that adds to it."""

    def __init__(self, *bounds: float) -> None:
        self._bounds, self._counts, self._total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def frozen(self) -> Distribution:
        return Distribution(self._bounds, tuple(self._counts), self._total)


def latencies() -> Histogram:
    """For seconds from capture to publishing: fine where labels are live, coarse where they are late."""
    return Histogram(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


def inferences() -> Histogram:
    """For seconds that a batch takes: from a GPU's few milliseconds to a small board's seconds."""
    return Histogram(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def level_dbfs(samples: NDArray[np.float32]) -> float:
    """The root mean square of samples (S,), -1..1, S > 0, in dB of full scale: 0 is a square wave at -1 and 1.

    QUIETEST_DBFS where they are quieter than that.
    """
    mean_square = float(np.dot(samples, samples)) / len(samples)
    return max(QUIETEST_DBFS, 10 * math.log10(mean_square)) if mean_square > 0 else QUIETEST_DBFS


@dataclass(frozen=True, slots=True)
class SourceReading:
    """How one source of a stream is."""

    state: str
    detail: str
    """Why it was last lost; empty where it never was."""
    data_ns: int | None
    """When its last frame or chunk came; None before the first."""
    restarts: Mapping[str, int]
    """How often it was started again, by reason."""
    dropped: int
    """Frames and chunks that found no room on their way."""
    stalls: tuple[str, ...] = ()
    """What of it comes and yet is nothing: `frozen picture`, `dead silence`."""
    drift_ppm: float | None = None
    """By how many millionths its device's clock runs fast; None where that isn't known."""
    jitter_s: float | None = None
    """How late its readings come on average; None where it isn't measured."""
    steps: int = 0
    """Sudden steps of its device's clock, and overflows."""
    overflows: int = 0
    """How often sound was lost because this machine was too slow to take it."""


@dataclass(frozen=True, slots=True)
class StreamReading:
    """How a stream is. Counts are since the stream began."""

    state: str
    """The worst of its sources' states; `ended` when all of them have."""
    sources: tuple[SourceReading, ...]
    """In the order of the configuration."""
    sent_ns: int | None
    """When the scores of a window were last sent; None before the first."""
    tagged: int
    dropped: int
    """Windows overtaken by newer ones."""
    late: int
    """Frames and chunks refused because their time had passed."""
    gaps: int
    """Times the stream's line was torn."""
    latency: Distribution
    """Seconds from the capture of a window's end to the publishing of its scores."""
    sound_dbfs: float | None
    """Level of the last window's sound; None where it had none."""
    events: Mapping[str, int]
    """How many began, by the names of their labels."""
    open: int
    """Events that go on."""
    suppressed: Mapping[str, int]
    """How often a label had no event, or none of its own, by reason."""
    hop_s: float | None = None
    """From one tagged window to the next lately: stretched where windows were dropped; None before the first."""
    skew_s: float | None = None
    """How much later the last window's pictures were taken than its sound, on average; None where one was missing."""
    skew_most_s: float | None = None
    """The same where it was furthest from 0."""


@dataclass(frozen=True, slots=True)
class TelemetryFrame:
    """How the daemon is at one moment."""

    version: str
    model: str
    sha256: str
    """Of the model's weights."""
    lately_ns: int
    """A stream that is well had a window sent no longer ago than this."""
    streams: Mapping[str, StreamReading]
    inference: Distribution
    """Seconds that the network took for a batch."""
    subscriptions: int
    subscribers: int
    """Those that report what they miss."""
    missed: int
    """Messages that subscribers have reported as missed."""
    overflows: int
    """Times that a subscriber's queue was found full."""
    refused: int
    """Times that a client's key was not on the list."""
    inference_cpu_s: float = 0.0
    """Processors' seconds that the network took, of all its threads."""
    suspends: int = 0
    """Times that the machine was suspended."""


class Telemetry:
    """Where the loop leaves word. Only the loop writes, and each attribute is replaced whole."""

    def __init__(self, now_ns: int) -> None:
        self.turned_ns = now_ns
        """When the loop last turned; until it turns for the first time, when the board was made."""
        self.snapshot: TelemetryFrame | None = None
        """None while the daemon is starting."""
