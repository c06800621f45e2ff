"""From a window to tokens: patches of video and audio, and the position of each in space and time.

The model's geometry fixes everything here; it does not know the network's weights.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from perceiverd.model import tables
from perceiverd.model.geometry import MEL_RATE_HZ, Audio, Modality, Video
from perceiverd.model.tables import MEL_CENTRE, MEL_FFT, MEL_OFFSET, MEL_SPREAD, MEL_WINDOW


@lru_cache(maxsize=4)
def mel_matrix(bands: int, rate_hz: int = MEL_RATE_HZ) -> Tensor:
    """`tables.mel_matrix`."""
    return torch.from_numpy(tables.mel_matrix(bands, rate_hz).copy())


def log_mel(samples: Tensor, *, bands: int = 64, hop: int = 160, matrix: Tensor | None = None) -> Tensor:
    """Log-mel spectrogram (..., samples / hop, bands) of audio (..., samples) at 16 kHz, -1..1.

    log(mel + 0.001) of the magnitude of a 512-point FFT over 400-sample periodic Hann windows. The audio is mirrored by
    (400 - hop) / 2 samples at each end, so that frames are evenly spread over the window. `matrix`:
    `mel_matrix(bands)`, if it is already on the device of the samples.
    """
    margin = (MEL_WINDOW - hop) // 2
    flat = samples.reshape(-1, samples.shape[-1])
    padded = F.pad(flat, (margin, margin), mode="reflect")
    pieces = padded.unfold(-1, MEL_WINDOW, hop)  # (B, frames, 400)
    hann = torch.hann_window(MEL_WINDOW, device=samples.device, dtype=samples.dtype)
    magnitude = torch.fft.rfft(pieces * hann, MEL_FFT).abs()  # (B, frames, 257)
    mel = magnitude @ (mel_matrix(bands) if matrix is None else matrix).to(magnitude)
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


def positions(modality: Modality) -> Tensor:
    """`tables.positions`."""
    return torch.from_numpy(tables.positions(modality))


def position_factors(modality: Modality) -> Tensor:
    """`tables.position_factors`."""
    return torch.from_numpy(tables.position_factors(modality))
