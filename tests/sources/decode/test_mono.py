"""From channels to mono chunks: options, seams and gaps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.sources.decode.mono import MonoResampler
from perceiverd.sources.specs import AudioOptions

RATE_HZ, MODEL_HZ = 48_000, 16_000
STEREO = ("FL", "FR")
BEGIN_NS = 7 * NS_PER_S


def tone(hertz: float, seconds: float = 1.0, amplitude: float = 0.25) -> NDArray[np.float32]:
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


def chunks_of(
    samples: NDArray[np.float32],
    options: AudioOptions | None = None,
    *,
    names: tuple[str, ...] = STEREO,
    piece: int = 1024,
    gap_s: float = 0.0,
) -> list[Chunk]:
    """The chunks of samples (C, S) in pieces; `gap_s` of time is missing in the middle."""
    resampler, found, middle = MonoResampler(MODEL_HZ, options), list[Chunk](), samples.shape[1] // 2 // piece * piece
    for at in range(0, samples.shape[1], piece):
        start_ns = BEGIN_NS + round((at / RATE_HZ + (gap_s if at >= middle else 0)) * NS_PER_S)
        found += resampler.feed(samples[:, at : at + piece], names, RATE_HZ, start_ns)
    return [*found, *resampler.flush()]


def amplitude(chunks: list[Chunk]) -> float:
    samples = np.concatenate([chunk.samples for chunk in chunks])[MODEL_HZ // 4 : -MODEL_HZ // 4]
    return float(np.sqrt(2 * np.mean(samples**2)))


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([120, 480, 961, 1024, 5000]), st.booleans())
def test_times_and_lengths_are_kept(piece: int, is_flat: bool) -> None:
    """However short the pieces are and however long the mixer holds them, chunks are seamless and at their time."""
    wave = tone(440)
    chunks = chunks_of(np.stack([wave, wave if is_flat else -0.5 * wave]), piece=piece)
    assert chunks[0].start_ns == pytest.approx(BEGIN_NS, abs=100_000)
    assert chunks[-1].end_ns == pytest.approx(BEGIN_NS + NS_PER_S, abs=200_000)
    assert all(abs(after.start_ns - before.end_ns) < 100_000 for before, after in pairwise(chunks))
    assert sum(len(chunk.samples) for chunk in chunks) == pytest.approx(MODEL_HZ, abs=2)


def test_a_gap_stays_a_gap() -> None:
    """Time without samples stays empty; what the mixer held before it comes out before it."""
    wave = tone(440)
    chunks = chunks_of(np.stack([wave, -wave]), gap_s=0.5)
    gaps_s = [(after.start_ns - before.end_ns) / NS_PER_S for before, after in pairwise(chunks)]
    assert max(gaps_s) == pytest.approx(0.5, abs=0.001)
    assert sum(gap > 0.001 for gap in gaps_s) == 1
    assert sum(len(chunk.samples) for chunk in chunks) == pytest.approx(MODEL_HZ, abs=4)


def test_a_change_of_layout_leaves_no_gap() -> None:
    """If a broadcast changes from stereo to 5.1 and to mono, the audio continues without a gap."""
    resampler, found, wave = MonoResampler(MODEL_HZ), list[Chunk](), tone(440, 0.5)
    layouts = (STEREO, ("FL", "FR", "FC", "LFE", "SL", "SR"), ("FC",))
    for number, names in enumerate(layouts):
        samples = np.stack([wave if name in ("FL", "FR") or len(names) == 1 else 0 * wave for name in names])
        found += resampler.feed(samples, names, RATE_HZ, BEGIN_NS + number * NS_PER_S // 2)
    found += resampler.flush()
    assert all(abs(after.start_ns - before.end_ns) < 1_000_000 for before, after in pairwise(found))
    assert amplitude(found) == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize(("channel", "expected"), [(1, 0.2), (2, 0.1), (3, 0.4)])
def test_a_channel_is_chosen(channel: int, expected: float) -> None:
    """With `channel` that channel is used alone, whatever its name; even an LFE."""
    samples = np.stack([tone(440, 1.0, level) for level in (0.2, 0.1, 0.4)])
    chunks = chunks_of(samples, AudioOptions(channel=channel), names=("FL", "FR", "LFE"))
    assert amplitude(chunks) == pytest.approx(expected, rel=0.01)


def test_a_missing_channel_gives_no_audio() -> None:
    """If a broadcast changes to fewer channels, the chosen one may be missing: then there is no audio."""
    assert not chunks_of(np.stack([tone(440)] * 2), AudioOptions(channel=3))


@pytest.mark.parametrize("gain_db", [-20.0, -6.0, 6.0])
def test_gain(gain_db: float) -> None:
    """The gain is in decibels."""
    chunks = chunks_of(np.stack([tone(440)] * 2), AudioOptions(gain_db=gain_db))
    assert amplitude(chunks) == pytest.approx(0.25 * 10 ** (gain_db / 20), rel=0.01)


def test_gain_clips_at_full_scale() -> None:
    """Samples never exceed full scale."""
    chunks = chunks_of(np.stack([tone(440)] * 2), AudioOptions(gain_db=40))
    assert max(float(np.abs(chunk.samples).max()) for chunk in chunks) == 1


@pytest.mark.parametrize(("hertz", "expected"), [(50, 0.0156), (200, 0.1768), (2000, 0.25)])
def test_highpass(hertz: float, expected: float) -> None:
    """At 200 Hz the filter takes 3 dB, two octaves below 24 dB, and nothing far above."""
    chunks = chunks_of(np.stack([tone(hertz)] * 2), AudioOptions(highpass_hz=200))
    assert amplitude(chunks) == pytest.approx(expected, rel=0.02)


def test_the_highpass_starts_again_after_a_gap() -> None:
    """After a gap a constant offset rings as at the beginning: the filter's state does not pass a discontinuity."""
    flat = np.full((2, 2 * RATE_HZ), 0.25, np.float32)
    chunks = chunks_of(flat, AudioOptions(highpass_hz=50), gap_s=0.5)
    samples = np.concatenate([chunk.samples for chunk in chunks])
    assert np.abs(samples[:200]).max() > 0.2
    assert np.abs(samples[MODEL_HZ // 2 : MODEL_HZ * 9 // 10]).max() < 0.001
    assert np.abs(samples[MODEL_HZ * 9 // 10 : MODEL_HZ * 11 // 10]).max() > 0.2
