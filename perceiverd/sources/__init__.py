"""Source specifications: what a stream watches, as it stands in the configuration.

A new kind of source is one struct here (added to `Source`) and one module of the tag's name with
`media(spec, wanted) -> Iterator[Media | None]`, where None says "alive, nothing due yet". Nothing here opens anything,
so that configuration and daemon load neither FFmpeg nor a driver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec

from perceiverd.geometry import Geometry

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "rtp", "srt", "tcp")
"""URL schemes that PyAV's own FFmpeg opens. `file` is missing on purpose: a file is no live source."""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="file"):
    """A clip replayed in real time, as if it were live."""

    path: str
    """Any file FFmpeg can read."""
    loop: bool = False
    """Begin again at the end, with time going on; otherwise the source ends."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path is the name of a clip, not empty")


class Url(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="url"):
    """A network camera or any other live URL, with pictures, sound or both."""

    url: str
    """`rtsp://user:password@camera/stream`, `https://host/live.m3u8`, `udp://@:5000`, ..."""
    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP carries media; TCP loses no packets."""
    open_timeout_s: float = 10.0
    """Give up when the URL has not opened after this many seconds."""
    read_timeout_s: float = 5.0
    """Give up when no data has come for this many seconds."""

    def __post_init__(self) -> None:
        scheme = self.url.partition("://")[0].lower()
        if scheme not in SCHEMES or "://" not in self.url:
            raise ValueError(f"url begins with one of {', '.join(SCHEMES)} and ://")
        urlsplit(self.url)  # raises ValueError where the host cannot be one
        if not (0 < self.open_timeout_s <= 600 and 0 < self.read_timeout_s <= 600):
            raise ValueError("open_timeout_s and read_timeout_s are above 0 and at most 600 seconds")

    @property
    def pushed(self) -> bool:
        """Whether the sender sets the pace; over HTTP (HLS too) the reader does."""
        return not self.url.lower().startswith(("http://", "https://"))


class Synthetic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="synthetic"):
    """A test source: moving colour bars, and each second a white flash and a beep together; with faults on demand."""

    video: bool = True
    audio: bool = True
    stall_after_s: float | None = None
    """Hang, as a driver does, this many seconds after the start; never where None."""
    crash_after_s: float | None = None
    """Die without a word this many seconds after the start; never where None."""

    def __post_init__(self) -> None:
        if not (self.video or self.audio):
            raise ValueError("a source has video, audio or both")


Source = File | Url | Synthetic


@dataclass(frozen=True, slots=True)
class WantedVideo:
    """What pictures a model wants."""

    height: int
    width: int
    fps: float
    """The model's ticks a second; sources may send up to 4 pictures a tick."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model wants of any source."""

    audio_rate_hz: int | None = None
    """None where the model hears nothing."""
    video: WantedVideo | None = None
    """None where the model sees nothing."""

    def __post_init__(self) -> None:
        if self.audio_rate_hz is None and self.video is None:
            raise ValueError("a model wants audio, video or both")

    @classmethod
    def of(cls, geometry: Geometry) -> Wanted:
        """What the model of this geometry wants."""
        video = geometry.video
        return cls(
            audio_rate_hz=geometry.audio.rate_hz if geometry.audio else None,
            video=WantedVideo(video.height, video.width, video.fps) if video else None,
        )


def shown(url: str) -> str:
    """The URL without user name, password and query, fit for logs and errors."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no host can be found in it, so where a password would stand cannot be told
        return f"{url.partition('://')[0]}://..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def name_of(source: Source) -> str:
    """What a log line calls the source; holds no secret."""
    match source:
        case File(path=path):
            return path
        case Url(url=url):
            return shown(url)
        case Synthetic():
            return "synthetic"
