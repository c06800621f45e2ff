"""Reads files and URLs as frames and chunks, with the time within the file.

Knows nothing of the clock that a live source maps this time to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.logs import LogLimit, log_event
from perceiverd.core.media import NS_PER_S, Chunk, Media, MediaFormat
from perceiverd.sources.decode import transport
from perceiverd.sources.decode.decoders import (
    CORRUPT_RUN,
    AudioDecoder,
    DecodeCounts,
    Packet,
    StreamDecoder,
    VideoDecoder,
)
from perceiverd.sources.decode.lengths import duration_s, has_foreign_end, is_cut_short
from perceiverd.sources.decode.merge import merged
from perceiverd.sources.decode.opening import Why, name_of, open_container, open_part
from perceiverd.sources.decode.order import in_order
from perceiverd.sources.decode.packets import Demuxed, demux, on_time_line
from perceiverd.sources.decode.parts import next_part
from perceiverd.sources.decode.pipes import PipeReader
from perceiverd.sources.decode.timeline import FORWARD_LIVE_NS, FORWARD_NS, TimeLine
from perceiverd.sources.decode.tracks import ChosenTracks, choose, is_cover
from perceiverd.sources.decode.transport import PartRange
from perceiverd.sources.snapshots.jpeg import JpegEncoder
from perceiverd.sources.specs import MediaOptions, RawFormat

logger = logging.getLogger("perceiverd.sources")

CLOCKLESS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc", "image2", "mjpeg_2000"})
"""Formats without times. FFmpeg invents 25 frames a second for them, so we stamp a live one on arrival."""
WRAPPING = frozenset({"mpegts", "mpeg", "hls"})
"""Formats whose time stamps have 33 bits of 90 kHz."""
INDEXED = frozenset({"mov", "matroska", "avi", "gif", "asf", "wav", "flac"})
"""Formats whose own index covers long gaps."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the header of a file says, for a progress bar."""

    duration_s: float | None
    """None if FFmpeg can only estimate it."""
    estimate_s: float | None
    """The same, or what FFmpeg estimates, which may be far off."""
    has_audio: bool
    has_video: bool
    """Whether it has video or, under audio, a picture on its cover."""
    lines: int = 0
    """Of its pictures; 0 without video."""


def inspect(path: Path, raw: RawFormat | None = None) -> MediaInfo:
    """Read the header of a file without decoding it; of raw audio, as `raw` says. Raises MediaError."""
    with open_container(path, {}, None, None, raw=raw) as container:
        tracks = choose(container, name_of(path), MediaOptions())
        estimate_s = container.duration / av.time_base if container.duration else None
        exact_s = duration_s(container, path)
        return MediaInfo(
            exact_s,
            estimate_s,
            has_audio=tracks.audio is not None,
            has_video=tracks.video is not None,
            lines=tracks.video.height if tracks.video is not None else 0,
        )


def read(
    what: Path | str | PipeReader,
    wanted: MediaFormat,
    *,
    options: Mapping[str, str] | None = None,
    open_timeout_s: float | None = None,
    read_timeout_s: float | None = None,
    live: bool = False,
    counts: DecodeCounts | None = None,
    why: Why | None = None,
    use: MediaOptions | None = None,
    log_track: bool = False,
    raw: RawFormat | None = None,
    threads: int = 0,
    block_s: float = 0.0,
    hardware: bool = False,
    lazy: bool = False,
) -> Iterator[Media]:
    """Yield what the model wants of a file (Path), URL (str) or pipe in the container's order, from time 0 on.

    Frames are (height, width, 3) as wanted, chunks mono at the wanted rate; a missing modality is left out.
    `live` reads with little delay, stamps formats without times on arrival, and fails on damage that a file survives.
    `why` explains why a URL could not be opened. `use` names the tracks and says what to do with audio; with
    `log_track`, the choice is logged. `raw` is the format of audio without a container. `threads` decode the video of a
    file; 0 for as many as there are cores. Its audio is mixed and resampled in blocks of at least `block_s`.
    `hardware`: an NVIDIA GPU decodes the video, if there is one that can.
    With `lazy`, its frames are sized when somebody looks at their pixels.

    Of a damaged file it yields what can be read. It raises MediaError, one line, if nothing can be read, if it cannot
    be opened, or if it has nothing that the model wants; and if a live one fails or is silent for `read_timeout_s`.
    """
    programme = _Programme(what, wanted, counts or DecodeCounts(), use or MediaOptions(), read_timeout_s, live=live)
    programme.is_raw, programme.threads, programme.block_s = raw is not None, threads, block_s
    programme.lazy = lazy and not hardware  # a GPU has few surfaces for frames that wait
    with open_container(what, options or {}, open_timeout_s, read_timeout_s, why, raw, hardware=hardware) as container:
        ranges = programme.ranges(container)
        if len(ranges) < 2:
            yield from programme.media(container, log_track=log_track)
    for range_ in ranges if len(ranges) > 1 else ():
        yield from programme.media_of_range(range_, log_track=log_track)
    while len(ranges) < 2 and (part := programme.next_part()) is not None:
        with part as container:
            yield from programme.media_of_part(container)
    programme.end()


class _Programme:
    """The media of a file or URL; of a file, those of all files that were joined into it."""

    def __init__(
        self,
        what: Path | str | PipeReader,
        wanted: MediaFormat,
        counts: DecodeCounts,
        use: MediaOptions,
        read_timeout_s: float | None,
        *,
        live: bool,
    ) -> None:
        self._what, self._name, self._wanted, self._counts = what, name_of(what), wanted, counts
        self._use, self._read_timeout_s, self._live = use, read_timeout_s, live
        self._line: TimeLine[Packet] | None = None
        self._origin_ns = 0
        self._decoders: dict[int, StreamDecoder] = {}
        self._demuxed = Demuxed()
        self._end_ns, self._length_s = -1, 0.0
        self._limit = LogLimit()
        self._skipped: MediaError | None = None
        """Why the first part that was left out cannot be read."""
        self.is_raw = False
        """Whether it has no container, so its bytes say nothing of parts and lengths."""
        self.threads, self.block_s, self.lazy = 0, 0.0, False

    def media(self, container: InputContainer, *, log_track: bool = False) -> Iterator[Media]:
        """The media of one part, behind those of the parts before it."""
        self._begin(container, log_track=log_track)
        yield from self._read(container)

    def _read(self, container: InputContainer) -> Iterator[Media]:
        assert self._line
        line, indices = self._line, list(self._decoders)
        read = demux(container, indices, self._name, self._counts, self._read_timeout_s, self._demuxed, live=self._live)
        packets = on_time_line(read, line, self._name, self._decoders, self._join)
        if self._live:
            items: Iterable[Media] = _decoded(packets, self._decoders, self._name)
        else:
            items = in_order(merged(packets, self._decoders), self._counts)
        for item in items:
            self._end_ns = max(self._end_ns, item.end_ns if isinstance(item, Chunk) else item.start_ns)
            yield item

    def ranges(self, container: InputContainer) -> list[PartRange]:
        """The parts of a file whose tracks change, of which FFmpeg would read the first one only."""
        if self._live or not isinstance(self._what, Path) or container.format.name != "mpegts":
            return []
        return transport.ranges(self._what)

    def media_of_range(self, range_: PartRange, *, log_track: bool) -> Iterator[Media]:
        """The media of a part of the file. What cannot be read is reported and costs this part only."""
        assert isinstance(self._what, Path)
        try:
            part = open_part(self._what, range_.first_byte, range_.end_byte)
        except MediaError as error:
            self._skip_part(error)
            return
        with part as container:
            yield from self.media_of_part(container, log_track=log_track and self._line is None)

    def media_of_part(self, container: InputContainer, *, log_track: bool = False) -> Iterator[Media]:
        """As `media`. A part without the tracks that are wanted is reported and left out."""
        line = self._line
        try:
            self._begin(container, log_track=log_track)
        except MediaError as error:
            self._line = line
            self._skip_part(error)
            return
        yield from self._read(container)

    def _skip_part(self, error: MediaError) -> None:
        self._skipped = self._skipped or error
        self._counts.skipped_parts += 1
        reason = str(error).removeprefix(f"{self._name}: ")
        log_event(logger, logging.WARNING, "part-skipped", file=self._name, reason=reason)

    def _begin(self, container: InputContainer, *, log_track: bool) -> None:
        self._length_s += (container.duration or 0) / av.time_base
        start_ns = 0
        if self._line is None:
            self._origin_ns, self._line = _origin_ns(container), _time_line(container, live=self._live)
        else:
            self._line.new_part()
            start_ns = (self._line.end_ns or 0) - self._origin_ns
        origin_ns = None if self._live and container.format.name in CLOCKLESS else self._origin_ns
        tracks = choose(container, self._name, self._use, live=self._live)
        if log_track and self._wanted.audio_rate_hz is not None:
            tracks.log_audio(self._name, self._use)
        self._decoders = self._decoders_of(tracks, origin_ns, start_ns)
        self._counts.modalities |= {decoder.kind for decoder in self._decoders.values()}
        for stream in container.streams:
            if stream.index not in self._decoders:
                stream.discard = Discard.all

    def _decoders_of(self, tracks: ChosenTracks, origin_ns: int | None, start_ns: int) -> dict[int, StreamDecoder]:
        """The streams that the model wants, by index; FFmpeg discards all others before it demuxes them."""
        video, audio, wanted, counts = tracks.video, tracks.audio, self._wanted, self._counts
        decoders: dict[int, StreamDecoder] = {}
        if audio is not None and wanted.audio_rate_hz is not None:
            rate_hz = wanted.audio_rate_hz
            decoders[audio.index] = AudioDecoder(audio, origin_ns, counts, rate_hz, self._use, self.block_s)
        if video is not None and wanted.video is not None and (decoders or not is_cover(video)):
            # Decoding frames on several threads at once is faster, but holds as many frames back.
            video.thread_type = "SLICE" if self._live else "AUTO"
            if not self._live:
                video.codec_context.thread_count = self.threads
            stills = JpegEncoder(wanted.stills) if wanted.stills else None
            decoders[video.index] = VideoDecoder(
                video, origin_ns, counts, wanted.video, stills, start_ns, lazy=self.lazy
            )
        if decoders:
            return decoders
        only = self._use.only
        if only:
            raise MediaError(f'{self._name}: only = "{only}" is set, and the model uses no {only}; remove it')
        has, wants = ("video", "audio") if audio is None else ("audio", "video")
        raise MediaError(f"{self._name}: has only {has} and the model wants only {wants}; take another model or file")

    def _join(self, at_ns: int) -> None:
        """A part begins at this time."""
        self._counts.joins += 1
        self._counts.joined_ns = at_ns - self._origin_ns
        for decoder in self._decoders.values():
            decoder.join(at_ns)
        held = self._limit.admit(now_ns())
        if held is not None:
            at_s = f"{self._counts.joined_ns / NS_PER_S:.1f}"
            log_event(logger, logging.INFO, "media-joined", file=self._name, at_s=at_s, not_logged=held)

    def next_part(self) -> InputContainer | None:
        """The next file that was joined into this one, if FFmpeg did not reach it."""
        if self._live or self.is_raw or not isinstance(self._what, Path):
            return None
        before = self._demuxed
        after = max(before.first_byte, before.end_byte)
        at = after if before.tracks_changed else next_part(self._what, after + 1)
        if at is None or at <= before.first_byte:
            return None
        try:
            part = open_part(self._what, at)
        except MediaError:  # it only looks like a file
            return None
        self._demuxed = Demuxed(at)
        return part

    def _has_unread_rest(self) -> bool:
        if not isinstance(self._what, Path) or self.is_raw:
            return False
        return is_cut_short(self._what) or has_foreign_end(self._what, self._demuxed.end_byte)

    def end(self) -> None:
        """Log what is missing. Raises MediaError if nothing could be decoded."""
        if self._end_ns < 0 and self._skipped:
            raise self._skipped
        if self._end_ns < 0:
            hint = "check the device" if self._live else "copy or record it again"
            raise MediaError(f"{self._name}: nothing in it can be decoded; {hint}")
        counts = self._counts
        if not self._live and (counts.corrupt_packets or self._has_unread_rest()):
            log_event(
                logger,
                logging.WARNING,
                "file-damaged",
                file=self._name,
                read_s=f"{self._end_ns / NS_PER_S:.1f}",
                length_s=f"{self._length_s:.1f}",
                skipped_packets=counts.corrupt_packets,
            )
        if not self._live and (counts.refused_items or counts.ignored_packets):
            log_event(
                logger,
                logging.WARNING,
                "media-refused",
                file=self._name,
                overlapping=counts.refused_items,
                cut_s=f"{counts.cut_ns / NS_PER_S:.3f}",
                ignored_packets=counts.ignored_packets,
            )


def _time_line(container: InputContainer, *, live: bool) -> TimeLine[Packet]:
    names = set(container.format.name.split(","))
    end_ns = None
    if names & INDEXED and container.duration and not live:
        end_ns = _origin_ns(container) + (container.duration + av.time_base) * (NS_PER_S // av.time_base)
    forward_ns = FORWARD_LIVE_NS if live else FORWARD_NS
    return TimeLine(forward_ns=forward_ns, wraps=bool(names & WRAPPING), indexed_ns=end_ns)


def _decoded(packets: Iterator[Packet], decoders: dict[int, StreamDecoder], name: str) -> Iterator[Media]:
    """The media of the packets of a live stream, as they come.

    A hopeless stream that worked before is an error, because opening it again helps. If it never worked, that would not
    help and would cost the other stream, so we continue.
    """
    for packet in packets:
        if packet.dts is None and not packet.size:
            return  # a flush: when a live stream ends, what its decoders still hold is too late
        decoder = decoders[packet.stream.index]
        if isinstance(decoder, VideoDecoder):
            decoder.foresee(packet, ())
        decoder.reach(packet)
        yield from decoder.decode(packet)
        if decoder.is_hopeless and decoder.has_delivered:
            raise MediaError(
                f"{name}: {CORRUPT_RUN} packets of its {decoder.kind} in a row cannot be decoded; check the network"
            )


def _origin_ns(container: InputContainer) -> int:
    start = container.start_time  # in microseconds; None if no stream says when it begins
    return (start or 0) * (NS_PER_S // av.time_base)
