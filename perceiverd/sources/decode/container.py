"""Reads files and URLs as frames and chunks, with the time within the file.

Knows nothing of the clock that a live source maps this time to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.stream import Discard

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S, Chunk, Media, MediaFormat
from perceiverd.sources.decode.decoders import (
    CORRUPT_RUN,
    AudioDecoder,
    DecodeCounts,
    Packet,
    StreamDecoder,
    VideoDecoder,
)
from perceiverd.sources.decode.opening import Why, message_of, name_of, open_container
from perceiverd.sources.decode.tracks import Tracks, choose
from perceiverd.sources.snapshots.jpeg import JpegEncoder
from perceiverd.sources.specs import MediaOptions

logger = logging.getLogger("perceiverd.sources")

CLOCKLESS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc", "image2", "mjpeg_2000"})
"""Formats without times. FFmpeg invents 25 frames a second for them, so we stamp a live one on arrival."""
CUT_SHORT_NS = NS_PER_S
"""We log a file that ends this much earlier than its header says."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the header of a file says, for a progress bar."""

    duration_s: float | None
    has_audio: bool
    has_video: bool


def inspect(path: Path) -> MediaInfo:
    """Read the header of a file without decoding it. Raises MediaError."""
    with open_container(path, {}, None, None) as container:
        tracks = choose(container, name_of(path), MediaOptions())
        duration_s = container.duration / av.time_base if container.duration else None
        return MediaInfo(duration_s, has_audio=tracks.audio is not None, has_video=tracks.video is not None)


def read(
    what: Path | str,
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
) -> Iterator[Media]:
    """Yield what the model wants of a file (Path) or URL (str) in the container's order, from time 0 on.

    Frames are (height, width, 3) as wanted, chunks mono at the wanted rate; a missing modality is left out.
    `live` reads with little delay, stamps formats without times on arrival, and fails on damage that a file survives.
    `why` explains why a URL could not be opened. `use` names the tracks and says what to do with audio; with
    `log_track`, the choice is logged.

    Of a damaged file it yields what can be read. It raises MediaError, one line, if nothing can be read, if it cannot
    be opened, or if it has nothing that the model wants; and if a live one fails or is silent for `read_timeout_s`.
    """
    counts = counts or DecodeCounts()
    name, end_ns = name_of(what), -1
    with open_container(what, options or {}, open_timeout_s, read_timeout_s, why) as container:
        use = use or MediaOptions()
        tracks = choose(container, name, use, live=live)
        if log_track and wanted.audio_rate_hz is not None:
            tracks.log_audio(name, use)
        decoders = _decoders(container, tracks, wanted, name, counts, use, live=live)
        counts.modalities = frozenset(decoder.kind for decoder in decoders.values())
        packets = _packets(container, list(decoders), name, counts, read_timeout_s, live=live)
        for item in _decoded(packets, decoders, name, live=live):
            end_ns = max(end_ns, item.end_ns if isinstance(item, Chunk) else item.start_ns)
            yield item
        if end_ns < 0:
            hint = "check the device" if live else "copy or record it again"
            raise MediaError(f"{name}: nothing in it can be decoded; {hint}")
        if not live:
            _log_damage(container, name, end_ns, counts)


def _log_damage(container: InputContainer, name: str, end_ns: int, counts: DecodeCounts) -> None:
    length_ns = (container.duration or 0) * (NS_PER_S // av.time_base)
    if counts.corrupt_packets or end_ns < length_ns - CUT_SHORT_NS:
        log_event(
            logger,
            logging.WARNING,
            "file-damaged",
            file=name,
            read_s=f"{end_ns / NS_PER_S:.1f}",
            length_s=f"{length_ns / NS_PER_S:.1f}",
            skipped_packets=counts.corrupt_packets,
        )


def _decoders(
    container: InputContainer,
    tracks: Tracks,
    wanted: MediaFormat,
    name: str,
    counts: DecodeCounts,
    use: MediaOptions,
    *,
    live: bool,
) -> dict[int, StreamDecoder]:
    """The streams that the model wants, by index; FFmpeg discards all others before it demuxes them."""
    video, audio = tracks.video, tracks.audio
    origin_ns = None if live and container.format.name in CLOCKLESS else _origin_ns(container)
    decoders: dict[int, StreamDecoder] = {}
    if audio is not None and wanted.audio_rate_hz is not None:
        decoders[audio.index] = AudioDecoder(audio, origin_ns, counts, wanted.audio_rate_hz, use)
    if video is not None and wanted.video is not None:
        # Decoding frames on several threads at once is faster, but holds as many frames back.
        video.thread_type = "SLICE" if live else "AUTO"
        stills = JpegEncoder(wanted.stills) if wanted.stills else None
        decoders[video.index] = VideoDecoder(video, origin_ns, counts, wanted.video, stills)
    if not decoders:
        has, wants = ("audio", "video") if video is None else ("video", "audio")
        if use.only:
            raise MediaError(f'{name}: only = "{use.only}" is set, and the model uses no {use.only}; remove it')
        raise MediaError(f"{name}: has only {has} and the model wants only {wants}; take another model or file")
    for stream in container.streams:
        if stream.index not in decoders:
            stream.discard = Discard.all
    return decoders


def _decoded(
    packets: Iterator[Packet], decoders: dict[int, StreamDecoder], name: str, *, live: bool
) -> Iterator[Media]:
    """The media of these packets.

    In a file, a hopeless stream is ignored from then on. A hopeless live stream that worked before is an error, because
    opening it again helps. If it never worked, that would not help and would cost the other stream, so we continue.
    """
    for packet in packets:
        if live and packet.dts is None and not packet.size:
            return  # a flush: when a live stream ends, what its decoders still hold is too late
        decoder = decoders[packet.stream.index]
        if live or not decoder.is_hopeless:
            yield from decoder.decode(packet)
        if live and decoder.is_hopeless and decoder.has_delivered:
            raise MediaError(
                f"{name}: {CORRUPT_RUN} packets of its {decoder.kind} in a row cannot be decoded; check the network"
            )
    for decoder in decoders.values():
        yield from decoder.flush()


def _packets(
    container: InputContainer,
    indices: list[int],
    name: str,
    counts: DecodeCounts,
    read_timeout_s: float | None,
    *,
    live: bool,
) -> Iterator[Packet]:
    """The packets of these streams and, at the end, the decoders' flush; skips damage in a file."""
    damaged, asked_ns = 0, now_ns()
    while True:
        try:
            for packet in container.demux(indices):
                _check_silence(name, asked_ns, read_timeout_s)
                yield cast(Packet, packet)
                asked_ns = now_ns()
        except av.error.InvalidDataError as error:
            counts.corrupt_packets += 1
            damaged += 1
            if live or damaged >= CORRUPT_RUN:
                hint = "check the network" if live else "copy or record it again"
                raise MediaError(
                    f"{name}: is damaged and cannot be read further ({message_of(error)}); {hint}"
                ) from None
        except av.FFmpegError as error:
            if isinstance(error, av.error.ExitError):
                asked_ns = 0
            _check_silence(name, asked_ns, read_timeout_s)
            hint = "the device and the network" if live else "the disk"
            raise MediaError(f"{name}: cannot be read further ({message_of(error)}); check {hint}") from None
        else:
            return


def _check_silence(name: str, asked_ns: int, read_timeout_s: float | None) -> None:
    """An interrupted read may return a last packet, the stream's end or an error, so the time decides."""
    if read_timeout_s is not None and now_ns() - asked_ns >= read_timeout_s * NS_PER_S:
        raise MediaError(f"{name}: no data for {read_timeout_s:g} s; check the device and the network")


def _origin_ns(container: InputContainer) -> int:
    start = container.start_time  # in microseconds; None if no stream says when it begins
    return (start or 0) * (NS_PER_S // av.time_base)
