"""Mixes channels to one, so that nothing that a person hears cancels or is diluted. Knows no files and no time.

The channels are first folded to two, left and right, with the weights of ITU-R BS.775-3 (table 2): 1 for left and
right, 0.71 for the centre and for surround channels, 0 for the LFE. These two are added a quarter period apart:

    mono = gain * ((left + right) / 2 + H((left - right) / 2)),    H: the Hilbert transform

A sound that is in left and right with the amplitudes a and b comes out with the power (a^2 + b^2) / 2, as the powers of
two loudspeakers add in a room. This holds for each sound of a mix by itself, whatever the signs of a and b. So neither
anti-phase stereo cancels, nor a voice whose phase alone is inverted. Other methods do not have this property. The mean
cancels. A choice between sum and difference loses what is only in the other one, needs hysteresis, and changes in the
middle of a sound. Here nothing is chosen, so nothing clicks. If left equals right, the difference is exactly zero, and
the sound passes unchanged, bit by bit.

The gain makes the mix as loud as the loudest channel, within a factor of 4, so silent channels do not dilute: a sound
in one channel alone, or equal in left and right, keeps its level. It follows the powers of the last 0.4 s.

A quarter period serves two directions only. A third channel could still cancel against the one that it is folded onto.
For layouts of more than two channels, such a channel is inverted while its correlation with the others is below -0.5,
and until it is above -0.2; the change is a cross-fade of 10 ms.

The transform holds from about 80 Hz on. It is a filter with a look-ahead of 10 ms. The mixer works on at least 40 ms at
once, which costs a third of the CPU time of 10 ms, so it holds back up to 50 ms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.float32]
Real: TypeAlias = NDArray[np.float64]

BLOCK_S = 0.01
"""The Hilbert filter reaches this far to both sides. Powers are measured and gains are cross-faded in such blocks."""
KAISER = 6.0
"""Shape of the filter's window: ripple below 0.01 dB, and full strength from 80 Hz on."""
LEAST_BLOCKS, MOST_BLOCKS = 4, 64
"""How many blocks are mixed at once. The resampler gathers 40 ms as well, so this adds little delay."""
AVERAGE_S = 0.4
"""Time constant of the powers and correlations."""
GAIN_MOST = 4.0
FLOOR = 1e-10
"""Added to all powers (-100 dBFS): the gain goes to 1 in silence."""
INVERT_BELOW, RESTORE_ABOVE = -0.5, -0.2
"""Correlation of a channel with those it is folded onto. At -0.5 the sum has the power of one of the two."""
HALF_POWER = 0.5**0.5
FRONT = frozenset({"FL", "FR", "DL", "DR", "FLC", "FRC", "WL", "WR"})


def fold_weights(names: Sequence[str]) -> NDArray[np.float64]:
    """The weights (2, C) with which channels of these names are folded to left and right.

    The names are FFmpeg's (`FL`, `FC`, `LFE`, `SL`, ...). Of Ambisonics only the first channel counts, which has the
    sound from all sides. If a name is unknown, or none has a weight, the channels count as left and right in turn.
    """
    weights = np.array([_fold(name) or (np.nan, np.nan) for name in names], np.float64).reshape(-1, 2).T
    if np.isnan(weights).any() or not weights.any():
        left = np.arange(len(names)) % 2 == 0
        weights = np.stack([left, ~left]).astype(np.float64)
    return weights


def _fold(name: str) -> tuple[float, float] | None:
    """The weights of one channel for left and right; None if the name is unknown."""
    if name.startswith("LFE"):
        return 0.0, 0.0
    if ambisonic := re.fullmatch(r"AMBI(\d+)", name):
        share = 1.0 if int(ambisonic[1]) == 0 else 0.0
        return share, share
    weight = 1.0 if name in FRONT else HALF_POWER
    match name[1:] if name in ("FLC", "FRC") else name[-1:]:
        case "L" | "LC":
            return weight, 0.0
        case "R" | "RC":
            return 0.0, weight
        case "C":
            share = HALF_POWER if name == "FC" else HALF_POWER * HALF_POWER
            return share, share
        case _:
            return None


def hilbert_filter(half: int) -> Real:
    """The taps (2 * half + 1,) of a Hilbert transform with a delay of `half` samples; `np.convolve` applies it."""
    n = np.arange(-half, half + 1)
    odd = n % 2 != 0
    taps = np.zeros(len(n))
    taps[odd] = 2 / (np.pi * n[odd])
    return taps * np.kaiser(len(n), KAISER)


class Downmixer:
    """Mixes a stream of samples (C, S) to (S,). A single channel passes unchanged and without delay."""

    def __init__(self, names: Sequence[str], rate_hz: int) -> None:
        """`names` has FFmpeg's name of each channel."""
        self._weights = fold_weights(names)
        self._is_stereo = np.array_equal(self._weights, np.eye(2))
        self._main = np.flatnonzero(self._weights.any(axis=0))
        self._block = max(1, round(rate_hz * BLOCK_S))
        self._update = float(1 - np.exp(-self._block / rate_hz / AVERAGE_S))
        self._taps = hilbert_filter(self._block)
        self._spectra: dict[int, NDArray[np.complex64]] = {}
        """The filter's spectrum by length."""
        self._signs = np.ones(len(names))
        self._correlations = np.zeros((len(names), len(names)))
        self._channel_powers: list[float] | None = None
        """Averages of the channels that have weights; None before the first block."""
        self._mix_power = 0.0
        self._gain: float | None = None
        self._accepted = self._delivered = self._skip = 0
        self._pending = np.zeros((len(names), 0), np.float32)
        self._restart()

    @property
    def held(self) -> int:
        """How many samples were accepted and did not come out yet."""
        return self._accepted - self._delivered

    def feed(self, samples: Samples) -> Samples:
        """Accept samples (C, S); returns the mix (T,) as far as it is known."""
        if len(samples) == 1:
            mono: Samples = samples[0]
            return mono
        self._accepted += samples.shape[1]
        pending = np.concatenate([self._pending, samples], axis=1)
        blocks = pending.shape[1] // self._block
        whole = blocks * self._block if blocks >= LEAST_BLOCKS else 0
        self._pending = pending[:, whole:].copy()
        if not whole:
            return np.zeros(0, np.float32)
        step = MOST_BLOCKS * self._block
        parts = [self._mix(pending[:, at : min(at + step, whole)]) for at in range(0, whole, step)]
        mixed = np.concatenate(parts)
        self._delivered += len(mixed)
        return mixed

    def flush(self) -> Samples:
        """The end of a run: what is held back (T,). The next samples do not continue these; gain and signs stay."""
        left = self.held
        mixed = (
            self.feed(np.zeros((self._pending.shape[0], (LEAST_BLOCKS + 1) * self._block), np.float32))
            if left
            else None
        )
        self._restart()
        return np.zeros(0, np.float32) if mixed is None else mixed[:left]

    def _restart(self) -> None:
        """Forget all samples."""
        block, channels = self._block, len(self._signs)
        self._accepted = self._delivered = 0
        self._pending = np.zeros((channels, 0), np.float32)
        self._before = np.zeros((channels, block), np.float32)
        self._mid, self._side = np.zeros(block, np.float32), np.zeros(2 * block, np.float32)
        self._skip = block
        """The first block that comes out is the time before the first sample."""

    def _mix(self, samples: Samples) -> Samples:
        """Whole blocks (C, N) to the mix of the time one block earlier: (N,), less before the first sample."""
        length = samples.shape[1]
        left, right = self._folded(samples)
        mid = np.concatenate([self._mid, (left + right) / 2])
        side = np.concatenate([self._side, (left - right) / 2])
        earlier = np.concatenate([self._before, samples], axis=1)
        self._mid, self._side = mid[length:], side[length:]
        self._before = earlier[:, length:]
        mixed = mid[:length]
        if side.any():
            mixed = mixed + self._transformed(side)
        mixed = mixed * self._gains(np.concatenate([earlier[self._main, :length], mixed[None]]))
        skip, self._skip = self._skip, 0
        return np.asarray(mixed[skip:], np.float32)

    def _folded(self, samples: Samples) -> tuple[Samples, Samples]:
        """Left and right, (N,) each, of whole blocks (C, N)."""
        if self._is_stereo:
            return samples[0], samples[1]
        is_first = not self._correlations.any()
        signs = [self._signs]
        for block in samples.reshape(len(samples), -1, self._block).swapaxes(0, 1):
            self._align(block)
            signs.append(self._signs)
        if is_first:
            signs[0] = signs[1]
        weights, signed = self._weights, samples
        if all(each is signs[0] for each in signs):
            weights = weights * signs[0]
        else:
            signed = samples * _ramps(np.array(signs).T, self._block)
        left, right = weights.astype(np.float32) @ signed
        return left, right

    def _align(self, block: Samples) -> None:
        """Update the sign of each channel after this block (C, B): it must not cancel the ones before it."""
        now = block @ block.T / block.shape[1]
        self._correlations += (now - self._correlations) * (self._update if self._correlations.any() else 1.0)
        signs = self._signs.copy()
        for channel in self._main[1:]:
            # What the channel is folded onto: the earlier ones on its side, or on both sides for a centre.
            onto = (self._weights[:, channel] > 0) @ self._weights * signs
            onto[channel:] = 0
            power = self._correlations[channel, channel] * (onto @ self._correlations @ onto)
            if power > FLOOR * FLOOR:
                likeness = self._correlations[channel] @ onto / power**0.5
                bound = INVERT_BELOW if signs[channel] > 0 else RESTORE_ABOVE
                signs[channel] = -1.0 if likeness < bound else 1.0
        if (signs != self._signs).any():
            self._signs = signs

    def _transformed(self, side: Samples) -> Samples:
        """The Hilbert transform (N,) of all samples (N + 2 B,) that have B samples around them."""
        size = len(side)  # as many as the valid results need: what the transform wraps around is cut off
        if size not in self._spectra:
            self._spectra[size] = np.fft.rfft(self._taps, size).astype(np.complex64)
        wide = np.fft.irfft(np.fft.rfft(side, size) * self._spectra[size], size)
        return np.asarray(wide[2 * self._block :], np.float32)

    def _gains(self, signals: Samples) -> Samples | float:
        """The gain of each sample (N,) for channels and their mix (M + 1, N); one number if it does not change."""
        blocks = signals.reshape(len(signals), -1, self._block)
        # The sums of all rows are formed in the same way, so that equal rows have exactly equal powers.
        found = np.einsum("cnb,cnb->nc", blocks, blocks).astype(np.float64) / self._block
        # Lists, because numpy takes longer for arrays of two numbers.
        of_channels, of_mix = found[:, :-1].tolist(), found[:, -1].tolist()
        gains = list[float]()
        first = 1 if self._skip else 0  # a block before the first sample has no power to learn from
        for powers, power in zip(of_channels[first:], of_mix[first:], strict=True):
            gains.append(self._gain_of(powers, power))
        if not gains:
            return 1.0
        start = gains[0] if self._gain is None else self._gain
        self._gain = gains[-1]
        gains = [start] * (1 + first) + gains
        return gains[0] if len(set(gains)) == 1 else _ramps(np.array([gains]), self._block)[0]

    def _gain_of(self, powers: list[float], power: float) -> float:
        """The gain after a block in which the channels and the mix had these powers."""
        if self._channel_powers is None:
            self._channel_powers, self._mix_power = powers, power
        else:
            self._channel_powers = [
                before + (now - before) * self._update for before, now in zip(self._channel_powers, powers, strict=True)
            ]
            self._mix_power += (power - self._mix_power) * self._update
        loudest = max(self._channel_powers)
        return min(GAIN_MOST, math.sqrt((loudest + FLOOR) / (self._mix_power + FLOOR)))


def _ramps(values: Real, block: int) -> Samples:
    """Values (C, K + 1) at the borders of K blocks, joined by straight lines: (C, K * block)."""
    share = np.arange(1, block + 1, dtype=np.float32) / np.float32(block)
    points = values.astype(np.float32)
    starts, steps = points[:, :-1, None], np.diff(points, axis=1)[:, :, None]
    joined: Samples = (starts + steps * share).reshape(len(values), -1)
    return joined
