"""The sound of a clip: chunks on one time line, and a FLAC file of them in memory. Knows no disk and no clock."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk

FRAME_SAMPLES = 4096
"""Samples given to the encoder at once; it makes its own blocks of them."""


def joined(chunks: Sequence[Chunk], begin_ns: int, end_ns: int) -> NDArray[np.float32]:
    """The samples of [begin_ns, end_ns) of these chunks, which have one rate; where there is none, silence.

    Shortened to the time that the chunks cover. Raises FileNotFoundError if they cover none of it.
    """
    rate_hz = chunks[0].rate_hz if chunks else 1
    inside = [each for each in chunks if each.start_ns < end_ns and _end_ns(each) > begin_ns]
    if not inside:
        raise FileNotFoundError(0, "the source has sent no sound of that time")
    begin_ns = max(begin_ns, min(each.start_ns for each in inside))
    end_ns = min(end_ns, max(_end_ns(each) for each in inside))
    line = np.zeros(max(1, round((end_ns - begin_ns) * rate_hz / NS_PER_S)), np.float32)
    for chunk in sorted(inside, key=lambda each: each.start_ns):
        at = round((chunk.start_ns - begin_ns) * rate_hz / NS_PER_S)
        samples = chunk.samples[max(0, -at) : max(0, len(line) - at)]
        line[max(0, at) : max(0, at) + len(samples)] = samples
    return line


def _end_ns(chunk: Chunk) -> int:
    return chunk.start_ns + len(chunk.samples) * NS_PER_S // chunk.rate_hz


def flac(samples: NDArray[np.float32], rate_hz: int) -> bytes:
    """A FLAC file with 16 bits of these samples, (n,), -1..1."""
    body = io.BytesIO()
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    with av.open(body, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate_hz, layout="mono", format="s16")
        for at in range(0, len(whole), FRAME_SAMPLES):
            frame = av.AudioFrame.from_ndarray(whole[np.newaxis, at : at + FRAME_SAMPLES], format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return body.getvalue()
