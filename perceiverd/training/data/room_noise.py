"""Windows of empty rooms: digital silence, a flickering last bit, hiss and hum. Knows nothing of labels."""

import numpy as np

from perceiverd.training.data.augment import WINDOW, Wave, equalise, noise, ratio, to_16_bits

SILENT_ROOM_DB = -68.0
"""Below this level of full scale a person calls noise silence. Above it, the teacher decides what the noise is."""
LOUDEST_ROOM_DB = -45.0


def empty_room(rng: np.random.Generator) -> tuple[Wave, float]:
    """(20480,) of a room in which nothing happens, and its level in dB of full scale.

    One in eight is digital zero, and one in eight is a flickering last bit. A quarter is noise below SILENT_ROOM_DB, a
    half is noise from there up to LOUDEST_ROOM_DB.
    """
    kind = rng.random()
    if kind < 1 / 8:
        return np.zeros(WINDOW, np.float32), -np.inf
    if kind < 1 / 4:
        return to_16_bits(np.asarray(rng.triangular(-1, 0, 1, WINDOW) / 32768, np.float32)), -95.0
    silent = kind < 1 / 2
    level_db = float(rng.uniform(-95, SILENT_ROOM_DB) if silent else rng.uniform(SILENT_ROOM_DB, LOUDEST_ROOM_DB))
    return to_16_bits(_room(rng, level_db)), level_db


def _room(rng: np.random.Generator, level_db: float) -> Wave:
    """Hiss, hum or both, through a random frequency response, with a drifting level; some have clicks or an offset."""
    wave = noise(rng)
    if rng.random() < 0.4:
        wave = wave + noise(rng) * np.float32(ratio(rng.uniform(-20, 0)))
    if rng.random() < 0.6:
        wave = equalise(wave, rng)
    if rng.random() < 0.5:
        drift_db = np.interp(np.arange(WINDOW), np.linspace(0, WINDOW, 6), np.cumsum(rng.normal(0, 1.5, 6)))
        wave = wave * np.asarray(10 ** (drift_db / 20), np.float32)
    wave = wave * np.float32(ratio(level_db) / max(float(np.sqrt(np.mean(wave**2))), 1e-9))
    if rng.random() < 0.25:
        _add_clicks(wave, rng, level_db)
    if rng.random() < 0.2:
        wave = wave + np.float32(rng.uniform(-0.02, 0.02))
    return np.asarray(wave, np.float32)


def _add_clicks(wave: Wave, rng: np.random.Generator, level_db: float) -> None:
    """Add one to three decaying clicks, 6 to 20 dB above the room's level."""
    for start in rng.integers(0, WINDOW - 200, rng.integers(1, 4)):
        decay = np.exp(-np.arange(200) / rng.uniform(2, 40)) * rng.standard_normal(200)
        wave[start : start + 200] += np.asarray(decay * ratio(level_db + rng.uniform(6, 20)), np.float32)
