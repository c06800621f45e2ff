"""The specifications of sources, as the configuration has them. Opens nothing, so it loads neither FFmpeg nor drivers.

A new kind of source is a struct here, added to `Source`, and a module named like its tag, with
`media(spec, wanted) -> Iterator[Media | Timing | Waiting | None]`. None is a sign of life while nothing is due, and a
Waiting is one that says what for. A Timing reports what is known of the clock: regularly, and right before the first
media after a step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec

from perceiverd.core.errors import did_you_mean
from perceiverd.core.secrets import filled, has_stray_at, references

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "rtp", "tcp")
"""URL schemes that PyAV's own FFmpeg opens. `file` is missing because a file is no live source."""
STANDARD_INPUT = "-"
"""The path that stands for it."""
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
"""A language code (ISO 639), perhaps with a region."""


class AudioOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do with audio before the model gets it: options of every source that has audio."""

    channel: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    """The only channel to use, from 1. Without it, all channels are mixed as a person would hear them: by their places
    in the room, without LFE. A microphone uses its first two."""
    gain_db: Annotated[float, msgspec.Meta(ge=-60, le=60)] = 0.0
    """How much to amplify the audio, in decibels; negative values attenuate it. What exceeds full scale is clipped."""
    highpass_hz: Annotated[float, msgspec.Meta(ge=1, le=8000)] | None = None
    """Removes what is below this frequency in hertz, with 12 dB per octave: wind and hum, for example 120.0. Without
    it, nothing is removed."""


class MediaOptions(AudioOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which audio and video to use of something that has tracks: a file or a URL."""

    only: Literal["audio", "video"] | None = None
    """Use only the audio, or only the video. Without it, both."""
    track: Annotated[int, msgspec.Meta(ge=0, le=999)] | str | None = None
    """Which audio track to use: its number among the audio tracks, from 0, or its language code, such as "eng".
    Without it, the default track is used. The log event track-chosen lists the tracks."""

    def __post_init__(self) -> None:
        if isinstance(self.track, str) and not LANGUAGE.fullmatch(self.track):
            raise ValueError('track must be a number from 0, or a language code such as "eng"')
        if self.only == "video" and (unused := self._of_audio()):
            raise ValueError(f'only = "video" leaves out the audio, to which {unused} belongs; remove one of them')

    def _of_audio(self) -> str | None:
        """The first option that is set and concerns audio."""
        usual = MediaOptions()
        names = ("track", "channel", "gain_db", "highpass_hz")
        return next((name for name in names if getattr(self, name) != getattr(usual, name)), None)


class File(MediaOptions, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="file"):
    """A file that is replayed in real time, as if it were live."""

    path: str
    """Any audio or video file that FFmpeg can read."""
    loop: bool = False
    """true restarts the file at its end, forever. Otherwise the stream ends there; perceiverd ends when all streams
    have ended."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ValueError("path must not be empty; name an audio or video file")


RAW = re.compile(r"(?P<format>[a-z0-9]+),(?P<rate_hz>[0-9]{1,6}),(?P<channels>[0-9]{1,2})")
RAW_FORMATS = ("s16le", "s32le", "f32le", "u8", "mulaw", "alaw")
"""Sample formats of raw audio, as FFmpeg calls them."""


class RawFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Audio samples without a container, which FFmpeg cannot recognise."""

    format: Literal["s16le", "s32le", "f32le", "u8", "mulaw", "alaw"]
    rate_hz: int
    channels: int
    """Interleaved."""

    @classmethod
    def parsed(cls, text: str) -> RawFormat:
        """From `s16le,16000,1`: format, rate in hertz, channels. Raises ValueError."""
        found = RAW.fullmatch(text)
        example = "write FORMAT,RATE,CHANNELS, such as s16le,16000,1"
        if not found:
            raise ValueError(f"{text!r} is no raw format; {example}")
        if found["format"] not in RAW_FORMATS:
            raise ValueError(f"unknown sample format {found['format']!r}; {did_you_mean(found['format'], RAW_FORMATS)}")
        raw = cls(found["format"], int(found["rate_hz"]), int(found["channels"]))  # type: ignore[arg-type]
        if not (1000 <= raw.rate_hz <= 384_000 and 1 <= raw.channels <= 64):
            raise ValueError(f"{text!r} needs a rate from 1000 to 384000 Hz and 1 to 64 channels; {example}")
        return raw

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * {"s16le": 2, "s32le": 4, "f32le": 4}.get(self.format, 1)

    @property
    def layout(self) -> str:
        """FFmpeg's name for the channels. Of more than two, nobody knows where they belong."""
        return {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels}C")


class Pipe(MediaOptions, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pipe"):
    """What another program sends live: through standard input or a FIFO."""

    path: str
    """The path of a FIFO (`mkfifo PATH` makes one), or - for standard input, which only one source can read."""
    raw: str | None = None
    """Format, rate in hertz and channels of audio without a container, such as "s16le,16000,1". Formats: s16le, s32le,
    f32le, u8, mulaw, alaw. Without it, the pipe has a container that FFmpeg recognises, such as MPEG-TS or WAV."""
    open_timeout_s: float = 10.0
    """Restart the source if FFmpeg has not recognised the media this many seconds after the first byte."""
    read_timeout_s: float = 5.0
    """Restart the source if its writer sends nothing for this many seconds. The wait for a writer has no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ValueError('path must not be empty; name a FIFO, or write "-" for standard input')
        if self.raw is not None:
            raw = RawFormat.parsed(self.raw)
            if self.only == "video":
                raise ValueError('only = "video" leaves out the audio, and raw is audio; remove one of them')
            if self.highpass_hz and 2 * self.highpass_hz >= raw.rate_hz:
                raise ValueError("highpass_hz must be below half of raw's rate: at this rate nothing would remain")
        check_timeouts(self.open_timeout_s, self.read_timeout_s)

    @property
    def is_standard_input(self) -> bool:
        """Whether it reads the daemon's standard input."""
        return self.path == STANDARD_INPUT


class Url(MediaOptions, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="url"):
    """A network camera or any other live URL, with video, audio or both."""

    url: str
    """Address of the stream: rtsp, rtsps, rtmp, rtmps, http, https, udp, rtp or tcp. ${NAME} stands for an environment
    variable, ${credential:NAME} for a systemd credential; perceiverd percent-encodes them in the user name, password
    and query, and never prints them. Write %40 for an @ in the path or query."""
    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP carries media: tcp loses no packets, udp can."""
    open_timeout_s: float = 10.0
    """Restart the source if the URL has not connected, answered and begun to send within this many seconds."""
    read_timeout_s: float = 5.0
    """Restart the source if no data comes for this many seconds, or if only the audio or only the video stops."""
    verify: bool = True
    """Whether to check the server's TLS certificate (rtsps, https, rtmps). false accepts any server."""
    ca_file: str | None = None
    """PEM file with the authorities that sign the certificate, or with the self-signed certificate itself. Without it,
    the system's authorities are used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # No message here quotes the URL or a part of it, because a misplaced password could be anywhere in it.
        if any(ord(sign) <= 32 or ord(sign) == 127 for sign in self.url):
            raise ValueError("url contains a blank or a control character")
        if not references(self.url):
            _check_url(self.url)
        elif not self.url.startswith("${") and self.url.partition("://")[0].lower() not in SCHEMES:
            raise ValueError(f"url must begin with one of {', '.join(SCHEMES)} and ://")
        if has_stray_at(self.url) and "@" not in re.split("[/?#]", self.url.partition("://")[2])[0]:
            raise ValueError(
                "url has an @ after its host and port; write a password with / ? or # in it as ${NAME}, and an @ in "
                "the path or the query as %40"
            )
        check_timeouts(self.open_timeout_s, self.read_timeout_s)

    def filled(self, secrets: Mapping[str, str]) -> Url:
        """The same with its secrets in place. Raises ValueError, without any secret, if the result is no URL."""
        url = filled(self.url, secrets)
        if "${" in url:
            raise ValueError("a secret must not refer to another secret")
        return msgspec.structs.replace(self, url=url)

    @property
    def pushed(self) -> bool:
        """Whether the sender sets the pace; over HTTP, HLS included, the reader does."""
        return not self.url.lower().startswith(("http://", "https://"))


class Synthetic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="synthetic"):
    """A test source: moving colour bars, and a white flash with a beep each second."""

    video: bool = True
    """Whether it gives the colour bars and the flash."""
    audio: bool = True
    """Whether it gives the beep."""

    def __post_init__(self) -> None:
        if not (self.video or self.audio):
            raise ValueError("a source must have video, audio or both")


class Camera(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="camera"):
    """A camera of this machine (V4L2): USB, built in, or a capture card."""

    device: str | int = 0
    """A path (/dev/video0), the number in it, or a name from /dev/v4l/by-id or /dev/v4l/by-path, which stays the same
    after a reboot. `perceiverd devices` lists the cameras."""
    width: Annotated[int, msgspec.Meta(ge=1, le=16384)] | None = None
    """Width of the frames in pixels. Without it, the camera's smallest size that is large enough for the model is used.
    If the camera does not support a requested value, the log names the value that it gives."""
    height: Annotated[int, msgspec.Meta(ge=1, le=16384)] | None = None
    """Height of the frames in pixels, as for width."""
    fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = None
    """Frames per second. Without it, the lowest rate that is enough for the model is used."""
    format: str | None = None
    """Pixel format as its four-letter code: YUYV, MJPG and so on. Without it, perceiverd chooses one."""

    def __post_init__(self) -> None:
        _check_device(self.device)
        if self.format is not None and not (1 <= len(self.format) <= 4 and self.format.isascii()):
            raise ValueError("format must have one to four letters, such as YUYV or MJPG")


class Microphone(AudioOptions, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="microphone"):
    """A microphone of this machine (PortAudio)."""

    device: str | int | None = None
    """A name that stays the same after a reboot (hw:CARD=Device,DEV=0, or one from /dev/snd/by-id), a part of the
    microphone's name, or its number. Without it, the system's default. `perceiverd devices` lists the microphones."""
    rate_hz: Annotated[int, msgspec.Meta(ge=1000, le=384_000)] | None = None
    """Sample rate in hertz. Without it, the device's own rate."""

    def __post_init__(self) -> None:
        if self.device is not None:
            _check_device(self.device)
        if self.rate_hz and self.highpass_hz and 2 * self.highpass_hz >= self.rate_hz:
            raise ValueError("highpass_hz must be below half of rate_hz: at this rate nothing would remain")


Source = File | Url | Pipe | Synthetic | Camera | Microphone


def check_timeouts(open_s: float, read_s: float) -> None:
    """Raises ValueError if one of them is out of range."""
    if not (0 < open_s <= 600 and 0 < read_s <= 600):
        raise ValueError("open_timeout_s and read_timeout_s must be above 0 and at most 600 seconds")


def _check_device(device: str | int) -> None:
    if isinstance(device, int) and not 0 <= device < 1000:
        raise ValueError("device must be a number from 0 to 999, or a name")
    if isinstance(device, str) and not (device.strip() and device.isprintable()):
        raise ValueError("device must not be empty; use a number or a name")


def _check_url(url: str) -> None:
    if "://" not in url or url.partition("://")[0].lower() not in SCHEMES:
        raise ValueError(f"url must begin with one of {', '.join(SCHEMES)} and ://")
    try:
        urlsplit(url).port  # noqa: B018 - reading it checks host and port
    except ValueError:
        raise ValueError(
            "url has an invalid host or port; write a password with @ : / ? # or % in it as ${NAME}"
        ) from None


def secrets_of(source: Source) -> tuple[str, ...]:
    """The names of the secrets that this source needs."""
    return references(source.url) if isinstance(source, Url) else ()


def modalities_of(source: Source) -> frozenset[str]:
    """What the source may give, `audio` and `video`; what a file or a URL has is known only when it is open."""
    match source:
        case Camera():
            return frozenset({"video"})
        case Microphone() | Pipe(raw=str()):
            return frozenset({"audio"})
        case Synthetic(video=video, audio=audio):
            return frozenset({"video"} if video else ()) | frozenset({"audio"} if audio else ())
        case _:
            return frozenset({source.only} if source.only else {"audio", "video"})


def shown(url: str) -> str:
    """The URL without user name, password and query, for logs and errors."""
    if has_stray_at(url):
        return f"{url.partition('://')[0]}://..."
    try:
        parts = urlsplit(url)
    except ValueError:  # it has no valid host, so nobody can know where a password would be
        return f"{url.partition('://')[0]}://..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def name_of(source: Source) -> str:
    """What log lines call the source; holds no secret."""
    match source:
        case File(path=path):
            return path
        case Pipe(path=path):
            return "standard input" if path == STANDARD_INPUT else path
        case Url(url=url):
            return shown(url)
        case Synthetic():
            return "synthetic"
        case Camera(device=int(number)):
            return f"/dev/video{number}"
        case Camera(device=name):
            return str(name)
        case Microphone(device=None):
            return "default microphone"
        case Microphone(device=int(number)):
            return f"microphone {number}"
        case Microphone(device=name):
            return str(name)
