"""Finds where another media file begins inside a file, as `cat a.wav b.wav` makes it. Opens nothing with FFmpeg."""

from __future__ import annotations

import mmap
from pathlib import Path

EBML = b"\x1a\x45\xdf\xa3"
"""So begins a Matroska or WebM file. FFmpeg reads the second one of joined files by itself, but not the third."""
LEAST_BYTES = 64
"""A part is longer than this."""


def next_part(path: Path, after: int) -> int | None:
    """The first byte of the next file of the same kind that begins behind byte `after`; None if there is none.

    FFmpeg stops at the length that the first header states, or at the end of an index. It reads on by itself in
    containers without lengths.
    """
    size = path.stat().st_size
    if after + LEAST_BYTES >= size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        head = data[:12]
        if head[:4] in (b"RIFF", b"RF64"):
            return _find(data, head[:4], after, 8, head[8:12])
        if head[:4] == b"FLV\x01":
            return _find(data, b"FLV\x01", after, 5, b"\0\0\0\x09")
        if head[:4] == EBML:
            return _find(data, EBML, after, 0, EBML)
        if head[4:8] == b"ftyp":
            found = _find(data, b"ftyp", after + 4, 0, b"ftyp")
            return None if found is None or data[found - 4 : found - 2] != b"\0\0" else found - 4
        return None


def _find(data: mmap.mmap, magic: bytes, after: int, offset: int, then: bytes) -> int | None:
    """Where `magic` stands, with `then` so many bytes behind it."""
    at = data.find(magic, after)
    while at >= 0:
        if data[at + offset : at + offset + len(then)] == then:
            return at
        at = data.find(magic, at + 1)
    return None
