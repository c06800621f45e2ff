"""A picture of sound: its spectrum over time, with scales that people can read. Pure: samples in, pixels out."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 800, 320
"""The whole picture, in pixels."""
LEFT, BOTTOM, TOP, RIGHT = 52, 26, 8, 8
"""Margins for the scales, in pixels."""
FFT_S = 0.032
"""Length of one spectrum: 31 Hz apart, short enough to show a knock."""
MELS = 128
"""Bands, spaced as people hear (mel scale of O'Shaughnessy, 1987)."""
RANGE_DB = 70.0
"""From the loudest band down to black."""
LOW_HZ = 40.0
INK = (225, 225, 225)
FRAME = (24, 24, 24)
MARK = (255, 255, 255)
TICKS_HZ = (100, 250, 500, 1000, 2000, 4000, 8000, 16_000)


def spectrogram(samples: NDArray[np.float32], rate_hz: int, event_s: float) -> NDArray[np.uint8]:
    """Pixels (HEIGHT, WIDTH, 3) in RGB; `event_s` is where the event begins, in seconds from the first sample."""
    seconds = len(samples) / rate_hz
    levels = _levels(samples, rate_hz)  # (MELS, columns)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    shades = np.clip((levels - levels.max() + RANGE_DB) / RANGE_DB, 0, 1)
    grey = cv2.resize((255 * shades[::-1]).astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA)
    picture = np.full((HEIGHT, WIDTH, 3), FRAME, np.uint8)
    coloured = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    picture[TOP : TOP + height, LEFT : LEFT + width] = coloured
    _draw_frequencies(picture, rate_hz, height)
    _draw_times(picture, seconds, event_s, width)
    return picture


def _levels(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float64]:
    """The level of each band in each spectrum in dB, (MELS, columns)."""
    size = 2 ** round(np.log2(FFT_S * rate_hz))
    hop = max(size // 4, -(-len(samples) // (2 * WIDTH)))  # at most two spectra for a column of pixels
    padded = np.pad(samples, (size // 2, size))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(windows * np.hanning(size))) ** 2  # (columns, size / 2 + 1)
    mels: NDArray[np.float64] = _bands(size, rate_hz) @ power.T
    return 10 * np.log10(mels + 1e-9)


def _bands(size: int, rate_hz: int) -> NDArray[np.float64]:
    """Triangles over the bins of a spectrum, (MELS, size / 2 + 1). Each has at least the bin at its centre."""
    edges = _hz(np.linspace(_mel(np.float64(LOW_HZ)), _mel(np.float64(rate_hz / 2)), MELS + 2))
    bins = np.fft.rfftfreq(size, 1 / rate_hz)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.clip(np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)), 0, None)
    nearest = np.abs(bins - middle).argmin(axis=1)
    empty = triangles.sum(axis=1) == 0
    triangles[empty, nearest[empty]] = 1.0
    found: NDArray[np.float64] = triangles
    return found


def _mel(hz: NDArray[np.float64] | np.float64) -> NDArray[np.float64] | np.float64:
    return 2595 * np.log10(1 + hz / 700)


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return 700 * (10 ** (mel / 2595) - 1)


def _draw_frequencies(picture: NDArray[np.uint8], rate_hz: int, height: int) -> None:
    low, high = float(_mel(np.float64(LOW_HZ))), float(_mel(np.float64(rate_hz / 2)))
    for hertz in TICKS_HZ:
        if hertz < rate_hz / 2:
            y = TOP + round((height - 1) * (1 - (float(_mel(np.float64(hertz))) - low) / (high - low)))
            cv2.line(picture, (LEFT - 5, y), (LEFT - 1, y), INK)
            text = f"{hertz // 1000}k" if hertz >= 1000 else str(hertz)
            _write(picture, text, LEFT - 8, y + 4, "right")
    _write(picture, "Hz", LEFT - 8, TOP + 10, "right")


def _draw_times(picture: NDArray[np.uint8], seconds: float, event_s: float, width: int) -> None:
    step = next((each for each in (0.5, 1, 2, 5, 10, 20) if seconds / each <= 12), 60)
    first = -int(event_s // step)
    for number in range(first, first + 200):
        at = event_s + number * step
        if at > seconds:
            break
        x = LEFT + round((width - 1) * at / seconds)
        cv2.line(picture, (x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 4), INK)
        _write(picture, f"{number * step:+g} s" if number else "0", x, HEIGHT - 8, "middle")
    if 0 <= event_s <= seconds:
        x = LEFT + round((width - 1) * event_s / seconds)
        picture[TOP : HEIGHT - BOTTOM : 6, x] = picture[TOP + 1 : HEIGHT - BOTTOM : 6, x] = MARK


def _write(picture: NDArray[np.uint8], text: str, x: int, y: int, side: str) -> None:
    """Text that ends at x, or has its middle there."""
    (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    left = x - (wide if side == "right" else wide // 2)
    left = min(max(0, left), WIDTH - wide - 1)
    cv2.putText(picture, text, (left, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
