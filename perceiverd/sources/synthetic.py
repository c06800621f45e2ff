"""A test source: moving colour bars, and each second a white flash and a beep that begin together. Faults on demand."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray

from perceiverd.clock import now_ns
from perceiverd.media import NS_PER_S, Chunk, Frame, Media
from perceiverd.sources import Synthetic, Wanted
from perceiverd.sources.still import Stills

TICKS_HZ = 25
TICK_NS = NS_PER_S // TICKS_HZ
MARK_S = 0.1
"""How long flash and beep last; they begin at each whole second since the start."""
BEEP_HZ = 1000
BARS = np.array(
    [(255, 255, 0), (0, 255, 255), (0, 255, 0), (255, 0, 255), (255, 0, 0), (0, 0, 255), (40, 40, 40)], np.uint8
)


def media(spec: Synthetic, wanted: Wanted) -> Iterator[Media | None]:
    """Yield 25 pictures and 25 chunks a second, stamped on CLOCK_MONOTONIC, for ever."""
    begin_ns, tick = now_ns(), 0
    stills = Stills(wanted.stills) if wanted.stills else None
    video = wanted.video if spec.video else None
    rate_hz = wanted.audio_rate_hz if spec.audio else None
    while True:
        elapsed_s = tick / TICKS_HZ
        if spec.crash_after_s is not None and elapsed_s >= spec.crash_after_s:
            signal.raise_signal(signal.SIGKILL)  # like a crash, but leaves no core behind
        while spec.stall_after_s is not None and elapsed_s >= spec.stall_after_s:
            time.sleep(1)
        tick += 1
        # A device delivers what it has taken when the tick is over.
        time.sleep(max(0, begin_ns + tick * TICK_NS - now_ns()) / NS_PER_S)
        start_ns = begin_ns + (tick - 1) * TICK_NS
        if video:
            pixels = picture(tick - 1, video.height, video.width)
            still = stills.of(start_ns, VideoFrame.from_ndarray(pixels, "rgb24")) if stills else None
            yield Frame(start_ns, pixels, still)
        if rate_hz:
            first, end = (n * rate_hz // TICKS_HZ for n in (tick - 1, tick))
            yield Chunk(begin_ns + first * NS_PER_S // rate_hz, sound(first, end, rate_hz), rate_hz)
        if not video and not rate_hz:
            yield None


def picture(tick: int, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3): white during the flash, otherwise bars that move by one column a tick."""
    if tick % TICKS_HZ < MARK_S * TICKS_HZ:
        return np.full((height, width, 3), 255, np.uint8)
    columns = (np.arange(width) + tick) % width * len(BARS) // width
    return np.ascontiguousarray(np.broadcast_to(BARS[columns], (height, width, 3)))


def sound(first: int, end: int, rate_hz: int) -> NDArray[np.float32]:
    """Samples `first` to `end` since the start: a beep at each whole second, otherwise a faint hiss."""
    n = np.arange(first, end)
    beep = np.where(n % rate_hz < MARK_S * rate_hz, 0.5 * np.sin(2 * np.pi * BEEP_HZ * n / rate_hz), 0.0)
    hiss = np.random.default_rng(first).uniform(-0.001, 0.001, len(n))
    samples: NDArray[np.float32] = (beep + hiss).astype(np.float32)
    return samples
