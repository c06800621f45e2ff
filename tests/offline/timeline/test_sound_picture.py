"""The spectrogram and the envelope of audio."""

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S
from perceiverd.offline.timeline.sound_picture import BANDS, COLUMNS_PER_S, SoundPainter, SoundPicture

RATE_HZ = 16_000


def tone(hz: float, length_s: float, level: float = 0.5) -> NDArray[np.float32]:
    return np.asarray(level * np.sin(np.arange(round(length_s * RATE_HZ)) * 2 * np.pi * hz / RATE_HZ), np.float32)


def painted(samples: NDArray[np.float32], window_s: float, hop_s: float, most: int = 4096) -> SoundPicture:
    """The picture of samples that come in windows."""
    painter = SoundPainter(RATE_HZ, most)
    window, hop = round(window_s * RATE_HZ), round(hop_s * RATE_HZ)
    for at in range(0, len(samples) - window + 1, hop):
        painter.add(at * NS_PER_S // RATE_HZ, (at + window) * NS_PER_S // RATE_HZ, samples[at : at + window])
    picture = painter.picture()
    assert picture
    return picture


def test_a_tone_is_bright_in_its_band_while_it_lasts() -> None:
    """A sine of 1 kHz in the second of three seconds lights one band there, and the envelope has its level."""
    quiet = np.zeros(RATE_HZ, np.float32)
    picture = painted(np.concatenate([quiet, tone(1000, 1), quiet]), 0.5, 0.5)
    inside = picture.bands[COLUMNS_PER_S + 4 : 2 * COLUMNS_PER_S - 4]
    # The band whose middle is nearest to 1 kHz on the mel scale (O'Shaughnessy 1987).
    mels = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 8000 / 700), BANDS + 2)[1:-1]
    nearest = int(np.abs(mels - 2595 * np.log10(1 + 1000 / 700)).argmin())
    assert abs(int(inside.mean(axis=0).argmax()) - nearest) <= 1
    assert inside.max() > 240 and picture.bands[: COLUMNS_PER_S - 4].max() == 0
    assert picture.peaks[COLUMNS_PER_S + 4] == pytest.approx(255 * 0.5**0.5, abs=2)
    assert picture.peaks[5] == 0


def test_overlap_changes_nothing() -> None:
    """Windows that overlap give the same picture as windows that follow on each other."""
    samples = tone(440, 4) * np.linspace(0, 1, 4 * RATE_HZ, dtype=np.float32)
    alone, overlapping = painted(samples, 0.5, 0.5), painted(samples, 1.0, 0.125)
    assert alone.bands.shape == overlapping.bands.shape
    assert np.abs(alone.bands.astype(int) - overlapping.bands).max() <= 4
    assert (alone.peaks == overlapping.peaks).all()


def test_a_hole_is_dark_and_does_not_shift_what_follows() -> None:
    """Audio after a hole of 10 s is where its time is; long media has few columns."""
    painter = SoundPainter(RATE_HZ, 256)
    for start_s in (0, 11):
        painter.add(start_s * NS_PER_S, (start_s + 1) * NS_PER_S, tone(500, 1))
    picture = painter.picture()
    assert picture and len(picture.peaks) <= 256
    times_s = (np.arange(len(picture.peaks)) + 0.5) * picture.span_ns / NS_PER_S
    loud = picture.peaks > 100
    assert loud[(times_s < 0.8) | ((times_s > 11.2) & (times_s < 11.8))].all()
    assert not loud[(times_s > 1.2) & (times_s < 10.8)].any()


def test_padding_is_left_out_and_silence_has_no_picture() -> None:
    """Samples after a window's end are not painted; without samples there is no picture."""
    painter = SoundPainter(RATE_HZ)
    assert painter.picture() is None
    painter.add(0, NS_PER_S // 2, tone(500, 2))
    picture = painter.picture()
    assert picture and len(picture.peaks) * picture.span_ns <= 0.52 * NS_PER_S
