"""A test source: moving colour bars, and each second a white flash and a beep that begin together. Faults on demand.

All of them show the same world: flash and beep begin at the whole seconds of CLOCK_MONOTONIC, whichever process asks.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.clock import now_ns
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, Timing
from perceiverd.sources.devices.clock_fit import ClockFit
from perceiverd.sources.specs import Synthetic

TICKS_HZ = 25
TICK_NS = NS_PER_S // TICKS_HZ
MARK_S = 0.1
"""How long flash and beep last; they begin at each whole second."""
BEEP_HZ = 1000
BARS = np.array(
    [(255, 255, 0), (0, 255, 255), (0, 255, 0), (255, 0, 255), (255, 0, 0), (0, 0, 255), (40, 40, 40)], np.uint8
)


STEP_NS = NS_PER_S // 2
TOLD_EVERY_NS = 5 * NS_PER_S


def media(spec: Synthetic, wanted: MediaFormat) -> Iterator[Media | Timing | None]:
    """Yield 25 pictures and 25 chunks a second, stamped on CLOCK_MONOTONIC, for ever."""
    ticks = _ticks(spec, wanted)
    yield from ticks if spec.step_after_s is None else _laid(ticks)


def _laid(items: Iterator[Media | None]) -> Iterator[Media | Timing | None]:
    """The same by a clock of which nothing is known, as a device's is."""
    line, held, told_ns = ClockFit(), list[Media](), now_ns()
    for item in items:
        if item is None:
            yield None
            continue
        at_ns = now_ns()
        if stepped := line.note(item.end_ns if isinstance(item, Chunk) else item.start_ns, at_ns):
            held.clear()  # which side of the step it was on can't be told
        held.append(item)
        if stepped or at_ns - told_ns >= TOLD_EVERY_NS:
            told_ns = at_ns
            yield line.timing
        if not line.suspect:
            yield from (replace(each, start_ns=line.at(each.start_ns)) for each in held)
            held.clear()


def _ticks(spec: Synthetic, wanted: MediaFormat) -> Iterator[Media | None]:
    begin = tick = now_ns() // TICK_NS
    stills = None
    if wanted.stills:
        from perceiverd.sources.snapshots.jpeg import JpegEncoder  # FFmpeg takes a second to load, and few ask for it

        stills = JpegEncoder(wanted.stills)
    video = wanted.video if spec.video else None
    rate_hz = wanted.audio_rate_hz if spec.audio else None
    while True:
        elapsed_s = (tick - begin) / TICKS_HZ
        if spec.crash_after_s is not None and elapsed_s >= spec.crash_after_s:
            signal.raise_signal(signal.SIGKILL)  # like a crash, but leaves no core behind
        while spec.stall_after_s is not None and elapsed_s >= spec.stall_after_s:
            time.sleep(1)
        tick += 1
        # A device delivers what it has taken when the tick is over.
        lost_ns = STEP_NS if spec.step_after_s is not None and elapsed_s >= spec.step_after_s else 0
        time.sleep(max(0, lost_ns + tick * TICK_NS - now_ns()) / NS_PER_S)
        if video:
            last = tick - 1 if spec.freeze_after_s is None else begin + round(spec.freeze_after_s * TICKS_HZ)
            pixels = picture(min(tick - 1, last), video.height, video.width)
            start_ns = (tick - 1) * TICK_NS
            still = stills.of_pixels(start_ns, pixels) if stills else None
            yield Frame(start_ns, pixels, still)
        if rate_hz:
            first, end = (n * rate_hz // TICKS_HZ for n in (tick - 1, tick))
            mute = spec.mute_after_s is not None and elapsed_s >= spec.mute_after_s
            heard = np.zeros(end - first, np.float32) if mute else sound(first, end, rate_hz)
            yield Chunk(first * NS_PER_S // rate_hz, heard, rate_hz)
        if not video and not rate_hz:
            yield None


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
