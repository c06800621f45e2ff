"""How long a media file is, if its container knows it exactly, and whether the file is cut short. Decodes nothing."""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer

EXACT = frozenset({"mov", "matroska", "avi", "wav", "flac", "asf", "aiff", "au", "caf", "w64", "gif", "ogg"})
"""Containers that store their length. FFmpeg estimates the length of the others from bit rates or the last times."""
UNKNOWN_SIZES = frozenset({0, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFFFFFFFFFF})
"""What programs write for the size of a recording that they cannot complete."""
XING_BYTES = 256
FOREIGN_BYTES = 65_536
"""Less than this at the end of a file is not worth a word: half a second of video."""
TS_PACKETS = re.compile(rb"(?:\x47.{187}){3}\x47", re.DOTALL)
"""Packets of MPEG-TS, of 188 bytes each, begin with this byte."""


def is_exact(container: InputContainer, path: Path) -> bool:
    """Whether FFmpeg read the length of this file from an index, and did not estimate it."""
    names = set(container.format.name.split(","))
    if "mp3" in names:
        return _counts_frames(path)
    return bool(names & EXACT)


def duration_s(container: InputContainer, path: Path) -> float | None:
    """The length of its audio and video in seconds; None if it is only an estimate."""
    if not container.duration or not is_exact(container, path):
        return None
    lengths = [
        float(stream.duration * stream.time_base)
        for stream in (*container.streams.audio, *container.streams.video)
        if stream.duration and stream.time_base
    ]
    others = len(container.streams) > len(container.streams.audio) + len(container.streams.video)
    if others and not lengths:
        return None  # the length of the container may be that of its subtitles
    whole_s: float = container.duration / av.time_base
    return min(whole_s, max(lengths)) if others else whole_s


def is_cut_short(path: Path) -> bool:
    """Whether the container says that the file is longer than it is. Known of RIFF, MP4, Matroska and Xing headers."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(12)
            if head[:4] in (b"RIFF", b"RF64"):
                return _riff_end(file) > size
            if head[4:8] in (b"ftyp", b"styp", b"moov", b"moof", b"mdat"):
                return _boxes_end(file, size) > size
            if head[:4] == b"\x1a\x45\xdf\xa3":
                return _segments_end(file, size) > size
            xing = _xing(file)
            return xing is not None and xing[1] > size
    except (OSError, struct.error, IndexError):
        return False


def has_foreign_end(path: Path, after: int) -> bool:
    """Whether an MPEG-TS goes on behind byte `after`, its last packet, with much that is no MPEG-TS.

    FFmpeg looks for the next packet to the file's end and reports nothing, so the rest of such a file would go unread
    in silence: it was damaged, or a file of another kind was joined to it.
    """
    try:
        if path.stat().st_size - after < FOREIGN_BYTES:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return TS_PACKETS.match(data) is not None and TS_PACKETS.search(data, after + FOREIGN_BYTES // 2) is None
    except (OSError, ValueError):
        return False


def _riff_end(file: BinaryIO) -> int:
    at = end = 0
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[:4] not in (b"RIFF", b"RF64"):
            return end
        (length,) = struct.unpack("<I", head[4:])
        if length in UNKNOWN_SIZES:
            return end
        at = end = at + 8 + length
        at += at % 2


def _boxes_end(file: BinaryIO, size: int) -> int:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        (length,) = struct.unpack(">I", head[:4])
        if length == 1:
            (length,) = struct.unpack(">Q", head[8:16])
        if length < 8 or not head[4:8].isalnum():  # to the end of the file, or no box
            return at
        at += length
    return at


def _segments_end(file: BinaryIO, size: int) -> int:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        if head[:4] not in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
            return at
        width = 9 - head[4].bit_length()
        length = int.from_bytes(head[4 : 4 + width]) & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:  # a live recording: unknown
            return at
        at += 4 + width + length
    return at


def _counts_frames(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _xing(file) is not None
    except (OSError, struct.error, IndexError):
        return False


def _xing(file: BinaryIO) -> tuple[int, int] | None:
    """(frames, end of the file) by the Xing header in the first frame of an MP3; None if it has none."""
    file.seek(0)
    head = file.read(10)
    first = 0
    if head[:3] == b"ID3":
        first = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    file.seek(first)
    frame = file.read(XING_BYTES)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if frame[:1] != b"\xff" or at < 0 or not frame[at + 7] & 1:
        return None
    frames, length = struct.unpack(">II", frame[at + 8 : at + 16])
    return frames, first + length if frame[at + 7] & 2 else 0
