"""Audio and video stay together: a day of simulated device clocks through clock fit and windower."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from perceiverd.core.media import NS_PER_S, Chunk, Frame
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.pipeline.windower import Tolerance, Window, Windower
from perceiverd.sources.devices.clock_fit import ClockFit
from perceiverd.sources.live import SenderClock

MS = NS_PER_S // 1000
DAY_S = 24 * 3600
BOUND_NS = 40 * MS
"""Audio and video of one moment stay within one frame of 25 a second."""
RATE_HZ = 1000
MODULO_MS = 1 << 16
"""Samples have their own true time in milliseconds, modulo this: a float32 cannot hold more."""
GEOMETRY = Geometry(
    classes=2,
    trunk=Trunk(latents=3, width=8, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=RATE_HZ, samples=1000, form="raw", patch=(100,), bands=2),
    video=Video(frames=5, fps=5, height=2, width=4, patch=(1, 2, 4), bands=2),
)


@dataclass(frozen=True)
class Device:
    """A device whose clock drifts and steps, and whose readings are late at random. Its true times are known."""

    ppm: float
    period_ms: int
    """From one frame, or chunk, to the next."""
    jitter_ms: float
    """Mean of the exponential lateness of its readings. One in 1000 is later by another 100 to 600 ms."""
    steps: tuple[tuple[float, int], ...] = ()
    """(second, milliseconds): a positive time was lost and not counted; a negative one was counted and did not pass."""
    seed: int = 0

    def taken(self, seconds: float) -> Iterator[tuple[int, int, int]]:
        """(end on our clock, the device's clock at that time, arrival), in nanoseconds, in order."""
        chance, steps = random.Random(self.seed), list(self.steps)
        device_ns, ahead_ns, last_ns = 5_000 * NS_PER_S, 0, 0
        rate = 1 + self.ppm * 1e-6
        while True:
            device_ns += self.period_ms * MS
            true_ns = round((device_ns - 5_000 * NS_PER_S + ahead_ns) / rate)
            if steps and true_ns >= steps[0][0] * NS_PER_S:
                by_ns = steps.pop(0)[1] * MS
                ahead_ns += by_ns
                if by_ns < 0:
                    device_ns -= by_ns
                true_ns += max(0, by_ns)
            if true_ns >= seconds * NS_PER_S:
                return
            late_ms = chance.expovariate(1 / self.jitter_ms)
            late_ms += chance.uniform(100, 600) if chance.random() < 0.001 else 0
            last_ns = max(last_ns, true_ns + round(late_ms * MS))
            yield true_ns, device_ns, last_ns


Item = tuple[int, int, Frame | Chunk | None]
"""Arrival, a number, and the media; None for a step."""


def frame(true_ns: int, start_ns: int, _: Device) -> Frame:
    """A frame that has its own true time in its pixels."""
    pixels = np.zeros(24, np.uint8)
    pixels[:8] = np.frombuffer(np.int64(true_ns).tobytes(), np.uint8)
    return Frame(start_ns, pixels.reshape(2, 4, 3))


def chunk(true_ns: int, start_ns: int, device: Device) -> Chunk:
    """Samples that are their own true times; the last one ends at `true_ns`."""
    n = np.arange(device.period_ms) - device.period_ms
    times_ms = true_ns / MS + n / (1 + device.ppm * 1e-6)
    return Chunk(start_ns, (times_ms % MODULO_MS).astype(np.float32), RATE_HZ)


def fitted(device: Device, seconds: float, made: Callable[[int, int, Device], Frame | Chunk]) -> Iterator[Item]:
    """The media of a source that fits its device's clock, and holds media back while a step is suspected."""
    clock, held = ClockFit(), list[tuple[int, int]]()
    for number, (true_ns, device_ns, at_ns) in enumerate(device.taken(seconds)):
        if clock.add(device_ns, at_ns):
            held.clear()
            yield at_ns, number, None
        held.append((true_ns, device_ns))
        if not clock.suspect:
            for true, reading_ns in held:
                start_ns = clock.at(reading_ns - device.period_ms * MS) if made is chunk else clock.at(reading_ns)
                yield at_ns, number, made(true, start_ns, device)
            held.clear()
    assert clock.timing.drift_ppm == pytest.approx(device.ppm, abs=10)
    assert clock.timing.steps == len(device.steps)


def arrived(device: Device, seconds: float) -> Iterator[Item]:
    """The media of a URL: audio and video by one sender's clock, placed by the earliest arrivals."""
    clock = SenderClock()
    for number, (true_ns, device_ns, at_ns) in enumerate(device.taken(seconds)):
        if clock.add(device_ns, at_ns):
            start_ns = device_ns + clock.offset_ns
            yield at_ns, number, frame(true_ns, start_ns, device)
            yield at_ns, number, chunk(true_ns, start_ns - device.period_ms * MS, device)


def windows(*sources: Iterator[Item], hop_s: float) -> Iterator[Window]:
    """The windows of these sources, with a gap at each step."""
    windower = Windower(
        GEOMETRY, round(hop_s * NS_PER_S), Tolerance(wait_ns=2 * NS_PER_S, chunk_gap_ns=20 * MS, frame_gap_ns=1500 * MS)
    )
    tagged = [((at, number, who, what) for at, number, what in source) for who, source in enumerate(sources)]
    for _, _, who, what in heapq.merge(*tagged, key=lambda item: item[:2]):
        if what is None:
            windower.gap(("audio", "video")[who])
        else:
            yield from windower.push(what)


def true_skew_ns(window: Window) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How much later, in truth, the frame at each tick was captured than the sample beside it: (ticks,)."""
    assert window.audio is not None and window.video is not None
    seen_ns = np.array([int(np.frombuffer(frame.tobytes()[:8], np.int64)[0]) for frame in window.video])
    ticks = np.arange(5) * 200 + 100
    heard_ms = window.audio[ticks].astype(np.float64)
    off_ms = (seen_ns / MS - heard_ms + MODULO_MS / 2) % MODULO_MS - MODULO_MS / 2
    skew: np.ndarray[tuple[int], np.dtype[np.float64]] = off_ms * MS
    return skew


def is_whole(window: Window, period_ms: int) -> bool:
    """Whether no step lies within its audio and its video, which has a frame each period."""
    assert window.audio is not None and window.video is not None
    heard_ms = np.diff(window.audio.astype(np.float64)) % MODULO_MS
    seen_ms = np.array([int(np.frombuffer(frame.tobytes()[:8], np.int64)[0]) for frame in window.video]) / MS
    # A tick between two frames may get either; no step is a whole number of frames.
    seen_ms, frames = np.diff(seen_ms), np.round(np.diff(seen_ms) / period_ms)
    return bool(np.abs(heard_ms - 1).max() < 6 and np.abs(seen_ms - period_ms * frames).max() < 30 and frames.max() < 3)


def planned(seed: int, least_ms: int) -> tuple[tuple[float, int], ...]:
    """About one step an hour, forward or back, from this size to two seconds."""
    chance = random.Random(seed)
    hours = [hour * 3600 + chance.uniform(200, 3400) for hour in range(24)]
    return tuple(
        (at_s, chance.choice((-1, 1)) * round(least_ms * (2000 / least_ms) ** chance.random())) for at_s in hours
    )


@pytest.mark.timeout(600)  # it takes some seconds, and far longer on a busy machine
def test_a_day_of_drift_jitter_and_steps() -> None:
    """In 24 hours with clocks 200 ppm apart and a step an hour each, no window mixes different moments."""
    microphone = Device(100, 1000, 0.4, planned(1, 20), seed=1)
    camera = Device(-100, 1000, 2.0, planned(2, 50), seed=2)
    sources = fitted(microphone, DAY_S, chunk), fitted(camera, DAY_S, frame)
    whole = 0
    worst_ns = 0.0
    for window in windows(*sources, hop_s=7):
        if window.skew is None or window.start_ns < 2 * NS_PER_S:
            continue
        whole += 1
        true_ns = true_skew_ns(window)
        assert is_whole(window, camera.period_ms), window
        # The reported skew is true except for the errors of the fits, which are smaller than the bound.
        worst_ns = max(worst_ns, abs(true_ns.mean() - window.skew.mean_ns))
        assert worst_ns < BOUND_NS, (window, true_ns / MS)
    # A step is found within 25 readings, here seconds. Until then one of the two modalities is held back.
    assert whole > 0.96 * DAY_S / 7
    assert worst_ns < BOUND_NS / 2


@pytest.mark.timeout(600)
def test_a_day_of_a_network_camera() -> None:
    """In 24 hours with one sender's clock and 20 ms of network jitter, audio and video stay together."""
    count = 0
    for window in windows(arrived(Device(100, 1000, 20.0, seed=3), DAY_S), hop_s=7):
        if window.skew is not None:
            count += 1
            assert is_whole(window, 1000)
            assert abs(true_skew_ns(window).mean() - window.skew.mean_ns) < 6 * MS
            assert abs(window.skew.most_ns) <= 520 * MS  # half of the time from frame to frame
    assert count > 0.97 * DAY_S / 7


@pytest.mark.parametrize("seed", range(3))
def test_at_25_frames_a_second_modalities_stay_together(seed: int) -> None:
    """In ten minutes at full rate with four steps each, frames are within 40 ms of the audio, or skew reports it.

    The last frame before a step may stand for half of the model's tick, 100 ms here.
    """
    chance = random.Random(seed)
    steps = [
        tuple((150.0 * n + chance.uniform(30, 140), chance.choice((-1, 1)) * chance.randint(50, 900)) for n in range(4))
        for _ in "ab"
    ]
    microphone = Device(chance.uniform(-300, 300), 20, 0.3, steps[0], seed=seed)
    camera = Device(chance.uniform(-300, 300), 40, 1.0, steps[1], seed=seed + 9)
    skews_ns: list[float] = []
    for window in windows(fitted(microphone, 600, chunk), fitted(camera, 600, frame), hop_s=0.5):
        if window.skew is not None and window.start_ns > 10 * NS_PER_S:
            skews_ns.append(abs(window.skew.most_ns))
            assert np.abs(true_skew_ns(window)).max() <= max(BOUND_NS, skews_ns[-1] + 5 * MS)
    assert len(skews_ns) > 1000
    assert sum(each > BOUND_NS for each in skews_ns) <= 8 and max(skews_ns) <= 100 * MS
