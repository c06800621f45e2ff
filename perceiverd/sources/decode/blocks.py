"""Joins decoded frames of audio into blocks: to convert, mix and resample 250 ms at once costs little more than 20 ms.

Knows no containers and no rates of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S
from perceiverd.sources.decode.audio import GAP_NS

LOUDEST = 16.0
"""Lossy codecs decode beyond full scale, but not beyond this: more is damage."""


@dataclass(frozen=True, slots=True, eq=False)
class AudioBlock:
    """A stretch of audio without a seam."""

    samples: NDArray[np.float32]
    """(C, S), full scale at -1..1."""
    names: tuple[str, ...]
    """FFmpeg's name of each channel."""
    rate_hz: int
    start_ns: int | None
    """When the first sample was captured, by the mean of what its frames say; None means right after the last block."""
    stamps: int
    """How many frames say it."""


class _Kind(NamedTuple):
    """What frames of a block have in common. A tuple, because each packet makes one."""

    layout: str
    format: str
    rate_hz: int
    channels: int


class BlockJoiner:
    """Gathers frames until a block is long enough, or until a frame does not continue it."""

    def __init__(self, least_s: float) -> None:
        """0 makes each frame a block, as live audio needs it."""
        self._least_s = least_s
        self._kind: _Kind | None = None
        self._starts_ns: list[int] = []
        """When the block begins, as each of its frames says."""
        self._held: list[av.AudioFrame] = []
        self._count = 0
        self._names: dict[str, tuple[str, ...]] = {}

    def add(self, frame: av.AudioFrame, start_ns: int | None) -> Iterator[AudioBlock]:
        """Accept the next frame, of which the first sample was captured at `start_ns`; None: right after the last."""
        kind = _Kind(frame.layout.name, frame.format.name, frame.sample_rate, frame.layout.nb_channels)
        if kind != self._kind or not self._continues(start_ns):
            yield from self.flush()
        self._kind = kind
        self._held.append(frame)
        if start_ns is not None:
            self._starts_ns.append(start_ns - self._lasts_ns)
        self._count += frame.samples
        if self._count >= self._least_s * kind.rate_hz:
            yield from self.flush()

    def flush(self) -> Iterator[AudioBlock]:
        """The block so far."""
        if not self._held:
            return
        held, starts_ns = self._held, self._starts_ns
        start_ns = round(sum(starts_ns) / len(starts_ns)) if starts_ns else None
        self._held, self._starts_ns, self._count = [], [], 0
        yield AudioBlock(to_channels(held), self._names_of(held[0]), held[0].sample_rate, start_ns, len(starts_ns))

    def _continues(self, start_ns: int | None) -> bool:
        if start_ns is None or not self._held:
            return True
        return bool(self._starts_ns) and abs(start_ns - self._lasts_ns - self._starts_ns[-1]) <= GAP_NS

    @property
    def _lasts_ns(self) -> int:
        """How long the block is so far."""
        return self._count * NS_PER_S // self._kind.rate_hz if self._kind else 0

    def _names_of(self, frame: av.AudioFrame) -> tuple[str, ...]:
        layout = frame.layout
        if layout.name not in self._names:
            self._names[layout.name] = tuple(channel.name for channel in layout.channels)
        return self._names[layout.name]


def to_channels(frames: list[av.AudioFrame]) -> NDArray[np.float32]:
    """The samples of frames of one format, one after the other: (C, S), full scale at -1..1."""
    first = frames[0]
    data = np.concatenate([np.asarray(frame.to_ndarray()) for frame in frames], axis=1)
    if not first.format.is_planar:  # (1, S * C), so far
        data = data.reshape(-1, first.layout.nb_channels).T
    samples: NDArray[np.float32] = data.astype(np.float32)
    match data.dtype.kind:
        case "u":
            samples = (samples - np.float32(128)) / np.float32(128)
        case "i":
            samples = samples / np.float32(2 ** (8 * data.dtype.itemsize - 1))
        case _:
            # One damaged float would ring in the filters for ever. It also shows in the sum, which is quick to form.
            if not math.isfinite(samples.sum()):
                samples = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
            samples = np.clip(samples, -LOUDEST, LOUDEST)
    return np.asarray(samples, np.float32)
