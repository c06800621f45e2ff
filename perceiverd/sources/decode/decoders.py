"""One audio or video stream of a container: packets in, frames and chunks out, and a count of bad packets.

Knows nothing of files, sockets or the other streams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.clock import now_ns
from perceiverd.core.media import NS_PER_S, Frame, Media, VideoFormat
from perceiverd.sources.decode.decimate import Decimator
from perceiverd.sources.decode.mono import MonoResampler
from perceiverd.sources.decode.video import Sizer
from perceiverd.sources.snapshots.jpeg import JpegEncoder
from perceiverd.sources.specs import AudioOptions

Packet: TypeAlias = "av.Packet[av.AudioStream] | av.Packet[av.VideoStream]"

CORRUPT_RUN = 100
"""After this many packets in a row that cannot be decoded, we expect nothing more of a stream as it is."""
ASSUMED_FPS = 25
LOUDEST = 16.0
"""Lossy codecs decode beyond full scale, but not beyond this: more is damage."""


@dataclass(slots=True)
class DecodeCounts:
    """What was lost or left out. The caller passes one to the reader and can look at it any time."""

    corrupt_packets: int = 0
    thinned_frames: int = 0
    """Frames that no tick of the model could need."""
    modalities: frozenset[str] = frozenset()
    """Which of `audio` and `video` are read; known when the first item comes."""


class StreamDecoder(ABC):
    """One stream of a container: its time line and its bad packets."""

    kind: str
    """`audio` or `video`, for errors."""

    def __init__(self, stream: av.AudioStream | av.VideoStream, origin_ns: int | None, counts: DecodeCounts) -> None:
        """`origin_ns` is the container's beginning on the stream's time line; None stamps items on arrival instead."""
        self.stream, self.counts = stream, counts
        self._origin_ns = origin_ns
        self._corrupt_run, self._opened_ns = 0, now_ns()
        self.has_delivered = False
        """Whether anything of it could be decoded so far."""

    @property
    def is_hopeless(self) -> bool:
        """Whether its last 100 packets could not be decoded."""
        return self._corrupt_run >= CORRUPT_RUN

    def decode(self, packet: Packet) -> Iterator[Media]:
        """The media that come out when this packet goes in."""
        try:
            decoded = packet.decode()
        except av.error.EOFError:  # a flush of a decoder that has been flushed
            return
        except av.FFmpegError:
            self._corrupt_run += 1
            self.counts.corrupt_packets += 1
            return
        for item in decoded:
            self._corrupt_run, self.has_delivered = 0, True
            yield from self.media(item)

    @abstractmethod
    def media(self, item: av.AudioFrame | av.VideoFrame) -> Iterator[Media]:
        """The frames or chunks of one decoded item."""

    def flush(self) -> Iterator[Media]:
        """What is still held back at the end."""
        yield from ()

    def time_ns(self, item: av.AudioFrame | av.VideoFrame) -> int | None:
        """When the item was captured, from the container's beginning; None if the container does not say."""
        if self._origin_ns is None:
            return now_ns() - self._opened_ns
        base = item.time_base or self.stream.time_base
        if item.pts is None or base is None:
            return None
        return item.pts * base.numerator * NS_PER_S // base.denominator - self._origin_ns


class AudioDecoder(StreamDecoder):
    """Mono chunks at the model's rate."""

    kind = "audio"

    def __init__(
        self,
        stream: av.AudioStream,
        origin_ns: int | None,
        counts: DecodeCounts,
        rate_hz: int,
        options: AudioOptions | None = None,
    ) -> None:
        super().__init__(stream, origin_ns, counts)
        self._resampler = MonoResampler(rate_hz, options)

    def media(self, item: av.AudioFrame | av.VideoFrame) -> Iterator[Media]:
        """Mix and resample the decoded audio."""
        assert isinstance(item, av.AudioFrame)
        if item.samples and item.sample_rate > 0:
            names = [channel.name for channel in item.layout.channels]
            yield from self._resampler.feed(to_channels(item), names, item.sample_rate, self.time_ns(item))

    def flush(self) -> Iterator[Media]:
        """The end of the resampler's filter."""
        yield from self._resampler.flush()


class VideoDecoder(StreamDecoder):
    """Frames of the model's size, as many as the model needs, with stills if they are wanted."""

    kind = "video"

    def __init__(
        self,
        stream: av.VideoStream,
        origin_ns: int | None,
        counts: DecodeCounts,
        wanted: VideoFormat,
        stills: JpegEncoder | None,
    ) -> None:
        super().__init__(stream, origin_ns, counts)
        self._decimator, self._sizer, self._stills = Decimator(wanted.fps), Sizer(wanted), stills
        self._aspect: Fraction | None = stream.sample_aspect_ratio
        self._period_ns = round(NS_PER_S / (stream.average_rate or stream.guessed_rate or ASSUMED_FPS))
        self._next_ns = 0

    def media(self, item: av.AudioFrame | av.VideoFrame) -> Iterator[Media]:
        """Size the frame, unless the model does not need it."""
        assert isinstance(item, av.VideoFrame)
        start_ns = self.time_ns(item)
        if start_ns is None:
            start_ns = self._next_ns
        self._next_ns = start_ns + self._period_ns
        if not self._decimator.keeps(start_ns):
            self.counts.thinned_frames += 1
            return
        still = self._stills.of(start_ns, item, self._aspect) if self._stills else None
        yield Frame(start_ns, self._sizer.fit(item, self._aspect), still)


def to_channels(audio: av.AudioFrame) -> NDArray[np.float32]:
    """The samples (C, S), full scale at -1..1."""
    data = np.asarray(audio.to_ndarray())  # (C, S), or (1, S * C) if they are interleaved
    if not audio.format.is_planar:
        data = data.reshape(-1, audio.layout.nb_channels).T
    samples: NDArray[np.float32] = data.astype(np.float32)
    match data.dtype.kind:
        case "u":
            samples = (samples - np.float32(128)) / np.float32(128)
        case "i":
            samples = samples / np.float32(2 ** (8 * data.dtype.itemsize - 1))
        case _:
            # One damaged float would ring in the filters for ever.
            samples = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -LOUDEST, LOUDEST)
    return np.asarray(samples, np.float32)
