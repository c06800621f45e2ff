"""Files and URLs as frames and chunks: the only place that opens PyAV's containers.

Says what the time within the file is and knows nothing of the clock that a live source maps it on.
"""

from __future__ import annotations

import logging
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias, cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from numpy.typing import NDArray

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError, Refused
from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat
from perceiverd.sources.decode.audio import Resampler
from perceiverd.sources.decode.decimate import Decimator
from perceiverd.sources.decode.video import Sizer
from perceiverd.sources.snapshots.jpeg import JpegEncoder
from perceiverd.sources.specs import shown

logger = logging.getLogger("perceiverd.sources")

_Packet: TypeAlias = "av.Packet[av.AudioStream] | av.Packet[av.VideoStream]"

CORRUPT_RUN = 100
"""So many undecodable packets of one stream in a row, and nothing good is expected of it any more, as it is."""
CLOCKLESS = frozenset({"mpjpeg", "mjpeg", "h264", "hevc", "image2", "mjpeg_2000"})
"""Formats that carry no times; FFmpeg invents 25 pictures a second, so a live one is stamped on arrival."""
NOT_MEDIA = frozenset({"tty"})
"""Formats as which FFmpeg renders plain text to pictures."""
MP4_BOXES = (b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip")
CUT_SHORT_NS = NS_PER_S
"""A file that ends this much earlier than it says is told of."""


@dataclass(slots=True)
class DecodeCounts:
    """What was lost or left out while reading; whoever reads passes one in and looks at it."""

    corrupt_packets: int = 0
    thinned_frames: int = 0
    """Pictures that no tick of the model could need."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file says of itself, for a progress bar."""

    duration_s: float | None
    has_audio: bool
    has_video: bool


def probe(path: Path) -> Probe:
    """Look into a file without decoding it. Raises MediaError."""
    with _opened(path, {}, None, None) as container:
        video, audio = _best(container, _name(path))
        duration_s = container.duration / av.time_base if container.duration else None
        return Probe(duration_s, has_audio=audio is not None, has_video=video is not None)


def read(
    what: Path | str,
    wanted: MediaFormat,
    *,
    options: Mapping[str, str] | None = None,
    open_timeout_s: float | None = None,
    read_timeout_s: float | None = None,
    live: bool = False,
    counts: DecodeCounts | None = None,
    why: Callable[[av.FFmpegError], tuple[str, Refused]] | None = None,
) -> Iterator[Media]:
    """Yield what the model wants of a file (Path) or URL (str) in the container's order, from time 0 on.

    Frames are (height, width, 3) as wanted, chunks mono at the wanted rate; a modality that isn't there is left out.
    `live` reads with little delay, stamps formats that carry no time on arrival, and gives up where a file goes on.
    `why` says why a URL could not be opened, what to do, and whether it was refused.

    A damaged file yields what can be read of it. Raises MediaError, one line, when nothing can, when it cannot be
    opened or holds nothing the model wants, and when a live one fails or stays silent for `read_timeout_s`.
    """
    counts = counts or DecodeCounts()
    name, end_ns = _name(what), -1
    with _opened(what, options or {}, open_timeout_s, read_timeout_s, why) as container:
        tracks = _tracks(container, wanted, name, counts, live=live)
        packets = _packets(container, list(tracks), name, counts, read_timeout_s, live=live)
        for item in _decoded(packets, tracks, name, live=live):
            end_ns = max(end_ns, item.end_ns if isinstance(item, Chunk) else item.start_ns)
            yield item
        if end_ns < 0:
            hint = "check the device" if live else "copy or record it again"
            raise MediaError(f"{name}: nothing in it can be decoded; {hint}")
        said_ns = (container.duration or 0) * (NS_PER_S // av.time_base)
        if not live and (counts.corrupt_packets or end_ns < said_ns - CUT_SHORT_NS):
            log_event(
                logger,
                logging.WARNING,
                "file-damaged",
                file=name,
                read_s=f"{end_ns / NS_PER_S:.1f}",
                length_s=f"{said_ns / NS_PER_S:.1f}",
                skipped_packets=counts.corrupt_packets,
            )


class _Track(ABC):
    """One stream of the container: its time line and its bad packets."""

    def __init__(self, stream: av.AudioStream | av.VideoStream, origin_ns: int | None, counts: DecodeCounts) -> None:
        self.stream, self.counts = stream, counts
        self._origin_ns = origin_ns
        """When the container begins on the stream's own line; None stamps on arrival instead."""
        self._corrupt_run, self._opened_ns = 0, now_ns()
        self.came = False
        """Whether anything of it could be decoded yet."""

    @property
    def hopeless(self) -> bool:
        return self._corrupt_run >= CORRUPT_RUN

    def decode(self, packet: _Packet) -> Iterator[Media]:
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
            self._corrupt_run, self.came = 0, True
            yield from self.media(item)

    @abstractmethod
    def media(self, item: av.AudioFrame | av.VideoFrame) -> Iterator[Media]:
        """What comes of a decoded frame of pictures or sound."""

    def flush(self) -> Iterator[Media]:
        yield from ()

    def time_ns(self, item: av.AudioFrame | av.VideoFrame) -> int | None:
        """When the item was taken, from the container's beginning; None where it doesn't say."""
        if self._origin_ns is None:
            return now_ns() - self._opened_ns
        base = item.time_base or self.stream.time_base
        if item.pts is None or base is None:
            return None
        return item.pts * base.numerator * NS_PER_S // base.denominator - self._origin_ns


class _Sound(_Track):
    def __init__(self, stream: av.AudioStream, origin_ns: int | None, counts: DecodeCounts, rate_hz: int) -> None:
        super().__init__(stream, origin_ns, counts)
        self._resampler = Resampler(rate_hz)

    def media(self, item: av.AudioFrame | av.VideoFrame) -> Iterator[Media]:
        assert isinstance(item, av.AudioFrame)
        if item.samples and item.sample_rate > 0:
            yield from self._resampler.feed(_mono(item), item.sample_rate, self.time_ns(item))

    def flush(self) -> Iterator[Media]:
        yield from self._resampler.flush()


class _Sight(_Track):
    def __init__(
        self, stream: av.VideoStream, origin_ns: int | None, counts: DecodeCounts, wanted: MediaFormat
    ) -> None:
        super().__init__(stream, origin_ns, counts)
        assert wanted.video
        self._thinner, self._sizer = Decimator(wanted.video.fps), Sizer(wanted.video)
        self._aspect: Fraction | None = stream.sample_aspect_ratio
        self._period_ns = round(NS_PER_S / (stream.average_rate or stream.guessed_rate or 25))
        self._next_ns = 0
        self._stills = JpegEncoder(wanted.stills) if wanted.stills else None

    def media(self, item: av.AudioFrame | av.VideoFrame) -> Iterator[Media]:
        assert isinstance(item, av.VideoFrame)
        start_ns = self.time_ns(item)
        if start_ns is None:
            start_ns = self._next_ns
        self._next_ns = start_ns + self._period_ns
        if not self._thinner.keeps(start_ns):
            self.counts.thinned_frames += 1
            return
        still = self._stills.of(start_ns, item, self._aspect) if self._stills else None
        yield Frame(start_ns, self._sizer.fit(item, self._aspect), still)


def _tracks(
    container: InputContainer, wanted: MediaFormat, name: str, counts: DecodeCounts, *, live: bool
) -> dict[int, _Track]:
    """The streams that the model wants, by index; all others are discarded before they are even demuxed."""
    video, audio = _best(container, name, live=live)
    origin_ns = None if live and container.format.name in CLOCKLESS else _origin_ns(container)
    tracks: dict[int, _Track] = {}
    if audio is not None and wanted.audio_rate_hz is not None:
        tracks[audio.index] = _Sound(audio, origin_ns, counts, wanted.audio_rate_hz)
    if video is not None and wanted.video is not None:
        # Decoding by frames on several threads is faster, but holds as many frames back.
        video.thread_type = "SLICE" if live else "AUTO"
        tracks[video.index] = _Sight(video, origin_ns, counts, wanted)
    if not tracks:
        has, wants = ("sound", "pictures") if video is None else ("pictures", "sound")
        raise MediaError(f"{name}: has only {has} and the model wants only {wants}; take another model or file")
    for stream in container.streams:
        if stream.index not in tracks:
            stream.discard = Discard.all
    return tracks


def _decoded(packets: Iterator[_Packet], tracks: dict[int, _Track], name: str, *, live: bool) -> Iterator[Media]:
    """What comes of the packets, but for those of a track of a file that is past hope.

    A live one gets better again: it is opened anew, with a fresh decoder, where it was well before. Where it never was,
    that would not help and cost the other track, so it is tried on.
    """
    for packet in packets:
        if live and packet.dts is None and not packet.size:
            return  # a flush; when a live stream ends, what its decoders still hold back has missed its time
        track = tracks[packet.stream.index]
        if live or not track.hopeless:
            yield from track.decode(packet)
        if live and track.hopeless and track.came:
            what = "sound" if isinstance(track, _Sound) else "pictures"
            raise MediaError(
                f"{name}: {CORRUPT_RUN} packets of its {what} in a row cannot be decoded; check the network"
            )
    for track in tracks.values():
        yield from track.flush()


def _packets(
    container: InputContainer,
    indices: list[int],
    name: str,
    counts: DecodeCounts,
    read_timeout_s: float | None,
    *,
    live: bool,
) -> Iterator[_Packet]:
    """The packets of these streams, with the damage of a file skipped, and the decoders' flush at the end."""
    damaged, asked_ns = 0, now_ns()
    while True:
        try:
            for packet in container.demux(indices):
                _check_silence(name, asked_ns, read_timeout_s)
                yield cast(_Packet, packet)
                asked_ns = now_ns()
        except av.error.InvalidDataError as error:
            counts.corrupt_packets += 1
            damaged += 1
            if live or damaged >= CORRUPT_RUN:
                raise MediaError(f"{name}: is damaged and cannot be read on ({_why(error)})") from None
        except av.FFmpegError as error:
            if isinstance(error, av.error.ExitError):
                asked_ns = 0
            _check_silence(name, asked_ns, read_timeout_s)
            hint = "the device and the network" if live else "the disk"
            raise MediaError(f"{name}: cannot be read on ({_why(error)}); check {hint}") from None
        else:
            return


def _check_silence(name: str, asked_ns: int, read_timeout_s: float | None) -> None:
    """An interrupted read may give a last packet, the stream's end or an error, so the time decides."""
    if read_timeout_s is not None and now_ns() - asked_ns >= read_timeout_s * NS_PER_S:
        raise MediaError(f"{name}: no data for {read_timeout_s:g} s; check the device and the network")


def _opened(
    what: Path | str,
    options: Mapping[str, str],
    open_timeout_s: float | None,
    read_timeout_s: float | None,
    why: Callable[[av.FFmpegError], tuple[str, Refused]] | None = None,
) -> InputContainer:
    name = _name(what)
    if isinstance(what, Path):
        _check_file(what)
        # The prefix keeps FFmpeg from reading a colon in a file's name as a protocol; the white list keeps a playlist
        # that calls itself a clip from reaching out into the network.
        address, options = f"file:{what}", {"protocol_whitelist": "file,crypto,data", **options}
    else:
        address = what
    began_ns = now_ns()
    try:
        container = av.open(address, "r", options=dict(options), timeout=(open_timeout_s, read_timeout_s))
    except av.FFmpegError as error:
        # RTSP tells of the interruption as of damaged data, so the time decides.
        if open_timeout_s is not None and now_ns() - began_ns >= open_timeout_s * NS_PER_S:
            message = f"{name}: does not answer within {open_timeout_s:g} s; check the device and the network"
            raise MediaError(message) from None
        if isinstance(what, str) and read_timeout_s is not None and now_ns() - began_ns >= read_timeout_s * NS_PER_S:
            message = (
                f"{name}: took a call and did not answer for {read_timeout_s:g} s; check the device and the network"
            )
            raise MediaError(message) from None
        if why:
            told, refused = why(error)
            raise MediaError(f"{name}: {told}", refused) from None
        raise _told(what, name, error) from None
    if container.format.name in NOT_MEDIA:
        container.close()
        raise MediaError(f"{name}: is text, neither sound nor pictures; name a media file")
    return container


def _check_file(path: Path) -> None:
    """Refuse what FFmpeg would stumble over, block on, or tell of in its own words."""
    try:
        info = path.stat()
    except FileNotFoundError:
        raise MediaError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened ({error.strerror}); check the path and its permissions") from None
    if stat.S_ISDIR(info.st_mode):
        raise MediaError(f"{path}: is a directory; name the files in it")
    if not stat.S_ISREG(info.st_mode):
        raise MediaError(f"{path}: is a device or pipe, not a file; name a media file")
    if not info.st_size:
        raise MediaError(f"{path}: is empty (0 bytes); copy or record it again")


def _told(what: Path | str, name: str, error: av.FFmpegError) -> MediaError:
    """What opening failed on, and what to do."""
    if isinstance(what, str):
        return MediaError(f"{name}: cannot be opened ({_why(error)}); check the URL, the device and the network")
    if isinstance(error, av.error.PermissionError):
        return MediaError(f"{name}: may not be read by this user; give it read permission")
    if isinstance(error, av.error.InvalidDataError):
        with what.open("rb") as file:
            head = file.read(12)
        if head[4:8] in MP4_BOXES:
            return MediaError(f"{name}: breaks off before its index (moov), so nothing can be read; record it again")
        return MediaError(f"{name}: is neither sound nor pictures that FFmpeg knows; name a media file")
    return MediaError(f"{name}: cannot be opened ({_why(error)}); check that it is a media file")


def _why(error: av.FFmpegError) -> str:
    """FFmpeg's words without the address, which may hold a password."""
    return error.strerror or type(error).__name__


def _name(what: Path | str) -> str:
    return str(what) if isinstance(what, Path) else shown(what)


def _origin_ns(container: InputContainer) -> int:
    start = container.start_time  # in microseconds; None where no stream says when it begins
    return (start or 0) * (NS_PER_S // av.time_base)


def _best(
    container: InputContainer, name: str, *, live: bool = False
) -> tuple[av.VideoStream | None, av.AudioStream | None]:
    """The film and its sound; at least one of them."""
    video = _best_video(container)
    audio = _best_audio(container, video)
    if video is None and audio is None:
        hint = "name a media file"
        if live:
            hint = "set the device to a codec that FFmpeg knows: H.264 or H.265, AAC or G.711"
        raise MediaError(f"{name}: has neither sound nor pictures that can be decoded; {hint}")
    return video, audio


def _best_video(container: InputContainer) -> av.VideoStream | None:
    """FFmpeg's choice, but never the picture on an album's cover."""
    best = container.streams.best("video")
    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    films = [stream for stream in films if _decodable(stream)]
    return next((stream for stream in films if stream is best), films[0] if films else None)


def _best_audio(container: InputContainer, video: av.VideoStream | None) -> av.AudioStream | None:
    """FFmpeg's choice of the sound that belongs to this video."""
    best = container.streams.best("audio", related=video)
    tracks = [stream for stream in container.streams.audio if _decodable(stream)]
    return next((stream for stream in tracks if stream is best), tracks[0] if tracks else None)


def _decodable(stream: av.VideoStream | av.AudioStream) -> bool:
    """Whether this FFmpeg has a decoder for it; PyAV's stubs don't know that there may be none."""
    context: object = stream.codec_context
    return context is not None


def _mono(sound: av.AudioFrame) -> NDArray[np.float32]:
    """The mean of all channels, (S,), full scale at -1..1."""
    data = np.asarray(sound.to_ndarray())  # (channels, S), or (1, S * channels) where they are interleaved
    if not sound.format.is_planar:
        data = data.reshape(-1, sound.layout.nb_channels).T
    mono = data.mean(axis=0, dtype=np.float64).astype(np.float32)  # (S,)
    match data.dtype.kind:
        case "u":
            mono = (mono - 128) / 128
        case "i":
            mono = mono / 2 ** (8 * data.dtype.itemsize - 1)
        case _:
            # One damaged float would ring in the resampler for ever.
            mono = np.nan_to_num(mono, nan=0.0, posinf=1.0, neginf=-1.0)
    return np.asarray(mono, np.float32)
