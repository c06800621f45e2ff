"""What the loop measures, as values that another thread may read. It knows no socket and no format.

The loop counts in plain numbers. Once a second it replaces the `TelemetryFrame` in `Telemetry`, where the HTTP thread
reads it. So that thread needs no lock, and the loop never waits for it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.model.engine import DeviceHealth
from perceiverd.wire.messages import Status

LOWEST_DBFS = -120.0
"""The level of complete silence, whose logarithm does not exist: 24-bit audio cannot be quieter."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How many values were how large."""

    bounds: tuple[float, ...]
    """Upper bounds of the classes, ascending. One more class, above all of them, has no bound."""
    counts: tuple[int, ...]
    """One for each class."""
    total: float
    """The sum of all values."""

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds) + 1 or list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"{len(self.counts)} counts for the bounds {self.bounds}")


class Histogram:
    """Counts values by their size. Only the thread that adds to it may use it."""

    def __init__(self, *bounds: float) -> None:
        self._bounds, self._counts, self._total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def frozen(self) -> Distribution:
        return Distribution(self._bounds, tuple(self._counts), self._total)


def latencies() -> Histogram:
    """For seconds from capture to publishing: fine steps for live labels, coarse ones for late labels."""
    return Histogram(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


def inferences() -> Histogram:
    """For seconds that a batch takes: from a GPU's few milliseconds to a small board's seconds."""
    return Histogram(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def level_dbfs(samples: NDArray[np.float32]) -> float:
    """The root mean square of samples (S,), -1..1, S > 0, in dB of full scale: 0 is a square wave at -1 and 1.

    LOWEST_DBFS if they are quieter than that.
    """
    mean_square = float(np.dot(samples, samples)) / len(samples)
    return max(LOWEST_DBFS, 10 * math.log10(mean_square)) if mean_square > 0 else LOWEST_DBFS


class LoopCounts:
    """What the loop counts for all streams together."""

    def __init__(self) -> None:
        self.inference = inferences()
        """Seconds that the network took for a batch."""
        self.inference_cpu_s = 0.0
        """CPU seconds that the network took, over all its threads."""
        self.suspends = 0
        """How often the machine was suspended."""

    def add_inference(self, seconds: float, cpu_s: float) -> None:
        """A batch took this long, from its start until its scores were there, and this CPU time of the process."""
        self.inference.add(seconds)
        self.inference_cpu_s += cpu_s


@dataclass(frozen=True, slots=True)
class Counters:
    """What metrics and probes need of a stream beside its `Status`. Counts are since the stream began."""

    sent_ns: int | None
    """When the scores of a window were last sent; None before the first."""
    latency: Distribution
    """Seconds from the capture of a window's end to the publishing of its scores."""
    events: Mapping[str, int]
    """How many events began, by label name."""
    events_open: int
    suppressed: Mapping[str, int]
    """How often a label had no event, or none of its own, by reason."""
    losses: tuple[str, ...]
    """What each source waits for or why it was last lost, in the order of the sources; empty if neither."""


@dataclass(frozen=True, slots=True)
class StreamTelemetry:
    """One stream at one moment."""

    status: Status
    """The same that subscribers receive."""
    counters: Counters


@dataclass(frozen=True, slots=True)
class TelemetryFrame:
    """The daemon at one moment."""

    at_ns: int
    """The moment, on CLOCK_MONOTONIC."""
    version: str
    model: str
    sha256: str
    """Of the model's weights."""
    recent_ns: int
    """A stream is well if its last window was sent no longer ago than this."""
    streams: Mapping[str, StreamTelemetry]
    inference: Distribution
    """Seconds that the network took for a batch."""
    inference_cpu_s: float
    """CPU seconds that the network took, over all its threads."""
    subscriptions: int
    subscribers: int
    """Those that report what they miss."""
    missed: int
    """Messages that subscribers have reported as missed."""
    overflows: int
    """How often a subscriber's queue was full."""
    refused: int
    """How often a client's key was not on the list."""
    suspends: int
    """How often the machine was suspended."""
    device: DeviceHealth | None = None
    """Of the GPU; None if the network runs on a CPU by choice."""


class Telemetry:
    """What the loop leaves for the HTTP thread. Only the loop writes, and it replaces each attribute as a whole."""

    def __init__(self, now_ns: int) -> None:
        self.turned_ns = now_ns
        """When the loop last turned; before its first turn, when this object was made."""
        self.frame: TelemetryFrame | None = None
        """None while the daemon starts."""
