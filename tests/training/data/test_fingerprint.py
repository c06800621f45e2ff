"""Fingerprints: the same sound is found in another codec or cut, other sounds are not."""

import io

import av
import numpy as np
import pytest

from perceiverd.training.data.corpus import RATE_HZ, Pcm, samples_of
from perceiverd.training.data.fingerprint import FINE, HOP, FingerprintIndex, fingerprint
from perceiverd.training.synthesis import tones


def sound(seed: int, seconds: float) -> Pcm:
    """Noise of changing colour and level with a sliding tone; each seed gives another sound."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE_HZ)
    knots = np.linspace(0, samples, max(round(seconds * 8), 3))
    mix, level = (np.interp(np.arange(samples), knots, rng.uniform(0, 1, len(knots))) for _ in range(2))
    pitch_hz = np.interp(np.arange(samples), knots, rng.uniform(200, 3_000, len(knots)))
    wave = mix * tones.coloured_noise(rng, samples, 0) + (1 - mix) * tones.coloured_noise(rng, samples, 2)
    wave += 2 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ)
    wave *= 0.1 + level
    return np.asarray(wave / np.abs(wave).max() * 20_000, np.int16)


def recoded(pcm: Pcm, codec: str, container: str, rate_hz: int) -> Pcm:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate_hz)
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate, stream.layout = 48_000, "mono"
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        resampler = av.AudioResampler(stream.format.name, "mono", rate_hz)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return samples_of(out.getvalue())


@pytest.fixture(scope="module")
def index() -> FingerprintIndex:
    """Ten sounds of one to five seconds."""
    out = FingerprintIndex()
    for seed in range(10):
        out.add(f"sound {seed}", fingerprint(sound(seed, 1 + seed / 2), HOP // FINE))
    return out


@pytest.mark.parametrize("seed", [0, 4, 9])
@pytest.mark.parametrize(("codec", "container", "rate_hz"), [("flac", "flac", 16_000), ("libopus", "ogg", 48_000)])
def test_codec_level_and_trimming_do_not_matter(
    index: FingerprintIndex, seed: int, codec: str, container: str, rate_hz: int
) -> None:
    """A sound that is quieter, later and in another codec is found."""
    quieter = (sound(seed, 1 + seed / 2) * 0.3).astype(np.int16)
    later = np.concatenate([np.zeros(777, np.int16), quieter])
    assert index.find(fingerprint(recoded(later, codec, container, rate_hz))) == f"sound {seed}"


def test_a_part_is_found(index: FingerprintIndex) -> None:
    """One second from the middle of five is found."""
    assert index.find(fingerprint(sound(8, 5)[30_000:46_000])) == "sound 8"


def test_other_sounds_are_not_found(index: FingerprintIndex) -> None:
    """Other sounds, noise, a tone and silence match no indexed sound."""
    rng = np.random.default_rng(0)
    others = [sound(seed, 3) for seed in range(100, 120)]
    others.append((3_000 * tones.coloured_noise(rng, 48_000, 1)).astype(np.int16))
    others.append((9_000 * np.sin(2 * np.pi * 440 * np.arange(48_000) / RATE_HZ)).astype(np.int16))
    others += [np.zeros(48_000, np.int16), np.ones(100, np.int16)]
    assert [index.find(fingerprint(other)) for other in others] == [None] * len(others)


def test_an_empty_index_finds_nothing() -> None:
    """An index without sounds finds none."""
    assert FingerprintIndex().find(fingerprint(sound(1, 2))) is None
