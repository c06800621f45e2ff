"""Tones: levels, labels, spectrum and seed."""

import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.training.synthesis import tones
from perceiverd.training.synthesis.tones import RATE_HZ, SAMPLES


def test_sounds_have_audioset_labels() -> None:
    """Every sound has 6 s, half of full scale, and names of AudioSet."""
    for path, wave, names in tones.sounds():
        assert wave.shape == (SAMPLES,), path
        assert np.abs(wave).max() == pytest.approx(0.5)
        assert all(ontology().find(name) for name in names)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_has_its_colour(slope: float) -> None:
    """The power falls by 3 dB an octave for each unit of slope."""
    wave = tones.coloured_noise(np.random.default_rng(0), 1 << 16, slope)
    power = np.abs(np.fft.rfft(wave)) ** 2
    octaves = [10 * np.log10(power[1 << k : 2 << k].mean()) for k in range(8, 15)]
    assert np.diff(octaves).mean() == pytest.approx(-3.01 * slope, abs=0.2)
    assert np.mean(wave**2) == pytest.approx(1, rel=1e-3)


def test_the_same_seed_gives_the_same_sounds() -> None:
    """Two calls with one seed give the same samples."""
    one, other = ([wave[RATE_HZ] for _, wave, _ in tones.sounds(seed)] for seed in (3, 3))
    assert one == other
