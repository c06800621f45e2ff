"""The picture of a file's audio: a spectrogram and an envelope. Memory is bounded for any length of media."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S

MOST_COLUMNS = 16_384
"""For 3 h of media a column lasts 0.98 s; below 4 minutes it lasts 15.6 ms."""
BANDS = 48
LOWEST_HZ = 60.0
COLUMNS_PER_S = 64
"""In media that is short enough."""
FRAMES = 256
"""How many spectra are computed together: 4 s."""
RANGE_DB = 66.0
"""From the darkest to the brightest colour."""
QUIETEST_TOP_DB = -55.0
"""The brightest colour is never below this level, so that silence stays dark."""
STEP = 4
"""Bytes are rounded to multiples of this: 64 shades look the same as 256, and compress twice as well."""


@dataclass(frozen=True, slots=True)
class SoundPicture:
    """What the page draws of the audio."""

    start_ns: int
    """When the first column begins."""
    span_ns: int
    """How long a column lasts."""
    bands: NDArray[np.uint8] = field(repr=False)
    """(columns, BANDS): levels in decibels from quiet (0) to loud (255), low frequencies first."""
    peaks: NDArray[np.uint8] = field(repr=False)
    """(columns,): 255 times the square root of the largest absolute sample."""


class SoundPainter:
    """Makes the picture from windows in the order of their times. They may overlap; holes between them stay dark."""

    def __init__(self, rate_hz: int, most: int = MOST_COLUMNS) -> None:
        """`most` is even."""
        assert most % 2 == 0
        self._rate_hz = rate_hz
        self._hop = max(1, rate_hz // COLUMNS_PER_S)
        self._taper = np.hanning(2 * self._hop).astype(np.float32)
        self._filters = _mel_filters(rate_hz, 2 * self._hop)
        self._power = np.zeros((most, BANDS), np.float32)
        self._spectra = np.zeros(most, np.int32)
        self._peaks = np.zeros(most, np.float32)
        self._span_ns = self._hop * NS_PER_S // rate_hz
        self._count = 0
        self._held: list[NDArray[np.float32]] = []
        self._begin_ns = self._held_samples = 0
        """When the held samples begin, and how many they are."""

    def add(self, start_ns: int, end_ns: int, samples: NDArray[np.float32]) -> None:
        """Add the samples (S,) of a window. What belongs before its start or after its end is left out."""
        samples = samples[: (end_ns - start_ns) * self._rate_hz // NS_PER_S + 1]
        expected_ns = self._begin_ns + self._held_samples * NS_PER_S // self._rate_hz
        if start_ns > expected_ns + NS_PER_S // COLUMNS_PER_S:
            self._paint()
            self._held, self._held_samples, self._begin_ns = [], 0, start_ns
        else:
            samples = samples[max(0, round((expected_ns - start_ns) * self._rate_hz / NS_PER_S)) :]
        if len(samples):
            self._held.append(samples.copy())
            self._held_samples += len(samples)
        if self._held_samples >= FRAMES * self._hop:
            self._paint()

    def picture(self) -> SoundPicture | None:
        """The picture so far; None if there was no audio."""
        self._paint()
        if not self._count:
            return None
        spectra = np.maximum(self._spectra[: self._count, None], 1)
        levels_db = 10 * np.log10(self._power[: self._count] / spectra + 1e-12)
        top_db = max(QUIETEST_TOP_DB, float(np.percentile(levels_db, 99.7)))
        shades = np.clip((levels_db - (top_db - RANGE_DB)) / RANGE_DB, 0, 1)
        bands = (np.rint(shades * 255 / STEP) * STEP).clip(0, 255).astype(np.uint8)
        peaks = np.rint(255 * np.sqrt(np.clip(self._peaks[: self._count], 0, 1))).astype(np.uint8)
        return SoundPicture(0, self._span_ns, bands, peaks)

    def _paint(self) -> None:
        """Add the spectra of the held samples; keep those that the next spectrum needs too."""
        if self._held_samples < 2 * self._hop:
            return
        samples = np.concatenate(self._held)
        frames = np.lib.stride_tricks.sliding_window_view(samples, 2 * self._hop)[:: self._hop]  # (F, 2 hop)
        power = np.abs(np.fft.rfft(frames * self._taper)) ** 2 @ self._filters  # (F, BANDS)
        peaks = np.abs(frames).max(axis=1)
        # A spectrum stands for the hop in its middle.
        times_ns = self._begin_ns + (np.arange(len(frames)) * 2 + 1) * self._hop * NS_PER_S // (2 * self._rate_hz)
        while times_ns[-1] // self._span_ns >= len(self._power):
            self._halve()
        columns = times_ns // self._span_ns
        np.add.at(self._power, columns, power)
        np.add.at(self._spectra, columns, 1)
        np.maximum.at(self._peaks, columns, peaks)
        self._count = max(self._count, int(columns[-1]) + 1)
        done = len(frames) * self._hop
        self._held, self._held_samples = [samples[done:]], len(samples) - done
        self._begin_ns += done * NS_PER_S // self._rate_hz

    def _halve(self) -> None:
        """Each two columns become one."""
        half = len(self._power) // 2
        self._power[:half] = self._power[0::2] + self._power[1::2]
        self._spectra[:half] = self._spectra[0::2] + self._spectra[1::2]
        self._peaks[:half] = np.maximum(self._peaks[0::2], self._peaks[1::2])
        for each in (self._power, self._spectra, self._peaks):
            each[half:] = 0
        self._count, self._span_ns = -(-self._count // 2), self._span_ns * 2


def _mel_filters(rate_hz: int, samples: int) -> NDArray[np.float32]:
    """(samples // 2 + 1, BANDS): triangles whose corners are equally far apart on the mel scale (O'Shaughnessy 1987).

    Each has an area of 1, so a band has the mean power of its frequencies. A low band that is narrower than the
    distance of two frequencies takes the nearest one.
    """
    frequencies_hz = np.fft.rfftfreq(samples, 1 / rate_hz)
    mels = np.linspace(_mel(LOWEST_HZ), _mel(rate_hz / 2), BANDS + 2)
    corners_hz = 700 * (10 ** (mels / 2595) - 1)
    filters = np.zeros((len(frequencies_hz), BANDS))
    for band, (low, middle, high) in enumerate(zip(corners_hz, corners_hz[1:], corners_hz[2:], strict=False)):
        rising, falling = (frequencies_hz - low) / (middle - low), (high - frequencies_hz) / (high - middle)
        filters[:, band] = np.maximum(0, np.minimum(rising, falling))
        if not filters[:, band].any():
            filters[np.abs(frequencies_hz - middle).argmin(), band] = 1
    # A full-scale sine has a power of about (samples / 4) ** 2 behind the taper.
    return np.asarray(filters / filters.sum(axis=0) / (samples / 4) ** 2, np.float32)


def _mel(hz: float) -> float:
    return 2595 * float(np.log10(1 + hz / 700))
