"""Microphones: names and time lines as arithmetic, and PortAudio on a real sound server into which sound is played."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, MediaFormat, Timing
from perceiverd.sources.microphone import AudioTimeline, Block, Device, find
from perceiverd.sources.process.arrivals import Arrival, Discontinuity, StateChange
from perceiverd.sources.process.restart import RunState, Timeouts
from perceiverd.sources.process.supervisor import Supervisor
from perceiverd.sources.specs import Microphone
from tests.support.pulse import FAKE, RATE_HZ, SINK, Pulse, microphone, needs_microphone

CARDS = {0: "PCH", 1: "Device"}
KNOWN = [
    Device(0, "HDA Intel PCH: ALC295 Analog (hw:0,0)", 2, 44100),
    Device(4, "USB PnP Sound Device: Audio (hw:1,0)", 1, 48000),
    Device(7, "pulse", 32, 44100),
    Device(8, "default", 32, 44100),
]


@pytest.mark.parametrize(
    ("device", "index"),
    [
        (None, 8),
        (4, 4),
        ("8", 8),
        ("pulse", 7),
        ("usb pnp", 4),
        ("hw:CARD=Device,DEV=0", 4),
        ("hw:CARD=PCH", 0),
        ("hw:1,0", 4),
    ],
)
def test_a_microphone_by_any_of_its_names(device: str | int | None, index: int) -> None:
    """By default, number, name, a part of the name, and the name that stays."""
    assert find(device, KNOWN, CARDS).index == index


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (99, "there is no such number; there are 0: HDA"),
        ("nix", "there is none of this name; there are 0: HDA"),
        ("hw:", "could be any of HDA Intel PCH: ALC295 Analog"),
        ("hw:CARD=Gone", "is not plugged in; cards that are: hw:CARD=PCH, hw:CARD=Device; `perceiverd devices` tells"),
    ],
)
def test_a_name_of_nothing_is_told_with_what_there_is(device: str | int, expected: str) -> None:
    """One line: what is wrong, and what could be meant."""
    with pytest.raises(MediaError, match=expected):
        find(device, KNOWN, CARDS)


def test_no_microphone_at_all() -> None:
    """The line says so."""
    with pytest.raises(MediaError, match="there is none"):
        find(None, [], {})


LENGTH, HZ = 400, 16_000
"""Blocks of 25 ms."""
BEGIN_NS = 1000 * NS_PER_S


def blocks(
    count: int, *, late: Callable[[int], float], lost: Callable[[int], int] = lambda _: 0, ppm: float = 0.0
) -> Iterator[Block]:
    """Blocks of a device whose clock is off, that come so many seconds late, with so many samples lost before each."""
    missing = 0
    for n in range(count):
        missing += lost(n)
        first = n * LENGTH
        taken_ns = BEGIN_NS + round((first + missing) / HZ * (1 - ppm * 1e-6) * NS_PER_S)
        came_ns = taken_ns + round((LENGTH / HZ + late(n)) * NS_PER_S)
        # What is heard is a ramp of the time at which it was taken, so that its place can be read off it.
        ramp = ((first + missing + np.arange(LENGTH)) / HZ / 100).astype(np.float32)
        yield Block(ramp[:, None], first, lost(n) > 0, taken_ns, came_ns)


def errors_ms(items: list[Chunk | Timing]) -> list[float]:
    """How far the times of chunks are from those at which their sound was taken."""
    return [
        abs((item.start_ns - BEGIN_NS) / NS_PER_S - float(item.samples[0]) * 100) * 1e3
        for item in items
        if isinstance(item, Chunk)
    ]


@settings(deadline=None, max_examples=5)
@given(st.floats(-200, 200), st.integers(0, 2**32 - 1))
def test_sound_has_the_time_at_which_it_was_taken(ppm: float, seed: int) -> None:
    """With stamps, however late blocks come and however the device's clock drifts, within 3 ms."""
    chance, joiner = np.random.default_rng(seed), AudioTimeline(HZ, HZ, None)
    late = chance.exponential(0.02, 500)
    items = [item for block in blocks(500, late=lambda n: float(late[n]), ppm=ppm) for item in joiner.feed(block)]
    assert max(errors_ms(items)[40:]) < 3
    assert joiner.timing.steps == 0


@settings(deadline=None, max_examples=10)
@given(st.integers(100, 300), st.integers(200, 16_000))
def test_an_overflow_leaves_a_hole_in_time(at: int, samples: int) -> None:
    """What is lost is missing, not joined over: a Timing with a step, then sound at its own time."""
    joiner = AudioTimeline(HZ, HZ, None)
    lossy = blocks(400, late=lambda _: 0.001, lost=lambda n: samples if n == at else 0)
    items = [item for block in lossy for item in joiner.feed(block)]
    assert joiner.timing.steps == 1
    assert max(errors_ms(items)) < 2
    (place,) = (n for n, item in enumerate(items) if isinstance(item, Timing))
    before, after = items[place - 1], items[place + 1]
    assert isinstance(before, Chunk) and isinstance(after, Chunk)
    assert (after.start_ns - before.end_ns) / NS_PER_S == pytest.approx(samples / HZ, abs=0.002)


@settings(deadline=None, max_examples=10)
@given(st.sets(st.integers(50, 250), max_size=10))
def test_blocks_that_found_no_room_leave_holes(gone: set[int]) -> None:
    """Each run of them is one interruption, and counted sample by sample; what comes after has its own time."""
    joiner = AudioTimeline(HZ, HZ, None)
    kept = (block for block in blocks(300, late=lambda _: 0.001) if block.first // LENGTH not in gone)
    items = [item for block in kept for item in joiner.feed(block)]
    assert joiner.timing.steps == len([n for n in gone if n + 1 not in gone])
    assert joiner.timing.overflows == joiner.timing.steps
    assert joiner.dropped_samples == len(gone) * LENGTH
    assert max(errors_ms(items), default=0) < 2
    heard = sum(len(item.samples) for item in items if isinstance(item, Chunk))
    assert (300 - len(gone)) * LENGTH - heard < LENGTH * 2


def test_a_sound_server_is_timed_by_arrival() -> None:
    """Stamps of no clock of ours are not believed: what is gathered while it opens waits until the burst is over."""
    joiner = AudioTimeline(HZ, HZ, None)
    items = list[Chunk | Timing]()
    for block in blocks(200, late=lambda n: max(0.01 * (n % 4), 0.35 - 0.025 * n)):
        items += joiner.feed(Block(block.samples, block.first, False, 10**18, block.monotonic_ns))
    assert max(errors_ms(items)) < 12
    assert joiner.timing.steps == 0 and not joiner.stamped


def test_channels_are_chosen_or_mixed() -> None:
    """The one that is configured, or the mean of the first two."""
    samples = np.array([[0.5, 0.1, 0.9]] * LENGTH * 4, np.float32)
    block = Block(samples, 0, False, BEGIN_NS, BEGIN_NS + NS_PER_S // 10)
    for channel, expected in ((None, 0.3), (1, 0.5), (3, 0.9)):
        (chunk,) = AudioTimeline(HZ, HZ, channel).feed(block)
        assert isinstance(chunk, Chunk)
        assert chunk.samples == pytest.approx(expected)


@pytest.fixture(scope="module")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulse]:
    with microphone(tmp_path_factory.mktemp("pulse")) as server:
        yield server


WANTED = MediaFormat(audio_rate_hz=16_000)
KEY = ("room", 0)
TONE_HZ, AMPLITUDE = 440, 0.25
TONE = AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * np.arange(RATE_HZ) / RATE_HZ)
LIMITS = Timeouts(open_s=30.0)


def drive(running: Supervisor, until: Callable[[list[Arrival]], bool], within_s: float = 60) -> list[Arrival]:
    """Poll until what has come is enough; fails when it is not in time."""
    arrivals: list[Arrival] = []
    end_s = time.monotonic() + within_s
    while not until(arrivals):
        assert time.monotonic() < end_s, (
            [a for a in arrivals if isinstance(a.what, StateChange)],
            running.state("room"),
        )
        arrivals += running.poll(100)
    return arrivals


def chunks(arrivals: list[Arrival]) -> list[Chunk]:
    return [each.what for each in arrivals if isinstance(each.what, Chunk)]


@needs_microphone
@pytest.mark.long
def test_a_tone_is_heard_as_it_was_played(pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pitch and level come out, without a seam, stamped close to when it came; the clock is told of."""
    for name, value in pulse.environment.items():
        monkeypatch.setenv(name, value)
    with pulse.playing(TONE), Supervisor({KEY: Microphone(device=FAKE)}, WANTED, limits=LIMITS) as running:
        drive(running, lambda seen: len(chunks(seen)) > 20)  # the player has begun by then
        heard: list[Chunk] = []
        for _ in range(100):
            for chunk in chunks(running.poll(100)):
                assert -0.002 < (time.monotonic_ns() - chunk.end_ns) / NS_PER_S < 3
                heard.append(chunk)
        timing = running.state("room")[0].timing
    ends = [chunk.end_ns for chunk in heard[:-1]]
    assert max(abs(chunk.start_ns - end) for chunk, end in zip(heard[1:], ends, strict=True)) < 20_000_000
    samples = np.concatenate([chunk.samples for chunk in heard])[: 2 * 16_000]
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
def test_a_microphone_that_is_lost_is_back_soon(pulse: Pulse, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss is told within 6 s, in words; within 10 s of its return it is heard again, and nothing is left over."""
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
            drive(running, lambda _: time.monotonic() > began_s + 8)  # tries in vain meanwhile
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
