"""Chooses the video and the audio track of a container, and reports the choice. Decodes nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.stream import Disposition

from perceiverd.core.errors import MediaError
from perceiverd.core.logs import log_event
from perceiverd.sources.specs import MediaOptions

logger = logging.getLogger("perceiverd.sources")

SYNONYMS = (
    "alb sqi, arm hye, baq eus, bur mya, chi zho, cze ces, dut nld, fre fra, geo kat, ger deu, gre ell, ice isl, "
    "mac mkd, mao mri, may msa, per fas, rum ron, slo slk, tib bod, wel cym"
)
"""ISO 639-2 has two codes for these languages: Matroska uses the first, MP4 mostly the second."""
TERMINOLOGICAL = dict(pair.split() for pair in SYNONYMS.split(", "))


@dataclass(frozen=True, slots=True)
class ChosenTracks:
    """The tracks of a container that are used."""

    video: av.VideoStream | None
    audio: av.AudioStream | None
    audio_tracks: tuple[av.AudioStream, ...]
    """All its audio tracks, in order."""

    def log_audio(self, name: str, options: MediaOptions) -> None:
        """Log which audio track is used; a warning if there was a choice that nobody has made."""
        if self.audio is None:
            return
        is_open = options.track is None and len(self.audio_tracks) > 1
        log_event(
            logger,
            logging.WARNING if is_open else logging.INFO,
            "track-chosen",
            source=name,
            track=self.audio_tracks.index(self.audio),
            tracks=described(self.audio_tracks),
            layout=self.audio.layout.name,
            mix=_mix(self.audio, options),
        )


def choose(container: InputContainer, name: str, options: MediaOptions, *, live: bool = False) -> ChosenTracks:
    """The video and the audio track to use; at least one of them. Raises MediaError."""
    video = _best_video(container)
    tracks = tuple(container.streams.audio)
    film = None if video and is_cover(video) else video
    audio = _best_audio(container, film) if options.track is None else _named_audio(tracks, name, options.track)
    if film is None and (live or audio is None or options.only == "video"):
        video = None
    if video is None and audio is None:
        hint = "name a media file"
        if live:
            hint = "set the device to a codec that FFmpeg knows: H.264 or H.265, AAC or G.711"
        raise MediaError(f"{name}: has neither audio nor video that can be decoded; {hint}")
    if options.only and (video if options.only == "video" else audio) is None:
        raise MediaError(f'{name}: has no {options.only} that can be decoded, and only = "{options.only}" is set')
    if options.only == "video":
        audio = None
    elif options.only == "audio":
        video = None
    if audio is not None:
        _check(audio, name, options)
    return ChosenTracks(video, audio, tracks)


def described(tracks: tuple[av.AudioStream, ...]) -> list[str]:
    """Number and language of each track: `0`, `1:eng`."""
    return [
        f"{number}:{stream.language}" if stream.language not in (None, "und") else str(number)
        for number, stream in enumerate(tracks)
    ]


def is_language(have: str | None, wanted: str) -> bool:
    """Whether a track's language code means the language that is wanted; a region counts only if it is wanted."""
    if have is None:
        return False
    mine, theirs = _plain(have), _plain(wanted)
    return mine == theirs or (mine.partition("-")[0] == theirs)


def _plain(code: str) -> str:
    language, dash, region = code.casefold().partition("-")
    return TERMINOLOGICAL.get(language, language) + dash + region


def _mix(audio: av.AudioStream, options: MediaOptions) -> str:
    """How channels become one, for the log."""
    if options.channel is not None:
        return f"channel {options.channel}"
    return "mono" if audio.layout.nb_channels == 1 else "all channels"


def _check(audio: av.AudioStream, name: str, options: MediaOptions) -> None:
    """Raise MediaError if an option does not fit this track."""
    channels, rate_hz = audio.layout.nb_channels, audio.sample_rate
    if options.channel is not None and 0 < channels < options.channel:
        many = "channel" if channels == 1 else "channels"
        raise MediaError(f"{name}: its audio has {channels} {many}, and no channel {options.channel}")
    if options.highpass_hz is not None and 0 < rate_hz <= 2 * options.highpass_hz:
        raise MediaError(
            f"{name}: its audio has {rate_hz} samples per second, so highpass_hz = {options.highpass_hz:g} would "
            "remove everything; choose less"
        )


def is_cover(stream: av.VideoStream) -> bool:
    """Whether it is the picture on a cover, and no film."""
    return bool(stream.disposition & Disposition.attached_pic)


def _best_video(container: InputContainer) -> av.VideoStream | None:
    """FFmpeg's choice; the picture on a cover only if there is no film."""
    best = container.streams.best("video")
    streams = [stream for stream in container.streams.video if _is_decodable(stream)]
    films = [stream for stream in streams if not is_cover(stream)] or streams
    return next((stream for stream in films if stream is best), films[0] if films else None)


def _best_audio(container: InputContainer, video: av.VideoStream | None) -> av.AudioStream | None:
    """FFmpeg's choice of the audio that belongs to this video."""
    best = container.streams.best("audio", related=video)
    streams = [stream for stream in container.streams.audio if _is_decodable(stream)]
    return next((stream for stream in streams if stream is best), streams[0] if streams else None)


def _named_audio(tracks: tuple[av.AudioStream, ...], name: str, track: int | str) -> av.AudioStream:
    """The audio track of this number or language. Raises MediaError, which lists what there is."""
    if isinstance(track, int):
        found = tracks[track : track + 1]
    else:
        found = tuple(stream for stream in tracks if is_language(stream.language, track))
    if not found:
        have = f"its audio tracks are {', '.join(described(tracks))}" if tracks else "it has no audio"
        raise MediaError(f"{name}: has no audio track {track}; {have}")
    decodable = [stream for stream in found if _is_decodable(stream)]
    if not decodable:
        raise MediaError(f"{name}: its audio track {track} cannot be decoded: this FFmpeg lacks its codec")
    return decodable[0]


def _is_decodable(stream: av.VideoStream | av.AudioStream) -> bool:
    """Whether this FFmpeg has a decoder for it; PyAV's stubs do not know that there may be none."""
    context: object = stream.codec_context
    return context is not None
