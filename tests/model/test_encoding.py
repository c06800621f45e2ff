"""Tokens and positions equal references that are written from the papers with plain loops and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from perceiverd.model.encoding import (
    audio_tokens,
    log_mel,
    mel_matrix,
    position_factors,
    positions,
    video_tokens,
)
from perceiverd.model.geometry import Audio, Modality, Video
from perceiverd.model.tables import axis_features


def test_fourier_features_are_those_of_the_paper() -> None:
    """Position features are sin and cos of pi f_k x, in the published order of channels."""
    modality = Modality("video", (2, 3, 5), patch=(1, 1, 1), bands=4, resolution=(7, 11, 13))
    found = positions(modality).numpy()
    assert found.shape == (30, 3 * 9)
    row = 0
    for t in range(2):
        for y in range(3):
            for x in range(5):
                place = [-1 + 2 * t / 1, -1 + 2 * y / 2, -1 + 2 * x / 4]
                frequencies = [[1 + k * (mu / 2 - 1) / 3 for k in range(4)] for mu in (7, 11, 13)]
                sines = [math.sin(math.pi * f * p) for p, fs in zip(place, frequencies, strict=True) for f in fs]
                cosines = [math.cos(math.pi * f * p) for p, fs in zip(place, frequencies, strict=True) for f in fs]
                np.testing.assert_allclose(found[row], place + sines + cosines, atol=2e-6)
                row += 1


def test_a_single_token_is_in_the_middle() -> None:
    """The only token of an axis has position 0, not -1."""
    assert axis_features(1, 2, 4)[0].tolist() == [0, 0, 0, 1, 1]


def test_video_tokens_have_the_documented_order() -> None:
    """A token has the values of its block, 0..1, in the order frame, row, column, colour, the last fastest."""
    video = Video(frames=4, fps=5, height=6, width=15, patch=(2, 3, 5), bands=1)
    frames = torch.randint(0, 256, (2, 4, 6, 15, 3), dtype=torch.uint8)
    tokens = video_tokens(frames, video)
    assert tokens.shape == (2, 2 * 2 * 3, 2 * 3 * 5 * 3)
    t, y, x = 1, 0, 2
    block = frames[1, 2:4, 0:3, 10:15].reshape(-1) / 255.0
    torch.testing.assert_close(tokens[1, (t * 2 + y) * 3 + x], block)


def test_raw_audio_is_cut_into_segments() -> None:
    """A raw token is a segment of samples, unchanged."""
    audio = Audio(rate_hz=1000, samples=21, form="raw", patch=(7,), bands=1)
    samples = torch.arange(42, dtype=torch.float32).reshape(2, 21)
    assert audio_tokens(samples, audio)[1, 2].tolist() == list(range(35, 42))


def test_mel_tokens_have_the_documented_order() -> None:
    """A mel token is a block of the spectrogram, time first, bands fastest."""
    audio = Audio(rate_hz=16_000, samples=160 * 6, form="mel", patch=(3, 16), bands=1)
    samples = torch.randn(1, 960) * 0.1
    spectrogram = (log_mel(samples) + 3.5) / 2.5
    tokens = audio_tokens(samples, audio)
    assert tokens.shape == (1, 2 * 4, 48)
    torch.testing.assert_close(tokens[0, 1 * 4 + 2], spectrogram[0, 3:6, 32:48].reshape(-1))


def slow_log_mel(samples: np.ndarray) -> np.ndarray:
    """The front end, computed one frame and one band at a time, in float64."""
    padded = np.concatenate([samples[120:0:-1], samples, samples[-2:-122:-1]]).astype(np.float64)
    frames = []
    hann = np.array([0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)])
    edges = [1127 * math.log(1 + f / 700) for f in (125, 7500)]
    marks = [edges[0] + (edges[1] - edges[0]) * i / 65 for i in range(66)]
    for start in range(0, len(samples), 160):
        spectrum = np.abs(np.fft.fft(padded[start : start + 400] * hann, 512))[:257]
        bands = []
        for b in range(64):
            total = 0.0
            for k in range(1, 257):
                mel = 1127 * math.log(1 + k * 16_000 / 512 / 700)
                rise = (mel - marks[b]) / (marks[b + 1] - marks[b])
                fall = (marks[b + 2] - mel) / (marks[b + 2] - marks[b + 1])
                total += spectrum[k] * max(0.0, min(rise, fall))
            bands.append(math.log(total + 0.001))
        frames.append(bands)
    return np.array(frames)


def test_log_mel_equals_a_slow_reference() -> None:
    """The spectrogram equals one that is computed frame by frame and band by band."""
    samples = np.random.default_rng(3).normal(0, 0.1, 160 * 5).astype(np.float32)
    found = log_mel(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(found, slow_log_mel(samples), atol=2e-4)


@pytest.mark.parametrize("hz", [250.0, 1000.0, 3000.0, 7000.0])
def test_a_tone_peaks_in_its_band(hz: float) -> None:
    """A sine is strongest in the mel band with the nearest centre."""
    time_s = torch.arange(20_480) / 16_000
    spectrogram = log_mel(0.5 * torch.sin(2 * math.pi * hz * time_s))
    assert spectrogram.shape == (128, 64)
    low, high = (1127 * math.log(1 + f / 700) for f in (125, 7500))
    band = (1127 * math.log(1 + hz / 700) - low) / (high - low) * 65 - 1
    assert abs(spectrogram[64].argmax().item() - band) <= 1


def test_silence_is_the_lowest_value() -> None:
    """Digital silence is log(0.001) in every band."""
    assert torch.allclose(log_mel(torch.zeros(1600)), torch.tensor(math.log(0.001)))
    assert mel_matrix(64).shape == (257, 64)


def test_positions_are_the_sums_of_their_factors() -> None:
    """A token's position is the sum of one column per axis: that of its place there."""
    modality = Modality("video", (2, 3, 5), patch=(1, 1, 1), bands=4, resolution=(7, 11, 13))
    factors = position_factors(modality)
    assert factors.shape == (27, 2 + 3 + 5)
    t, y, x = factors.split(modality.grid, dim=1)
    sums = t[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]
    assert torch.equal(sums.reshape(27, 30).T, positions(modality))
