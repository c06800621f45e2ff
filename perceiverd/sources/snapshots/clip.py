"""A clip of stills and audio as a Matroska file in memory. Knows no disk and no clock."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.container import OutputContainer

from perceiverd.core.media import Chunk

CLIP_FPS = 5.0
"""Stills a second in a clip."""
MILLI = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class Still:
    """A picture for people. It holds no pixels for the model: nobody needs those again."""

    start_ns: int
    """Capture time on CLOCK_MONOTONIC."""
    jpeg: bytes = field(repr=False)


def clip(items: Iterable[Still | Chunk]) -> bytes:
    """A Matroska file with these stills as MJPEG and the audio of these chunks as PCM.

    Raises FileNotFoundError if there are none.
    """
    items = sorted(items, key=lambda each: each.start_ns)
    if not items:
        raise FileNotFoundError(0, "the source has sent nothing recently")
    still = next((item for item in items if isinstance(item, Still)), None)
    chunk = next((item for item in items if isinstance(item, Chunk)), None)
    body = io.BytesIO()
    with av.open(body, "w", format="matroska") as container:
        streams: dict[type[Still | Chunk], av.VideoStream | av.AudioStream] = {}
        if still is not None:
            streams[Still] = _video_stream(container, still)
        if chunk is not None:
            streams[Chunk] = container.add_stream("pcm_s16le", rate=chunk.rate_hz, layout="mono")
        for item in items:
            packet = av.Packet(item.jpeg if isinstance(item, Still) else _pcm(item))
            packet.stream, packet.time_base = streams[type(item)], MILLI
            packet.pts = packet.dts = (item.start_ns - items[0].start_ns) // 1_000_000
            if isinstance(item, Still):
                packet.is_keyframe = True
            container.mux(packet)
    return body.getvalue()


def _video_stream(container: OutputContainer, still: Still) -> av.VideoStream:
    """An MJPEG stream of this still's size."""
    with av.open(io.BytesIO(still.jpeg), "r", format="mjpeg") as opened:
        size = opened.streams.video[0]
        video = container.add_stream("mjpeg", rate=round(CLIP_FPS))
        video.width, video.height, video.pix_fmt = size.width, size.height, "yuvj420p"
        video.time_base = MILLI
    return video


def _pcm(chunk: Chunk) -> bytes:
    """Its samples as signed 16-bit integers."""
    return np.round(chunk.samples * 32767).astype("<i2").tobytes()
