"""Fills holes in audio from the audio on both sides. Pure: samples in, samples out; it knows no time and no cause.

Each hole gets the reflection of the audio before it and of the audio after it, with a cross-fade of equal power from
the one to the other. We compared this with silence between short fades, with the repetition of the last pitch period
and with noise of the same spectrum: it changes the model's scores least (docs/explanation/time-and-synchrony.md).
A codec's own concealment would need the decoder, and most of FFmpeg's decoders have none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
"""The index of the first sample, and the index after the last one."""


def conceal(samples: NDArray[np.float32], holes: Sequence[Span]) -> NDArray[np.float32]:
    """The samples (S,), -1..1, with new values in these holes; `samples` itself if there is no hole.

    The holes are in order and apart from each other. What `samples` has in them is not used. All other samples stay
    as they are. A hole at the beginning or end has audio on one side only; without any audio the result is silence.
    """
    if not holes:
        return samples
    filled = samples.copy()
    ends = [0, *(end for _, end in holes)]
    begins = [*(begin for begin, _ in holes), len(samples)]
    for number, (begin, end) in enumerate(holes):
        before = samples[ends[number] : begin]
        after = samples[end : begins[number + 1]]
        filled[begin:end] = _between(before, after, end - begin)
    return filled


def _between(before: NDArray[np.float32], after: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """`count` samples that lead from the audio before them to the audio after them."""
    left = _reflected(before[::-1], count)
    right = _reflected(after, count)[::-1]
    if not len(before) or not len(after):
        return left + right  # one of them is silence
    angle = np.linspace(0, np.pi / 2, count + 2, dtype=np.float32)[1:-1]
    # The two are not alike, so their powers add up, not their amplitudes. Where they are alike the sum may be too loud.
    return (left * np.cos(angle) + right * np.sin(angle)).clip(-1, 1)


def _reflected(audio: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """`count` samples of this audio, forwards, then backwards and so on; zeros if there is no audio."""
    if not len(audio):
        return np.zeros(count, np.float32)
    used = audio[:count]
    return np.resize(np.concatenate([used, used[::-1]]), count)
