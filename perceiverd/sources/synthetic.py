"""A test source: moving colour bars, and each second a white flash and a beep that begin together.

All synthetic sources show the same world: flash and beep begin at whole seconds of CLOCK_MONOTONIC in each process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.clock import now_ns
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat
from perceiverd.sources.specs import Synthetic

TICKS_HZ = 25
TICK_NS = NS_PER_S // TICKS_HZ
MARK_S = 0.1
"""How long flash and beep last; they begin at each whole second."""
BEEP_HZ = 1000
BARS = np.array(
    [(255, 255, 0), (0, 255, 255), (0, 255, 0), (255, 0, 255), (255, 0, 0), (0, 0, 255), (40, 40, 40)], np.uint8
)


def media(spec: Synthetic, wanted: MediaFormat) -> Iterator[Media | None]:
    """Yield 25 frames and 25 chunks a second, stamped on CLOCK_MONOTONIC, for ever."""
    stills = None
    if wanted.stills:
        from perceiverd.sources.snapshots.jpeg import JpegEncoder  # FFmpeg takes a second to load; few streams need it

        stills = JpegEncoder(wanted.stills)
    video = wanted.video if spec.video else None
    rate_hz = wanted.audio_rate_hz if spec.audio else None
    tick = now_ns() // TICK_NS
    while True:
        # Like a device, we deliver what was captured during a tick when the tick is over.
        time.sleep(max(0, (tick + 1) * TICK_NS - now_ns()) / NS_PER_S)
        if video:
            pixels, start_ns = picture(tick, video.height, video.width), tick * TICK_NS
            still = stills.of_pixels(start_ns, pixels) if stills else None
            yield Frame(start_ns, pixels, still)
        if rate_hz:
            first, end = (n * rate_hz // TICKS_HZ for n in (tick, tick + 1))
            yield Chunk(first * NS_PER_S // rate_hz, sound(first, end, rate_hz), rate_hz)
        if not video and not rate_hz:
            yield None
        tick += 1


def picture(tick: int, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3): white during the flash, otherwise bars that move by one column a tick."""
    if tick % TICKS_HZ < MARK_S * TICKS_HZ:
        return np.full((height, width, 3), 255, np.uint8)
    columns = (np.arange(width) + tick) % width * len(BARS) // width
    return np.ascontiguousarray(np.broadcast_to(BARS[columns], (height, width, 3)))


def sound(first: int, end: int, rate_hz: int) -> NDArray[np.float32]:
    """Samples `first` to `end` since time 0: a beep at each whole second, otherwise a faint hiss."""
    n = np.arange(first, end)
    beep = np.where(n % rate_hz < MARK_S * rate_hz, 0.5 * np.sin(2 * np.pi * BEEP_HZ * n / rate_hz), 0.0)
    hiss = np.random.default_rng(first).uniform(-0.001, 0.001, len(n))
    samples: NDArray[np.float32] = (beep + hiss).astype(np.float32)
    return samples
