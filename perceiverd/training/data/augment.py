"""Changes to the audio of one window: crop, speed, equalisation, reverberation, noise, level, 16-bit rounding.

Every function is a function of its arguments and the random generator alone. Knows nothing of labels or teachers.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from perceiverd.training.data.corpus import HOP, RATE_HZ, Clip, Corpus
from perceiverd.training.synthesis import tones

WINDOW = 20_480
"""Samples of one window, 1.28 s."""
WINDOW_HOPS = WINDOW // HOP  # 8 loudness values
assert WINDOW % HOP == 0
LOUD_SHARE, LOUD_DB = 5 / 6, 20
"""This share of the crops starts at a place within this many dB of the clip's loudest window."""

Wave = NDArray[np.float32]


def crop(corpus: Corpus, clip: Clip, rng: np.random.Generator, speed: float) -> tuple[Wave, float]:
    """1.28 s of a clip played at `speed`, and how many dB that place is below the clip's loudest window.

    A clip shorter than a window is placed at random inside it. The clip's loudest 0.16 s comes out at 0 dB of full
    scale.
    """
    power = 10 ** (corpus.levels(clip) / 10.0)  # (hops,)
    hops = max(len(power) - WINDOW_HOPS + 1, 1)
    total = np.concatenate([[0], np.cumsum(power)])
    window_power = total[np.minimum(np.arange(hops) + WINDOW_HOPS, len(power))] - total[:hops]
    places = np.arange(hops)
    if rng.random() < LOUD_SHARE:
        places = np.flatnonzero(window_power >= window_power.max() * ratio(-LOUD_DB) ** 2)
    place = int(places[rng.integers(len(places))])
    start = place * HOP + (int(rng.integers(HOP)) if hops > 1 else 0)
    wanted = round(WINDOW * speed / 512) * 512  # a length with a fast Fourier transform
    wave: Wave = corpus.samples(clip)[start : start + wanted].astype(np.float32) / np.float32(32768)
    if wanted != WINDOW:
        wave = _stretch(wave, round(len(wave) * WINDOW / wanted))
    if len(wave) < WINDOW:
        before = int(rng.integers(WINDOW - len(wave) + 1))
        wave = np.pad(wave, (before, WINDOW - len(wave) - before))
    below_db = 10 * np.log10(window_power.max() / max(window_power[place], 1e-15))
    return wave * np.float32(power.max() ** -0.5), float(below_db)


def _stretch(wave: Wave, samples: int) -> Wave:
    """The wave played faster or slower, so that it has this many samples. The pitch changes with the speed."""
    short = 4 * max(samples, len(wave)) < WINDOW
    if short or samples < 2:
        return np.asarray(np.interp(np.linspace(0, len(wave) - 1, samples), np.arange(len(wave)), wave), np.float32)
    return np.asarray(np.fft.irfft(np.fft.rfft(wave), samples) * (samples / len(wave)), np.float32)


def record(wave: Wave, rng: np.random.Generator) -> Wave:
    """The wave as a device records it in a room: reverberation, equalisation, noise, gain, 16 bits."""
    if rng.random() < 0.3:
        wave = reverberate(wave, rng)
    if rng.random() < 0.5:
        wave = equalise(wave, rng)
    power = float(np.mean(wave**2))
    if rng.random() < 0.35:
        wave = wave + noise(rng) * np.float32(power**0.5 * ratio(-rng.uniform(10, 50)))
    peak_db = float(np.clip(rng.normal(-12, 9), -40, 0))
    if rng.random() < 0.03:
        peak_db += 6  # overdriven: the converter clips
    wave = wave * np.float32(ratio(peak_db) / max(float(np.abs(wave).max()), 1e-6))
    return to_16_bits(wave)


def to_16_bits(wave: Wave) -> Wave:
    """The wave rounded to 16 bits and clipped to ±1."""
    return np.asarray(np.clip(np.round(wave * 32767), -32768, 32767) / 32768, np.float32)


def noise(rng: np.random.Generator) -> Wave:
    """(20480,) white, pink or brown noise, or mains hum, with a root mean square of 1."""
    kind = rng.integers(4)
    if kind < 3:
        return tones.coloured_noise(rng, WINDOW, float(kind))
    phase = 2 * np.pi * rng.choice([50, 60]) * np.arange(WINDOW) / RATE_HZ + rng.uniform(0, 6)
    wave = sum(rng.uniform(0, 1) * np.sin(n * phase) for n in (1, 2, 3, 4, 6))
    return np.asarray(wave / np.sqrt(np.mean(np.square(wave)) + 1e-9), np.float32)


def equalise(wave: Wave, rng: np.random.Generator) -> Wave:
    """The wave through a random smooth frequency response; a fifth also lose what is outside a narrower band."""
    frequency = _octaves()
    knots = rng.normal(0, 4, 7)
    gain_db = np.interp(frequency, np.linspace(5.5, 13, 7), knots)  # 45 Hz to 8 kHz
    limits = rng.random()
    if limits < 0.20:
        low_hz, high_hz = (300, 3400) if limits < 0.05 else (rng.uniform(20, 300), rng.uniform(2500, 7500))
        gain_db -= 24 * np.maximum(np.log2(low_hz) - frequency, 0)  # 24 dB an octave
        gain_db -= 80 * np.maximum(frequency - np.log2(high_hz), 0)
    return np.asarray(np.fft.irfft(np.fft.rfft(wave) * _amplitudes(gain_db), WINDOW), np.float32)


def reverberate(wave: Wave, rng: np.random.Generator) -> Wave:
    """The wave with an echo of exponentially decaying noise, 2 to 20 dB below it."""
    length = RATE_HZ // 2
    decay_s = np.exp(rng.uniform(np.log(0.1), np.log(1.2)))  # to -60 dB
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / (RATE_HZ * decay_s))
    tail[: int(rng.uniform(0.002, 0.02) * RATE_HZ)] = 0
    tail *= ratio(-rng.uniform(2, 20)) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    size = 1 << 15
    spectrum = np.fft.rfft(wave, size) * np.fft.rfft(tail.astype(np.float32), size)
    return np.asarray(np.fft.irfft(spectrum, size)[:WINDOW], np.float32)


@cache
def _octaves() -> NDArray[np.float64]:
    """log2 of the frequency in Hz of each bin of a window's spectrum; bin 0 counts as 1 Hz."""
    return np.asarray(np.log2(np.maximum(np.fft.rfftfreq(WINDOW, 1 / RATE_HZ), 1)))


def _amplitudes(gain_db: NDArray[np.float64]) -> Wave:
    return np.asarray(10 ** (np.maximum(gain_db, -120) / 20), np.float32)


def ratio(decibel: float) -> float:
    """The amplitude ratio of a level difference in dB."""
    return float(10 ** (decibel / 20))
