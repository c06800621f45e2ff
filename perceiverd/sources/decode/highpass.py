"""A high-pass filter for streams: wind, handling noise and mains hum stay out. Knows no time and no files.

A Butterworth filter of second order by the bilinear transform: -3 dB at its frequency, 12 dB per octave below it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BLOCK = 256
"""Samples that are computed at once. The result does not depend on it."""
HIGHEST = 0.45
"""The highest frequency as a share of the sample rate: half the rate would leave nothing."""


def coefficients(cut_hz: float, rate_hz: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerator (3,) and denominator (3,) of the transfer function in 1/z; the denominator begins with 1."""
    k = math.tan(math.pi * min(cut_hz / rate_hz, HIGHEST))
    scale = 1 + math.sqrt(2) * k + k * k
    numerator = np.array([1.0, -2.0, 1.0]) / scale
    denominator = np.array([1.0, 2 * (k * k - 1) / scale, (1 - math.sqrt(2) * k + k * k) / scale])
    return numerator, denominator


class HighPass:
    """Filters samples piece by piece, without seams."""

    def __init__(self, cut_hz: float, rate_hz: int) -> None:
        b, a = coefficients(cut_hz, rate_hz)
        # y = C s + D x, s' = A s + B x (transposed direct form). A whole block is one product with a matrix made of
        # powers of A, because a loop over single samples is slow in Python.
        step = np.array([[-a[1], 1.0], [-a[2], 0.0]])
        enter = np.array([b[1] - a[1] * b[0], b[2] - a[2] * b[0]])
        powers = [np.eye(2)]
        for _ in range(BLOCK):
            powers.append(powers[-1] @ step)
        self._powers = np.array(powers)  # (BLOCK + 1, 2, 2)
        self._seen = self._powers[:BLOCK, 0]  # (BLOCK, 2): the state's share of each output
        self._entered = self._powers[:BLOCK] @ enter  # (BLOCK, 2): what an input leaves in the state after n steps
        response = np.concatenate([b[:1], self._entered[:-1, 0]])
        lag = np.arange(BLOCK)[:, None] - np.arange(BLOCK)
        self._response = np.where(lag >= 0, response[np.maximum(lag, 0)], 0.0)  # (BLOCK, BLOCK)
        self._state = np.zeros(2)

    def reset(self) -> None:
        """Forget all samples: the next ones do not continue them."""
        self._state = np.zeros(2)

    def feed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Filter the next samples (S,)."""
        x = samples.astype(np.float64)
        y = np.empty_like(x)
        for first in range(0, len(x), BLOCK):
            piece = x[first : first + BLOCK]
            n = len(piece)
            y[first : first + n] = self._response[:n, :n] @ piece + self._seen[:n] @ self._state
            self._state = self._powers[n] @ self._state + piece[::-1] @ self._entered[:n]
        return y.astype(np.float32)
