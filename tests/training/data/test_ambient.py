"""Streams without events: quiet audio, still video, and windows as the daemon cuts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perceiverd.model.card import load_card
from perceiverd.model.geometry import Audio, Geometry, Trunk
from perceiverd.training.data.ambient import (
    VIDEO_KINDS,
    AmbientStream,
    correct_labels,
    render_video,
    streams,
    windows_of,
)
from perceiverd.training.data.ambient_audio import AUDIO_KINDS, render_audio

AUDIO_ONLY = Geometry(
    classes=527,
    trunk=Trunk(latents=4, width=16, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=16_000, samples=8_000, form="raw", patch=(160,), bands=2),
)


@pytest.mark.parametrize("kind", AUDIO_KINDS)
def test_audio_is_quiet(kind: str) -> None:
    """Each kind of audio is finite, has 16 bits, is below -20 dB on the mean, and is a function of its seed."""
    wave = render_audio(kind, np.random.default_rng(3), 10)
    assert wave.dtype == np.float32 and wave.shape == (160_000,)
    assert np.array_equal(wave, np.round(wave * 32768) / 32768)
    assert np.sqrt(np.mean((wave - wave.mean()) ** 2)) < 0.1
    assert np.array_equal(wave, render_audio(kind, np.random.default_rng(3), 10))
    assert kind == "digital silence" or not np.array_equal(wave, render_audio(kind, np.random.default_rng(4), 10))


@pytest.mark.parametrize("kind", VIDEO_KINDS)
def test_video_hardly_changes(kind: str) -> None:
    """Frames differ only by noise and light, and those of a frozen scene are bit-identical."""
    scene = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    frames = np.stack(list(render_video(kind, np.random.default_rng(1), 10, [scene], (16, 24))))
    assert frames.shape == (125, 16, 24, 3)
    assert np.abs(np.diff(frames.astype(float), axis=0)).mean() < 40
    assert (kind == "frozen scene") == bool((frames == frames[0]).all()) or kind == "black"


def test_streams_depend_on_seed_and_number_alone(tiny_model: Path) -> None:
    """The same seed gives the same streams. A model with both modalities gets audio, video and both."""
    geometry = load_card(tiny_model).geometry
    one, other = (list(streams(geometry, [], 5, 36 / 3600, 6)) for _ in range(2))
    assert len(one) == 6
    assert {stream.modality for stream in one} == {"sound alone", "pictures alone", "sound and pictures"}
    for a, b in zip(one, other, strict=True):
        assert a.kind == b.kind
        assert a.audio is None or b.audio is None or np.array_equal(a.audio, b.audio)
        assert a.video is None or b.video is None or np.array_equal(next(a.video), next(b.video))
    assert all(stream.video is None for stream in streams(AUDIO_ONLY, [], 5, 36 / 3600, 6))


def test_windows_are_cut_as_the_daemon_cuts_them(tiny_model: Path) -> None:
    """A window starts each half second, and has both modalities if the stream has both."""
    geometry = load_card(tiny_model).geometry
    both = next(stream for stream in streams(geometry, [], 1, 1, 10) if stream.modality == "sound and pictures")
    windows = list(windows_of(geometry, both))
    assert np.diff([window.start_ns for window in windows[:-1]]).tolist() == [500_000_000] * (len(windows) - 2)
    assert len(windows) >= 19
    assert all(window.modalities == ("audio", "video") for window in windows[:-1])


def test_a_fan_is_correct_in_a_fan_stream_only() -> None:
    """A label that names a stream's own noise is correct there and wrong in other streams."""
    fan, hiss = (AmbientStream(kind, np.zeros(1, np.float32), None, 1) for kind in ("fan + black", "hiss"))
    assert "Mechanical fan" in correct_labels(fan) and "Mechanical fan" not in correct_labels(hiss)
    assert "Silence" in correct_labels(hiss)
