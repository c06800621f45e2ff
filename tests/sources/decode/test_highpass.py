"""The high-pass filter, against its definition and against a loop over single samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.sources.decode.highpass import HighPass, coefficients

RATE_HZ = 16_000


def reference(samples: NDArray[np.float32], cut_hz: float) -> NDArray[np.float64]:
    """The difference equation, one sample after the other."""
    b, a = coefficients(cut_hz, RATE_HZ)
    y = np.zeros(len(samples) + 2)
    x = np.concatenate([np.zeros(2), samples.astype(np.float64)])
    for n in range(2, len(x)):
        y[n] = b[0] * x[n] + b[1] * x[n - 1] + b[2] * x[n - 2] - a[1] * y[n - 1] - a[2] * y[n - 2]
    return y[2:]


@settings(deadline=None, max_examples=25)
@given(st.floats(1, 7000), st.lists(st.integers(1, 1500), min_size=1, max_size=6))
def test_pieces_equal_the_difference_equation(cut_hz: float, pieces: list[int]) -> None:
    """However the samples are cut into pieces, the result is that of the difference equation."""
    samples = np.random.default_rng(3).normal(0, 0.2, sum(pieces)).astype(np.float32)
    filter_, ends = HighPass(cut_hz, RATE_HZ), np.cumsum(pieces)[:-1]
    result = np.concatenate([filter_.feed(piece) for piece in np.split(samples, ends)])
    assert result == pytest.approx(reference(samples, cut_hz), abs=1e-5)


@pytest.mark.parametrize("cut_hz", [50.0, 120.0, 1000.0, 4000.0])
def test_it_is_a_butterworth_filter(cut_hz: float) -> None:
    """The gain is 1 / sqrt(1 + w^-4), where w is the frequency after the bilinear transform: -3 dB at the cut."""
    b, a = coefficients(cut_hz, RATE_HZ)
    for hertz in (cut_hz / 8, cut_hz / 2, cut_hz, 2 * cut_hz, 7900.0):
        z = np.exp(-2j * np.pi * hertz / RATE_HZ)
        gain = abs((b[0] + b[1] * z + b[2] * z**2) / (a[0] + a[1] * z + a[2] * z**2))
        w = np.tan(np.pi * hertz / RATE_HZ) / np.tan(np.pi * cut_hz / RATE_HZ)
        assert gain == pytest.approx(1 / np.sqrt(1 + w**-4), rel=1e-6)


def test_reset_forgets() -> None:
    """After a reset the same samples give the same result as at first."""
    samples = np.random.default_rng(3).normal(0, 0.2, 1000).astype(np.float32)
    filter_ = HighPass(200, RATE_HZ)
    first = filter_.feed(samples)
    assert not np.array_equal(filter_.feed(samples), first)
    filter_.reset()
    assert np.array_equal(filter_.feed(samples), first)
