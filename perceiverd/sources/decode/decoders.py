"""One audio or video stream of a container: packets in, frames and chunks out, and a count of bad packets.

Knows nothing of files, sockets or the other streams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias, cast

import av

from perceiverd.core.clock import now_ns
from perceiverd.core.media import NS_PER_S, Frame, Media, VideoFormat
from perceiverd.sources.decode.blocks import AudioBlock, BlockJoiner
from perceiverd.sources.decode.boundary import ffmpeg_errors
from perceiverd.sources.decode.decimate import Decimator
from perceiverd.sources.decode.lazy import LazyFrame
from perceiverd.sources.decode.mono import MonoResampler
from perceiverd.sources.decode.reservoir import BitReservoir
from perceiverd.sources.decode.skipping import SkipPlan
from perceiverd.sources.decode.video import Sizer
from perceiverd.sources.snapshots.jpeg import JpegEncoder
from perceiverd.sources.specs import AudioOptions

Packet: TypeAlias = "av.Packet[av.AudioStream] | av.Packet[av.VideoStream]"

CORRUPT_RUN = 100
"""After this many packets in a row that cannot be decoded, we expect nothing more of a stream as it is."""
ASSUMED_FPS = 25
TAG = b"ID3"
"""So begins a packet that FFmpeg makes of the titles in the middle of joined MP3 files. It is no damage."""
JOIN_NS = NS_PER_S // 1000
"""Time stamps are rounded to the units of their stream."""
OTHER_DECODERS = {"audio": ("aac", "mp2", "mp3", "ac3", "eac3"), "video": ()}
"""Codecs whose packets describe themselves, as in MPEG-TS. Packets of video are split by the first part's parser, so
the video of another codec cannot be decoded; its packets are counted."""


@dataclass(slots=True)
class DecodeCounts:
    """What was lost or left out. The caller passes one to the reader and can look at it any time."""

    corrupt_packets: int = 0
    ignored_packets: int = 0
    """Packets of a track that could not be decoded for long, and packets of tracks that begin in the middle."""
    refused_items: int = 0
    """Frames and pieces of audio that belong before what came already."""
    cut_ns: int = 0
    """How much audio was cut because it overlaps the audio before it."""
    joins: int = 0
    """Where time stamps went back or jumped far ahead, and media continue without a gap."""
    joined_ns: int = 0
    """The time of the newest of these, on the time line of the media."""
    skipped_parts: int = 0
    """Parts of a joined file that could not be read, or that lack the tracks that are wanted."""
    thinned_frames: int = 0
    """Decoded frames that no tick of the model could need."""
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
        base = stream.time_base
        self.unit_ns = None if not base else (base.numerator * NS_PER_S, base.denominator)
        """A unit of its time stamps, in nanoseconds, as numerator and denominator; None if the container has none.
        Packets and frames have the same one, but PyAV makes a new Fraction each time that somebody asks them."""
        self._corrupt_run, self._opened_ns = 0, now_ns()
        self._joins_ns = deque[int]()
        self._is_joined, self._joined_ns = False, 0
        """Whether no packet of the newest part could be decoded yet, and when it began."""
        self._other: av.CodecContext | None = None
        """The decoder of a later part with another codec."""
        self.end_ns = -(1 << 62)
        """The end of the audio that was decoded without a time stamp of its own, on the programme's time line."""
        self.has_delivered = False
        """Whether anything of it could be decoded so far."""

    @property
    def is_hopeless(self) -> bool:
        """Whether its last 100 packets could not be decoded."""
        return self._corrupt_run >= CORRUPT_RUN

    def join(self, at_ns: int) -> None:
        """From this time stamp on packets belong to another part, which may have another codec."""
        self._joins_ns.append(at_ns)

    def reach(self, packet: Packet) -> None:
        """This packet is the next one to be decoded."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if self._joins_ns and stamp is not None and self._nanoseconds(stamp) >= self._joins_ns[0] - JOIN_NS:
            self._corrupt_run, self._is_joined = 0, True
            self._joined_ns = self._joins_ns.popleft()

    def decode(self, packet: Packet) -> Iterator[Media]:
        """The media that come out when this packet goes in."""
        try:
            for item in self._frames(packet):
                self._corrupt_run, self.has_delivered = 0, True
                if self._is_joined and item.pts is not None:  # frames of the part before may still come
                    self._is_joined = self._nanoseconds(item.pts) < self._joined_ns - JOIN_NS
                with ffmpeg_errors():
                    yield from self.media(item)
        except av.error.EOFError:  # a flush of a decoder that has been flushed
            return
        except av.FFmpegError:
            if bytes(packet)[: len(TAG)] == TAG:
                return
            self._corrupt_run += 1
            self.counts.corrupt_packets += 1

    def _frames(self, packet: Packet) -> list[av.AudioFrame] | list[av.VideoFrame]:
        try:
            return self._decoded(packet)
        except av.error.EOFError:
            raise
        except av.FFmpegError:
            if not self._is_joined or not packet.size:
                raise
        return self._decoded_by_other(packet)

    def _decoded(self, packet: Packet) -> list[av.AudioFrame] | list[av.VideoFrame]:
        with ffmpeg_errors():
            if self._other is None:
                return packet.decode()
            return cast(av.AudioCodecContext, self._other).decode(cast("av.Packet[av.AudioStream]", packet))

    def _decoded_by_other(self, packet: Packet) -> list[av.AudioFrame] | list[av.VideoFrame]:
        """Try the decoders of other codecs, and keep the first that decodes. Raises FFmpegError if none does."""
        for name in (self.stream.codec_context.name, *OTHER_DECODERS[self.kind]):
            with suppress(av.FFmpegError), ffmpeg_errors():
                if _decodes(name, packet):
                    self._is_joined = False
                    is_first = name == self.stream.codec_context.name
                    self._other = None if is_first else av.CodecContext.create(name, "r")
                    break
        return self._decoded(packet)

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
        if (pts := item.pts) is None or self.unit_ns is None:
            return None
        return self._nanoseconds(pts) - self._origin_ns

    def _nanoseconds(self, units: int) -> int:
        up_ns, down = self.unit_ns or (0, 1)
        return units * up_ns // down


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
        block_s: float = 0.0,
    ) -> None:
        """It is mixed and resampled in blocks of at least `block_s`."""
        super().__init__(stream, origin_ns, counts)
        self._blocks, self._resampler = BlockJoiner(block_s), MonoResampler(rate_hz, options)
        self._decoded_ns = 0
        self._reservoir = BitReservoir() if stream.codec_context.codec.canonical_name == "mp3" else None

    def _frames(self, packet: Packet) -> list[av.AudioFrame] | list[av.VideoFrame]:
        needs_lost = self._reservoir is not None and self._needs_lost(self._reservoir, packet)
        frames = super()._frames(packet)
        return [] if needs_lost else frames

    def _needs_lost(self, reservoir: BitReservoir, packet: Packet) -> bool:
        """Whether the packet needs data of a lost one, so that what its decoder makes of it is noise."""
        if packet.pts is None or not packet.size or not packet.duration or self._other is not None:
            return False
        start_ns = self._nanoseconds(packet.pts)
        if reservoir.is_lost(start_ns, start_ns + self._nanoseconds(packet.duration)):
            self.stream.codec_context.flush_buffers()
        return not reservoir.suffices(bytes(packet))

    def media(self, item: av.AudioFrame | av.VideoFrame) -> Iterator[Media]:
        """Mix and resample the decoded audio."""
        assert isinstance(item, av.AudioFrame)
        if not item.samples or item.sample_rate <= 0:
            return
        start_ns = self.time_ns(item)
        lasts_ns = item.samples * NS_PER_S // item.sample_rate
        self._decoded_ns = (self._decoded_ns if start_ns is None else start_ns) + lasts_ns
        if start_ns is None:
            self.end_ns = self._decoded_ns + (self._origin_ns or 0)
        yield from self._resampled(self._blocks.add(item, start_ns))

    def flush(self) -> Iterator[Media]:
        """The last block and the end of the resampler's filter."""
        yield from self._resampled(self._blocks.flush())
        yield from self._resampler.flush()

    def _resampled(self, blocks: Iterator[AudioBlock]) -> Iterator[Media]:
        for block in blocks:
            yield from self._resampler.feed(block.samples, block.names, block.rate_hz, block.start_ns, block.stamps)


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
        start_ns: int = 0,
        *,
        lazy: bool = False,
    ) -> None:
        """`start_ns` is the time of a first frame that has none, as the picture on a cover.

        `lazy`: frames are sized when somebody looks at their pixels, except the first ones of each kind.
        Frames that no tick needs are not decoded if no other frame needs them.
        """
        super().__init__(stream, origin_ns, counts)
        self._decimator, self._sizer, self._stills = Decimator(wanted.fps), Sizer(wanted), stills
        self._plan, self._skipping = SkipPlan(self._decimator), False
        self._aspect: Fraction | None = stream.sample_aspect_ratio
        self.fps = wanted.fps
        """The model's ticks per second."""
        self.interval_ns = round(NS_PER_S / (stream.average_rate or stream.guessed_rate or ASSUMED_FPS))
        """From one frame to the next, as the container has it."""
        self.lasts_ns = 0
        """How long the newest frame is shown; 0 if the container does not say."""
        self._next_ns = start_ns
        self._lazy, self._known = lazy, set[tuple[object, ...]]()
        """Kinds of frames that could be sized: others of such a kind can be sized later."""

    def foresee(self, packet: Packet, ahead: Sequence[Packet]) -> None:
        """Tell FFmpeg whether to decode the next packet's frame. `ahead` has packets behind it, if they are known."""
        if not packet.size:
            return
        needed = packet.is_discard or self._plan.needs(self._shown_ns(packet), [self._shown_ns(p) for p in ahead])
        if needed is self._skipping:
            self._skipping = not needed
            self.stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"

    def _shown_ns(self, packet: Packet) -> int | None:
        """When the frame of this packet is shown, from the container's beginning; None if nothing says it."""
        if (pts := packet.pts) is None or self._origin_ns is None:
            return None
        return self._nanoseconds(pts) - self._origin_ns

    def media(self, item: av.AudioFrame | av.VideoFrame) -> Iterator[Media]:
        """Size the frame, unless the model does not need it."""
        assert isinstance(item, av.VideoFrame)
        start_ns = self.time_ns(item)
        if start_ns is None:
            start_ns = self._next_ns
        self._next_ns = start_ns + self.interval_ns
        self._plan.came_out(start_ns)
        if not self._decimator.keeps(start_ns):
            self.counts.thinned_frames += 1
            return
        self.lasts_ns = self._nanoseconds(item.duration or 0)
        still = self._stills.of(start_ns, item, self._aspect) if self._stills else None
        kind = (item.format.name, item.width, item.height, item.colorspace, item.rotation)
        if self._lazy and still is None and kind in self._known:
            yield LazyFrame(start_ns, item, self._aspect, self._sizer)
            return
        yield Frame(start_ns, self._sizer.fit(item, self._aspect), still)
        self._known.add(kind)


def _decodes(name: str, packet: Packet) -> bool:
    """Whether a new decoder of this name makes anything of the packet alone."""
    decoder = cast(av.AudioCodecContext, av.CodecContext.create(name, "r"))
    alone = cast("av.Packet[av.AudioStream]", packet)
    return bool(decoder.decode(alone) or decoder.decode(None))
