"""The messages between `tag` and the worker process that decodes for it. Pure: knows no pipe and no process.

A job goes down as one line of JSON. Frames and chunks come up as in `sources.process.protocol`, and between them
notices as JSON. Each message begins with its kind and the lengths of its two parts.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

from perceiverd.core.media import MediaFormat, WindowGrid
from perceiverd.sources.specs import MediaOptions, RawFormat

LENGTHS = struct.Struct("<cII")
"""Kind of the message, bytes of its first part, bytes of its second part."""
MEDIA, NOTICE, TIME = b"M", b"N", b"T"
"""Kinds of messages. `TIME` is a frame without pixels: its only part is START."""
START = struct.Struct("<q")
"""When the frame was captured, in nanoseconds."""


VideoDecoderName = Literal["cpu", "gpu", "auto"]
"""Who decodes video; `auto`: an NVIDIA GPU from `GPU_LINES` lines on."""
GPU_LINES = 1080


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file to decode."""

    kind: Literal["file", "url", "pipe"]
    address: bytes
    """The path or URL; `-` is standard input. A path may be any bytes."""
    wanted: MediaFormat
    use: MediaOptions
    """Which tracks, and what to do with audio."""
    raw: RawFormat | None = None
    threads: int = 0
    """That decode video; 0 for as many as there are cores."""
    decoder: VideoDecoderName = "cpu"
    """Of a file's video."""
    grid: WindowGrid | None = None
    """The windows that will be cut. Frames that none of them needs come without pixels; None if all are needed."""


class Length(msgspec.Struct, frozen=True, tag=True):
    """How long the file says it is."""

    seconds: float


class Tracks(msgspec.Struct, frozen=True, tag=True):
    """What the file has; sent before its first frame or chunk."""

    modalities: tuple[str, ...]


class LogLine(msgspec.Struct, frozen=True, tag=True):
    """A log line of the worker."""

    logger: str
    level: int
    text: str


class Alive(msgspec.Struct, frozen=True, tag=True):
    """The worker waits for a pipe, and does not hang."""


class Ended(msgspec.Struct, frozen=True, tag=True):
    """The job is done. The worker waits for the next one."""

    error: str
    """Why not all could be read, in one line; empty if all was."""


Notice = Length | Tracks | LogLine | Alive | Ended
