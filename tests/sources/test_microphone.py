"""Microphones: time lines as arithmetic, and PortAudio on a real sound server that plays test tones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.core.media import NS_PER_S, Chunk, MediaFormat, Timing
from perceiverd.sources.microphone import AudioTimeline, Block
from perceiverd.sources.process.arrivals import Arrival, Discontinuity, StateChange
from perceiverd.sources.process.restart import RunState, Timeouts
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import Microphone
from tests.support.driving import drive
from tests.support.pulse import FAKE, RATE_HZ, SINK, Pulse, microphone, needs_microphone

LENGTH, HZ = 400, 16_000
"""Blocks of 25 ms."""
BEGIN_NS = 1000 * NS_PER_S


def blocks(
    count: int, *, late: Callable[[int], float], lost: Callable[[int], int] = lambda _: 0, ppm: float = 0.0
) -> Iterator[Block]:
    """Blocks of a device with a wrong clock. Each comes `late` seconds late, with `lost` samples lost before it."""
    missing = 0
    for n in range(count):
        missing += lost(n)
        first = n * LENGTH
        taken_ns = BEGIN_NS + round((first + missing) / HZ * (1 - ppm * 1e-6) * NS_PER_S)
        came_ns = taken_ns + round((LENGTH / HZ + late(n)) * NS_PER_S)
        # The samples are a ramp of their capture time, so that tests can read this time from them.
        ramp = ((first + missing + np.arange(LENGTH)) / HZ / 100).astype(np.float32)
        yield Block(ramp[:, None], first, lost(n) > 0, taken_ns, came_ns)


def errors_ms(items: list[Chunk | Timing]) -> list[float]:
    """How far the times of chunks are from the capture times of their samples."""
    return [
        abs((item.start_ns - BEGIN_NS) / NS_PER_S - float(item.samples[0]) * 100) * 1e3
        for item in items
        if isinstance(item, Chunk)
    ]


@settings(deadline=None, max_examples=5)
@given(st.floats(-200, 200), st.integers(0, 2**32 - 1))
def test_audio_has_its_capture_time(ppm: float, seed: int) -> None:
    """With stamps, times are right within 3 ms, however late blocks come and the device's clock drifts."""
    chance, timeline = np.random.default_rng(seed), AudioTimeline(HZ, HZ)
    late = chance.exponential(0.02, 500)
    items = [item for block in blocks(500, late=lambda n: float(late[n]), ppm=ppm) for item in timeline.feed(block)]
    assert max(errors_ms(items)[40:]) < 3
    assert timeline.timing.steps == 0


@settings(deadline=None, max_examples=10)
@given(st.integers(100, 300), st.integers(200, 16_000))
def test_an_overflow_leaves_a_gap(at: int, samples: int) -> None:
    """Lost samples leave a gap: first a Timing with a step, then audio at its own time."""
    timeline = AudioTimeline(HZ, HZ)
    lossy = blocks(400, late=lambda _: 0.001, lost=lambda n: samples if n == at else 0)
    items = [item for block in lossy for item in timeline.feed(block)]
    assert timeline.timing.steps == 1
    assert max(errors_ms(items)) < 2
    (place,) = (n for n, item in enumerate(items) if isinstance(item, Timing))
    before, after = items[place - 1], items[place + 1]
    assert isinstance(before, Chunk) and isinstance(after, Chunk)
    assert (after.start_ns - before.end_ns) / NS_PER_S == pytest.approx(samples / HZ, abs=0.002)


@settings(deadline=None, max_examples=10)
@given(st.sets(st.integers(50, 250), max_size=10))
def test_dropped_blocks_leave_gaps(gone: set[int]) -> None:
    """Each run of dropped blocks is one interruption; its samples are counted, and later audio has its own time."""
    timeline = AudioTimeline(HZ, HZ)
    kept = (block for block in blocks(300, late=lambda _: 0.001) if block.first // LENGTH not in gone)
    items = [item for block in kept for item in timeline.feed(block)]
    assert timeline.timing.steps == len([n for n in gone if n + 1 not in gone])
    assert timeline.timing.overflows == timeline.timing.steps
    assert timeline.dropped_samples == len(gone) * LENGTH
    assert max(errors_ms(items), default=0) < 2
    delivered = sum(len(item.samples) for item in items if isinstance(item, Chunk))
    assert (300 - len(gone)) * LENGTH - delivered < LENGTH * 2


def test_a_sound_server_is_timed_by_arrival() -> None:
    """Stamps of an unknown clock are ignored; audio that was buffered at the opening waits for the end of the burst."""
    timeline = AudioTimeline(HZ, HZ)
    items = list[Chunk | Timing]()
    for block in blocks(200, late=lambda n: max(0.01 * (n % 4), 0.35 - 0.025 * n)):
        items += timeline.feed(Block(block.samples, block.first, False, 10**18, block.monotonic_ns))
    assert max(errors_ms(items)) < 12
    assert timeline.timing.steps == 0 and not timeline.stamped


@pytest.mark.parametrize(("channel", "expected"), [(None, 0.5), (1, 0.5), (2, 0.5), (3, 0.9)])
def test_channels_are_chosen_or_mixed(channel: int | None, expected: float) -> None:
    """The configured channel is used, or a mix of the first two, in which opposite phases do not cancel."""
    tone = np.sin(2 * np.pi * 440 * np.arange(HZ) / HZ)
    samples = np.stack([0.5 * tone, -0.5 * tone, 0.9 * tone], axis=1).astype(np.float32)
    timeline = AudioTimeline(HZ, HZ, Microphone(channel=channel))
    chunks = list(timeline.feed(Block(samples, 0, False, BEGIN_NS, BEGIN_NS + NS_PER_S)))
    received = np.concatenate([chunk.samples for chunk in chunks if isinstance(chunk, Chunk)])
    middle = received[HZ // 4 : -HZ // 4]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(expected, rel=0.01)


@pytest.fixture(scope="module")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulse]:
    with microphone(tmp_path_factory.mktemp("pulse")) as server:
        yield server


WANTED = MediaFormat(audio_rate_hz=16_000)
KEY = ("room", 0)
TONE_HZ, AMPLITUDE = 440, 0.25
TONE = AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * np.arange(RATE_HZ) / RATE_HZ)
LIMITS = Timeouts(open_s=30.0)


def chunks(arrivals: list[Arrival]) -> list[Chunk]:
    return [each.what for each in arrivals if isinstance(each.what, Chunk)]


@needs_microphone
@pytest.mark.quiet  # a busy machine interrupts the sound
def test_a_tone_keeps_its_pitch_and_level(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A played tone arrives with its pitch and level, without seams, stamped close to its arrival."""
    for name, value in pulse.environment.items():
        monkeypatch.setenv(name, value)
    with pulse.playing(TONE), Supervisor({KEY: Microphone(device=FAKE)}, WANTED, limits=LIMITS) as running:
        drive(running, lambda seen: len(chunks(seen)) > 20)  # the player has started by then
        received: list[Chunk] = []
        for _ in range(100):
            for chunk in chunks(running.poll(100)):
                assert -0.002 < (time.monotonic_ns() - chunk.end_ns) / NS_PER_S < 3
                received.append(chunk)
        timing = running.state("room")[0].timing
    ends = [chunk.end_ns for chunk in received[:-1]]
    assert max(abs(chunk.start_ns - end) for chunk, end in zip(received[1:], ends, strict=True)) < 20_000_000
    samples = np.concatenate([chunk.samples for chunk in received])[: 2 * 16_000]
    assert len(samples) == 2 * 16_000
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert spectrum.argmax() / 2 == pytest.approx(TONE_HZ, abs=2)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(AMPLITUDE / np.sqrt(2), rel=0.05)
    assert timing is not None


LOSSES: dict[str, tuple[Callable[[Pulse], object], Callable[[Pulse], object]]] = {
    "server killed": (Pulse.kill, Pulse.start),
    "server stopped": (Pulse.freeze, Pulse.thaw),
    "sink unloaded": (
        lambda pulse: pulse.control("unload-module", "module-null-sink"),
        lambda pulse: pulse.control("load-module", "module-null-sink", *SINK.split()),
    ),
}


@needs_microphone
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.long
@pytest.mark.quiet
def test_a_lost_microphone_returns_soon(pulse: Pulse, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss is reported within 6 s with its reason; within 10 s of its return the microphone delivers again."""
    for name, value in pulse.environment.items():
        monkeypatch.setenv(name, value)
    lose, restore = LOSSES[loss]
    with Supervisor({KEY: Microphone(device=FAKE)}, WANTED, limits=LIMITS) as running:
        drive(running, lambda seen: len(chunks(seen)) > 5)
        lose(pulse)
        began_s = time.monotonic()
        try:
            arrivals = drive(
                running, lambda seen: any(isinstance(each.what, Discontinuity) for each in seen), within_s=20
            )
            took_s = time.monotonic() - began_s
            drive(running, lambda _: time.monotonic() > began_s + 8)  # meanwhile each try fails
        finally:
            restore(pulse)
        began_s = time.monotonic()
        drive(running, lambda seen: len(chunks(seen)) > 2)
        back_s = time.monotonic() - began_s
        state = running.state("room")[0]
    assert took_s < 6
    assert back_s < 10
    assert state.state is RunState.UP and sum(state.losses.values()) >= 1
    changes = [each.what for each in arrivals if isinstance(each.what, StateChange)]
    assert "Traceback" not in changes[-1].detail and changes[-1].detail
