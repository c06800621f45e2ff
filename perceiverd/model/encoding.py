"""From a window to tokens: patches of video and audio, and the position of each in space and time.

The model's geometry fixes everything here; it does not know the network's weights.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from perceiverd.model.geometry import MEL_RATE_HZ, Audio, Modality, Video

# The log-mel front end of YAMNet, as published with AudioSet: 25 ms Hann every 10 ms at 16 kHz, 64 bands, 125-7500 Hz.
MEL_WINDOW = 400  # samples
MEL_FFT = 512  # points
MEL_LOW_HZ, MEL_HIGH_HZ = 125.0, 7500.0
MEL_OFFSET = 0.001  # added before the logarithm; silence is log(0.001) = -6.9
# Log-mel values are centred and scaled to about -1.5..2.5 for the network.
MEL_CENTRE, MEL_SPREAD = -3.5, 2.5


@lru_cache(maxsize=4)
def mel_matrix(bands: int, rate_hz: int = MEL_RATE_HZ) -> Tensor:
    """(FFT bins, bands) triangles, linear in HTK mel (1127 ln(1 + f / 700)), peak 1, from 125 to 7500 Hz."""

    def mel(hz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hz / 700.0)

    bins = mel(torch.linspace(0, rate_hz / 2, MEL_FFT // 2 + 1, dtype=torch.float64))[:, None]
    low, high = mel(torch.tensor([MEL_LOW_HZ, MEL_HIGH_HZ], dtype=torch.float64))
    edges = torch.linspace(float(low), float(high), bands + 2, dtype=torch.float64)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    matrix = torch.minimum(rise, fall).clamp(min=0)
    matrix[0] = 0  # the constant part of the signal belongs to no band
    return matrix.float()


def log_mel(samples: Tensor, *, bands: int = 64, hop: int = 160) -> Tensor:
    """Log-mel spectrogram (..., samples / hop, bands) of audio (..., samples) at 16 kHz, -1..1.

    log(mel + 0.001) of the magnitude of a 512-point FFT over 400-sample periodic Hann windows. The audio is mirrored by
    (400 - hop) / 2 samples at each end, so that frames are evenly spread over the window.
    """
    margin = (MEL_WINDOW - hop) // 2
    flat = samples.reshape(-1, samples.shape[-1])
    padded = F.pad(flat, (margin, margin), mode="reflect")
    pieces = padded.unfold(-1, MEL_WINDOW, hop)  # (B, frames, 400)
    hann = torch.hann_window(MEL_WINDOW, device=samples.device, dtype=samples.dtype)
    magnitude = torch.fft.rfft(pieces * hann, MEL_FFT).abs()  # (B, frames, 257)
    mel = magnitude @ mel_matrix(bands).to(magnitude)
    spectrogram: Tensor = torch.log(mel + MEL_OFFSET)
    return spectrogram.reshape(*samples.shape[:-1], -1, bands)


def mel_tokens(spectrogram: Tensor, audio: Audio) -> Tensor:
    """Tokens (B, M, content) of log-mel spectrograms (B, frames, bands): patches, time-major, bands fastest."""
    rows, columns = audio.patch
    x: Tensor = (spectrogram - MEL_CENTRE) / MEL_SPREAD
    x = x.unflatten(2, (-1, columns)).unflatten(1, (-1, rows))  # (B, T, rows, F, columns)
    tokens: Tensor = x.transpose(2, 3).flatten(3).flatten(1, 2)
    return tokens  # (B, T * F, rows * columns)


def audio_tokens(samples: Tensor, audio: Audio) -> Tensor:
    """Tokens (B, M, content) of audio (B, samples), -1..1, at the model's rate."""
    if audio.form == "raw":
        segments: Tensor = samples.unflatten(1, (-1, audio.patch[0]))
        return segments
    return mel_tokens(log_mel(samples, bands=audio.mel_bands, hop=audio.mel_hop), audio)


def video_tokens(frames: Tensor, video: Video) -> Tensor:
    """Tokens (B, M, content), 0..1, of frames (B, T, H, W, 3), uint8 RGB.

    Tokens are ordered by time, y, x; the values of a token by frame, row, column, colour, the last fastest.
    """
    t, h, w = video.patch
    x = frames.unflatten(3, (-1, w)).unflatten(2, (-1, h)).unflatten(1, (-1, t))  # (B, T', t, H', h, W', w, 3)
    x = x.permute(0, 1, 3, 5, 2, 4, 6, 7)  # (B, T', H', W', t, h, w, 3)
    tokens: Tensor = x.flatten(4).flatten(1, 3)  # (B, T' * H' * W', t * h * w * 3)
    return tokens / 255.0  # to float32 in the same pass


def axis_features(tokens: int, bands: int, mu: int, single: bool = False) -> Tensor:
    """Fourier features (tokens, 2 * bands + 1) along one axis: raw position x, sin(pi f_k x), cos(pi f_k x).

    x goes linearly from -1 to 1, ends included; f_k linearly from 1 to mu / 2 (Jaegle et al. 2021, section 3.2).
    `single` repeats the published code operation by operation, in single precision.
    """
    dtype = torch.float32 if single else torch.float64
    x = torch.linspace(-1, 1, tokens, dtype=dtype) if tokens > 1 else torch.zeros(1, dtype=dtype)
    angles = x[:, None] * torch.linspace(1, mu / 2, bands, dtype=dtype) * math.pi  # (tokens, bands)
    return torch.cat([x[:, None], angles.sin(), angles.cos()], dim=1).float()


def positions(modality: Modality) -> Tensor:
    """Position features (M, axes * (2 K + 1)) of a modality's tokens.

    The order of channels is that of the published code: the raw position on every axis, then all sines (axis by axis),
    then all cosines.
    """
    sizes = zip(modality.grid, modality.mu, strict=True)
    axes = [axis_features(n, modality.bands, mu, modality.single) for n, mu in sizes]
    spread = [
        features.reshape(*(-1 if i == axis else 1 for i in range(len(axes))), features.shape[1]).expand(
            *modality.grid, features.shape[1]
        )
        for axis, features in enumerate(axes)
    ]
    k = modality.bands
    parts = [f[..., :1] for f in spread] + [f[..., 1 : k + 1] for f in spread] + [f[..., k + 1 :] for f in spread]
    return torch.cat(parts, dim=-1).reshape(modality.tokens, -1)


def position_factors(modality: Modality) -> Tensor:
    """(axes * (2 K + 1), sum of the grid): the features of every place on every axis, one place per column.

    The position features of a token, as in `positions`, are the sum of one column per axis: that of its place there.
    """
    k, axes = modality.bands, len(modality.grid)
    factors = []
    for axis, (n, mu) in enumerate(zip(modality.grid, modality.mu, strict=True)):
        features = axis_features(n, k, mu, modality.single)  # (n, 2 K + 1)
        part = features.new_zeros(axes * (2 * k + 1), n)
        part[axis] = features[:, 0]
        sines = axes + axis * k
        part[sines : sines + k] = features[:, 1 : k + 1].T
        part[sines + axes * k : sines + axes * k + k] = features[:, k + 1 :].T
        factors.append(part)
    return torch.cat(factors, dim=1)
