"""The sound of clips: joined, encoded, and drawn."""

import io

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.sources.snapshots.sound import flac, joined
from perceiverd.sources.snapshots.spectrogram import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, spectrogram

RATE_HZ = 16_000


def chunks(*parts: tuple[float, float]) -> list[Chunk]:
    """Chunks from second to second; each sample is its own time in seconds / 100."""
    made = []
    for begin_s, end_s in parts:
        times = np.arange(round(begin_s * RATE_HZ), round(end_s * RATE_HZ)) / RATE_HZ
        made.append(Chunk(round(begin_s * NS_PER_S), (times / 100).astype(np.float32), RATE_HZ))
    return made


def seconds(begin_s: float, end_s: float) -> tuple[int, int]:
    return round(begin_s * NS_PER_S), round(end_s * NS_PER_S)


def test_chunks_are_joined_at_their_times() -> None:
    """In any order; what is missing between them is silence."""
    line = joined(chunks((2, 3), (0, 1), (1, 1.5)), *seconds(0.25, 2.75))
    times = 0.25 + np.arange(len(line)) / RATE_HZ
    assert len(line) == 2.5 * RATE_HZ
    expected = np.where((times >= 1.5) & (times < 2), 0, times / 100)
    assert np.abs(line - expected).max() < 1e-6


def test_the_line_is_as_long_as_the_sound() -> None:
    """A clip that was wanted for longer than the source has sent is shorter."""
    assert len(joined(chunks((1, 2)), *seconds(0, 9))) == RATE_HZ
    for nothing in ([], chunks((1, 2))):
        with pytest.raises(FileNotFoundError):
            joined(nothing, *seconds(5, 9))


def test_flac_has_the_samples() -> None:
    """All of them, with 16 bits, at the rate; what is too loud is clipped."""
    rng = np.random.default_rng(3)
    samples = (0.4 * rng.standard_normal(10_007)).astype(np.float32)
    with av.open(io.BytesIO(flac(samples, RATE_HZ)), "r") as container:
        assert container.streams.audio[0].rate == RATE_HZ
        found = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    assert np.array_equal(found, np.round(np.clip(samples, -1, 1) * 32767))


def pixels(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The brightness inside the scales, (rows, columns)."""
    inside: NDArray[np.float64] = picture[TOP : HEIGHT - BOTTOM, LEFT : WIDTH - RIGHT].astype(float).mean(axis=2)
    return inside


@pytest.mark.parametrize(("hertz", "least", "most"), [(200, 0.75, 0.95), (1000, 0.5, 0.7), (6000, 0.05, 0.2)])
def test_a_tone_is_a_line_at_its_height(hertz: float, least: float, most: float) -> None:
    """High tones are at the top. The line lasts as long as the tone."""
    times = np.arange(4 * RATE_HZ) / RATE_HZ
    tone = np.where(times < 2, np.sin(2 * np.pi * hertz * times), 0).astype(np.float32) * 0.1
    shown = pixels(spectrogram(tone, RATE_HZ, -1.0))
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert least < row / shown.shape[0] < most
    assert shown[row, : shown.shape[1] * 45 // 100].min() > 100
    assert shown[row, shown.shape[1] * 55 // 100 :].max() < 20
    assert column < shown.shape[1] / 2


@pytest.mark.parametrize(("samples", "event_s"), [(1, 0.0), (100, 5.0), (RATE_HZ, -1.0), (120 * RATE_HZ, 60.0)])
def test_every_length_has_a_picture(samples: int, event_s: float) -> None:
    """From one sample to two minutes, also of silence, and with an event outside of it."""
    for sound in (np.zeros(samples, np.float32), np.full(samples, np.float32(0.5))):
        assert spectrogram(sound, RATE_HZ, event_s).shape == (HEIGHT, WIDTH, 3)
