"""What is fixed before any window: position features and the log-mel front end, in numpy. It loads no torch.

`encoding` makes tensors of the same numbers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from perceiverd.model.geometry import MEL_RATE_HZ, Modality

Floats = NDArray[np.float32]

# The log-mel front end of YAMNet, as published with AudioSet: 25 ms Hann every 10 ms at 16 kHz, 64 bands, 125-7500 Hz.
MEL_WINDOW = 400  # samples
MEL_FFT = 512  # points
MEL_LOW_HZ, MEL_HIGH_HZ = 125.0, 7500.0
MEL_OFFSET = 0.001  # added before the logarithm; silence is log(0.001) = -6.9
# Log-mel values are centred and scaled to about -1.5..2.5 for the network.
MEL_CENTRE, MEL_SPREAD = -3.5, 2.5


@lru_cache(maxsize=4)
def mel_matrix(bands: int, rate_hz: int = MEL_RATE_HZ) -> Floats:
    """(FFT bins, bands) triangles, linear in HTK mel (1127 ln(1 + f / 700)), peak 1, from 125 to 7500 Hz."""
    bins = _mel(np.linspace(0, rate_hz / 2, MEL_FFT // 2 + 1))[:, None]
    low, high = _mel(np.array([MEL_LOW_HZ, MEL_HIGH_HZ]))
    edges = np.linspace(low, high, bands + 2)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    matrix = np.minimum(rise, fall).clip(min=0)
    matrix[0] = 0  # the constant part of the signal belongs to no band
    found: Floats = matrix.astype(np.float32)
    found.flags.writeable = False  # all callers share it
    return found


def _mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(hz / 700.0)


def mel_margin(hop: int) -> int:
    """Samples that are mirrored at each end, so that the spectrogram's frames are evenly spread over the window."""
    return (MEL_WINDOW - hop) // 2


def hann_window() -> NDArray[np.float64]:
    """(400,) periodic Hann."""
    angles = 2 * np.pi * np.arange(MEL_WINDOW) / MEL_WINDOW
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(angles)
    return window


def axis_features(tokens: int, bands: int, mu: int, single: bool = False) -> Floats:
    """Fourier features (tokens, 2 * bands + 1) along one axis: raw position x, sin(pi f_k x), cos(pi f_k x).

    x goes linearly from -1 to 1, ends included; f_k linearly from 1 to mu / 2 (Jaegle et al. 2021, section 3.2).
    `single` repeats the published code operation by operation, in single precision.
    """
    if single:
        x = _linspace_single(-1, 1, tokens)[:, None] if tokens > 1 else np.zeros((1, 1), np.float32)
        angles = x * _linspace_single(1, mu / 2, bands) * np.float32(np.pi)
        return np.concatenate([x, np.sin(angles), np.cos(angles)], axis=1)
    wide = np.linspace(-1, 1, tokens)[:, None] if tokens > 1 else np.zeros((1, 1))
    exact = wide * np.linspace(1, mu / 2, bands) * np.pi  # (tokens, bands)
    return np.concatenate([wide, np.sin(exact), np.cos(exact)], axis=1).astype(np.float32)


def _linspace_single(start: float, end: float, count: int) -> Floats:
    """The same bits as `torch.linspace` in float32: it counts from the nearer end, in one fused multiply-add."""
    if count < 2:
        return np.full(count, start, np.float32)
    step = float(np.float32(np.float32(end) - np.float32(start)) / np.float32(count - 1))
    index = np.arange(count)
    from_end = np.float32(end) - step * (count - 1 - index)
    return np.where(index < count // 2, np.float32(start) + step * index, from_end).astype(np.float32)


def positions(modality: Modality) -> Floats:
    """Position features (M, axes * (2 K + 1)) of a modality's tokens.

    The order of channels is that of the published code: the raw position on every axis, then all sines (axis by axis),
    then all cosines.
    """
    factors = np.split(position_factors(modality), np.cumsum(modality.grid)[:-1], axis=1)
    axes = len(factors)
    total = np.zeros((*modality.grid, factors[0].shape[0]), np.float32)
    for axis, part in enumerate(factors):  # each channel is of one axis: the others add zeros
        shape = [-1 if i == axis else 1 for i in range(axes)]
        total += part.T.reshape(*shape, part.shape[0])
    return total.reshape(modality.tokens, -1)


def position_factors(modality: Modality) -> Floats:
    """(axes * (2 K + 1), sum of the grid): the features of every place on every axis, one place per column.

    The position features of a token, as in `positions`, are the sum of one column per axis: that of its place there.
    """
    k, axes = modality.bands, len(modality.grid)
    factors = []
    for axis, (n, mu) in enumerate(zip(modality.grid, modality.mu, strict=True)):
        features = axis_features(n, k, mu, modality.single)  # (n, 2 K + 1)
        part = np.zeros((axes * (2 * k + 1), n), np.float32)
        part[axis] = features[:, 0]
        sines = axes + axis * k
        part[sines : sines + k] = features[:, 1 : k + 1].T
        part[sines + axes * k : sines + axes * k + k] = features[:, k + 1 :].T
        factors.append(part)
    return np.concatenate(factors, axis=1)
