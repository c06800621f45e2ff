"""The resampler alone: seams, gaps and clocks that drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.sources.decode.audio import Resampler

RATE_HZ = 16000


def tone(samples: int, rate_hz: int, hz: float = 440.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / rate_hz)).astype(np.float32)


def joined(chunks: list[Chunk]) -> NDArray[np.float32]:
    return np.concatenate([chunk.samples for chunk in chunks])


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6000), min_size=1, max_size=30),
    rate_hz=st.sampled_from([8000, 16000, 44100, 48000]),
)
def test_packets_leave_no_seam(sizes: list[int], rate_hz: int) -> None:
    """However audio is cut into packets, the same samples come out at their capture times."""
    wave = tone(sum(sizes), rate_hz)
    resampler, chunks, at = Resampler(RATE_HZ), list[Chunk](), 0
    for size in sizes:
        chunks += resampler.feed(wave[at : at + size], rate_hz, 7 + at * NS_PER_S // rate_hz)
        at += size
    chunks += resampler.flush()
    once = Resampler(RATE_HZ)
    reference = joined([*once.feed(wave, rate_hz, 7), *once.flush()])
    assert len(joined(chunks)) == len(reference)
    assert np.abs(joined(chunks) - reference).max() < 1e-5
    assert abs(len(reference) - len(wave) * RATE_HZ / rate_hz) <= 1
    produced = 0
    for chunk in chunks:
        assert len(chunk.samples) <= RATE_HZ // 2
        assert abs(chunk.start_ns - 7 - produced * NS_PER_S / RATE_HZ) < 1000
        produced += len(chunk.samples)


def test_against_the_ideal_tone() -> None:
    """A resampled tone is within 0.1 % of the same tone recorded at the other rate."""
    resampler = Resampler(RATE_HZ)
    samples = joined([*resampler.feed(tone(44100, 44100), 44100, 0), *resampler.flush()])
    assert np.abs(samples - tone(RATE_HZ, RATE_HZ))[1000:-1000].max() < 0.0005


def test_a_jump_in_time_begins_a_new_run() -> None:
    """After a gap of 30 ms, audio is not mixed with the audio before it and has its own time."""
    resampler, wave = Resampler(RATE_HZ), tone(48000, 48000)
    chunks = [*resampler.feed(wave, 48000, 0), *resampler.feed(wave, 48000, 1_030_000_000), *resampler.flush()]
    starts = [chunk.start_ns for chunk in chunks]
    assert 1_030_000_000 in starts
    before = [chunk for chunk in chunks if chunk.start_ns < 1_030_000_000]
    assert before[-1].end_ns == pytest.approx(NS_PER_S, abs=100_000)


def test_a_change_of_rate_begins_a_new_run() -> None:
    """If a stream changes its rate, no audio is lost."""
    resampler = Resampler(RATE_HZ)
    chunks = [
        *resampler.feed(tone(48000, 48000), 48000, 0),
        *resampler.feed(tone(8000, 8000), 8000, NS_PER_S),
        *resampler.flush(),
    ]
    assert len(joined(chunks)) == pytest.approx(2 * RATE_HZ, abs=2)


def test_a_drifting_clock_is_followed() -> None:
    """At 200 ppm the times stay within 5 ms of the truth for ten minutes, without a gap."""
    resampler, wave, packet_s = Resampler(RATE_HZ), tone(800, 8000), 0.1
    produced, end_ns = 0, 0
    for packet in range(6000):
        for chunk in resampler.feed(wave, 8000, round(packet * packet_s * NS_PER_S * 1.0002)):
            taken_ns = produced / RATE_HZ * NS_PER_S * 1.0002
            assert abs(chunk.start_ns - taken_ns) < 5_000_000
            assert abs(chunk.start_ns - end_ns) < NS_PER_S // 50
            produced, end_ns = produced + len(chunk.samples), chunk.end_ns
    assert produced == pytest.approx(600 * RATE_HZ, abs=RATE_HZ)


def test_times_may_be_missing() -> None:
    """Packets without a time follow the ones before; audio above full scale is clipped."""
    resampler = Resampler(RATE_HZ)
    chunks = [
        *resampler.feed(np.full(1600, 3.0, np.float32), RATE_HZ, None),
        *resampler.feed(np.full(1600, -3.0, np.float32), RATE_HZ, None),
    ]
    assert [chunk.start_ns for chunk in chunks] == [0, NS_PER_S // 10]
    assert np.abs(joined(chunks)).max() == 1.0
