"""Sounds that are computed: noises, tones, telephone signals. Their labels are exact; no figure counts them as real."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
SECONDS = 6
SAMPLES = RATE_HZ * SECONDS
VARIANTS = 6
"""Sounds of each kind, with different frequencies and rhythms."""

Wave = NDArray[np.float32]


def sounds(seed: int = 0) -> Iterator[tuple[str, Wave, tuple[str, ...]]]:
    """(path, float32 wave of 6 s within ±1, AudioSet names) of each sound; the same for the same seed."""
    rng = np.random.default_rng(seed)
    for variant in range(VARIANTS):
        for kind, (make, names) in _KINDS.items():
            wave = make(rng)
            yield f"{kind}-{variant}.wav", (0.5 * wave / np.abs(wave).max()).astype(np.float32), names


def coloured_noise(rng: np.random.Generator, samples: int, slope: float) -> Wave:
    """Noise with a power of 1/f^slope (0 white, 1 pink, 2 brown) and a root mean square of 1."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-slope / 2)
    spectrum[0] = 0
    wave = np.fft.irfft(spectrum, samples)
    return np.asarray(wave / np.sqrt(np.mean(wave**2)), np.float32)


def _time() -> NDArray[np.float64]:
    return np.arange(SAMPLES) / RATE_HZ


def _partials(frequency_hz: float, levels: list[float]) -> NDArray[np.float64]:
    """A tone and its overtones; the n-th level is that of n times the frequency."""
    wave = np.zeros(SAMPLES)
    for number, level in enumerate(levels, start=1):
        wave += level * np.sin(2 * np.pi * frequency_hz * number * _time())
    return wave


def _gate(on_s: float, off_s: float) -> NDArray[np.float64]:
    """A rhythm of ones and zeros with edges of 4 ms, so that switching makes no click."""
    gate = (_time() % (on_s + off_s) < on_s).astype(float)
    return np.convolve(gate, np.hanning(64) / np.hanning(64).sum(), "same")


def _static(rng: np.random.Generator) -> NDArray[np.float64]:
    crackle = rng.standard_normal(SAMPLES) * (rng.random(SAMPLES) < rng.uniform(0.002, 0.05)) * rng.uniform(2, 8)
    return coloured_noise(rng, SAMPLES, rng.uniform(0, 0.5)) * 0.3 + crackle


def _sweep(rng: np.random.Generator) -> NDArray[np.float64]:
    low, high, length_s = rng.uniform(200, 800), rng.uniform(1500, 6000), rng.uniform(0.3, 2)
    phase = (_time() % length_s) / length_s
    frequency = low * (high / low) ** phase
    return np.sin(2 * np.pi * np.cumsum(frequency) / RATE_HZ)


def _dtmf(rng: np.random.Generator) -> NDArray[np.float64]:
    wave = np.zeros(SAMPLES)
    for digit in range(SECONDS * 4):
        low, high = rng.choice([697, 770, 852, 941]), rng.choice([1209, 1336, 1477])
        part = slice(digit * RATE_HZ // 4, digit * RATE_HZ // 4 + RATE_HZ // 7)
        wave[part] = np.sin(2 * np.pi * low * _time()[part]) + np.sin(2 * np.pi * high * _time()[part])
    return wave


def _dial_tone(rng: np.random.Generator) -> NDArray[np.float64]:
    pairs = [(350.0, 440.0), (425.0, 425.0), (400.0, 450.0)]
    low, high = pairs[rng.integers(len(pairs))]
    return _partials(low, [1]) + _partials(high, [1])


def _busy(rng: np.random.Generator) -> NDArray[np.float64]:
    american = _partials(480, [1]) + _partials(620, [1])
    wave = american if rng.random() < 0.5 else _partials(425, [1])
    on_s = rng.choice([0.25, 0.375, 0.5])
    return wave * _gate(on_s, on_s)


def _beeps(rng: np.random.Generator) -> NDArray[np.float64]:
    return _partials(rng.uniform(600, 3500), [1, 0.2]) * _gate(rng.uniform(0.06, 0.4), rng.uniform(0.1, 0.9))


def _buzzer(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.sign(_partials(rng.uniform(90, 400), [1, 0.6, 0.4, 0.3])) * _gate(rng.uniform(0.5, 2), 0.4)


_KINDS: dict[str, tuple[Callable[[np.random.Generator], NDArray[np.floating]], tuple[str, ...]]] = {
    "white-noise": (lambda rng: coloured_noise(rng, SAMPLES, 0), ("White noise", "Noise")),
    "pink-noise": (lambda rng: coloured_noise(rng, SAMPLES, rng.uniform(0.9, 1.1)), ("Pink noise", "Noise")),
    "static": (_static, ("Static", "Noise")),
    "sine": (lambda rng: _partials(rng.uniform(150, 4000), [1]), ("Sine wave",)),
    "sweep": (_sweep, ("Chirp tone",)),
    "dial-tone": (_dial_tone, ("Dial tone",)),
    "busy-signal": (_busy, ("Busy signal",)),
    "dialling": (_dtmf, ("Telephone dialing, DTMF",)),
    "beeps": (_beeps, ("Beep, bleep",)),
    "buzzer": (_buzzer, ("Buzzer",)),
    "hum": (lambda rng: _partials(rng.choice([50.0, 60.0]), [1, 0.8, 0.5, 0.3, 0.2]), ("Mains hum", "Hum")),
}
