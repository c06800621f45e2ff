"""Audio of places where nothing happens: silences, hums, hisses, clicks, as cheap devices record them.

Synthetic: each sound is a function of the random generator alone. Knows nothing of streams or windows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perceiverd.training.synthesis.tones import coloured_noise

RATE_HZ = 16_000
KNOT_S = 5
"""A drift has a random value each 5 s, and is linear in between."""

Wave = NDArray[np.float32]


def _ratio(decibel: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(10 ** (np.asarray(decibel) / 20))


def _time(seconds: int) -> NDArray[np.float64]:
    return np.arange(seconds * RATE_HZ) / RATE_HZ


def _drift(rng: np.random.Generator, seconds: int, spread: float) -> NDArray[np.float64]:
    """A slow random walk around 0, mostly within `spread`."""
    knots = rng.normal(0, spread / 3, seconds // KNOT_S + 2)
    for at in range(1, len(knots)):
        knots[at] += 0.9 * knots[at - 1]  # a factor of 1 would let it drift far away within minutes
    return np.asarray(np.interp(_time(seconds), np.arange(len(knots)) * float(KNOT_S), knots))


def _noise(rng: np.random.Generator, seconds: int, slope: float) -> NDArray[np.float64]:
    return coloured_noise(rng, seconds * RATE_HZ, slope).astype(np.float64)


def _room(rng: np.random.Generator, seconds: int, low_db: float = -75, high_db: float = -45) -> NDArray[np.float64]:
    """Room tone: coloured noise with a drifting level."""
    noise = _noise(rng, seconds, rng.uniform(0.5, 2.0))
    return noise * _ratio(rng.uniform(low_db, high_db) + _drift(rng, seconds, 4.0))


def _hiss(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """White noise, or noise that rises by 6 dB an octave."""
    noise = rng.standard_normal(seconds * RATE_HZ + 1)
    noise = np.diff(noise) if rng.random() < 0.5 else noise[1:]
    return np.asarray(noise * _ratio(rng.uniform(-75, -40) + _drift(rng, seconds, 2.0)))


def _hum(rng: np.random.Generator, seconds: int, mains_hz: float) -> NDArray[np.float64]:
    phase = 2 * np.pi * (mains_hz + rng.normal(0, 0.05)) * _time(seconds)
    wave = np.zeros(len(phase))
    for number in (1, 2, 3, 4, 5, 6, 8, 10):
        wave += rng.uniform(0, 1) / number ** rng.uniform(0.3, 1.5) * np.sin(number * phase + rng.uniform(0, 6))
    wave /= np.sqrt(np.mean(wave**2))
    level_db = rng.uniform(-65, -25) + _drift(rng, seconds, 1.0)
    return np.asarray(wave * _ratio(level_db) + _room(rng, seconds, -80, -60))


def _fan(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Turbulence, the tone of the blades with overtones, and the slow beat of a bearing."""
    t = _time(seconds)
    phase = 2 * np.pi * rng.uniform(60, 400) * (t + 0.0005 * _drift(rng, seconds, 1.0))
    tone = sum(rng.uniform(0, 1) / n * np.sin(n * phase) for n in (1, 2, 3))
    beat = 1 + rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(0.5, 12) * t)
    wave = _noise(rng, seconds, rng.uniform(1, 2)) + rng.uniform(0, 0.7) * np.asarray(tone)
    return np.asarray(wave * beat * _ratio(rng.uniform(-65, -35)))


def _clicks(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Room tone with single clicks of up to 2 ms at random times."""
    wave = _room(rng, seconds)
    for at in np.flatnonzero(rng.random(seconds * 10) < rng.uniform(0.02, 0.2)):
        length = int(rng.integers(1, 32))
        place = int((at + rng.random()) / 10 * RATE_HZ)
        burst = rng.standard_normal(length) * np.exp(-np.arange(length) / max(1.0, length / 4))
        wave[place : place + length] += (burst * _ratio(rng.uniform(-60, -20)))[: len(wave) - place]
    return wave


def _dropouts(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Room tone with stretches of zero, 5 ms to 3 s, as lost packets and noise gates leave them."""
    wave = _room(rng, seconds)
    for at in np.flatnonzero(rng.random(seconds) < rng.uniform(0.05, 0.5)):
        place, length = int((at + rng.random()) * RATE_HZ), int(np.exp(rng.uniform(np.log(80), np.log(48_000))))
        wave[place : place + length] = 0
    return wave


def _thumps(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Room tone with faint pops below 100 Hz, as from a plug or a knock on the stand."""
    wave, t = _room(rng, seconds), _time(1)[: RATE_HZ // 8]
    for at in np.flatnonzero(rng.random(seconds) < rng.uniform(0.03, 0.2)):
        pop = np.sin(2 * np.pi * rng.uniform(25, 100) * t) * np.exp(-t * rng.uniform(40, 150))
        wave[at * RATE_HZ : at * RATE_HZ + len(t)] += pop * _ratio(rng.uniform(-55, -30))
    return wave


def _fades(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Coloured noise that swells and fades by 44 dB, each 20 to 90 s."""
    swell = np.sin(2 * np.pi * _time(seconds) / rng.uniform(20, 90) + rng.uniform(0, 6))
    return _noise(rng, seconds, rng.uniform(0, 2)) * _ratio(-67 + 22 * swell)


def _coarse(rng: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """Faint room tone with a coarse resolution, 8 to 12 bits of full scale."""
    step = 2.0 ** -(int(rng.integers(8, 13)) - 1)
    return np.asarray(np.round(_room(rng, seconds, -55, -40) / step) * step)


AUDIO_KINDS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "digital silence": lambda rng, seconds: np.zeros(seconds * RATE_HZ),
    "dithered silence": lambda rng, seconds: np.diff(rng.random(seconds * RATE_HZ + 1)) / 32768,
    "room tone": _room,
    "hiss": _hiss,
    "hum at 50 Hz": lambda rng, seconds: _hum(rng, seconds, 50.0),
    "hum at 60 Hz": lambda rng, seconds: _hum(rng, seconds, 60.0),
    "fan": _fan,
    "clicks": _clicks,
    "dropouts": _dropouts,
    "thumps": _thumps,
    "coarse steps": _coarse,
    "constant offset": lambda rng, seconds: _room(rng, seconds) + rng.uniform(-0.3, 0.3),
    "slow fades": _fades,
}


def render_audio(kind: str, rng: np.random.Generator, seconds: int) -> Wave:
    """Audio of a kind in AUDIO_KINDS, 16 kHz, within ±1, rounded to 16 bits."""
    wave = np.clip(np.round(AUDIO_KINDS[kind](rng, seconds) * 32768), -32768, 32767)
    return np.asarray(wave / 32768, np.float32)
