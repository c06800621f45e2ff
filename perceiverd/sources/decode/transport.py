"""Finds where the tracks of an MPEG transport stream change: joined recordings have other PIDs or codecs.

FFmpeg reads on, and gives packets of tracks that were not there at first to nobody. Opens nothing with FFmpeg.

ISO/IEC 13818-1, 2.4.4: table 0 (PAT) names the PID of each programme's table 2 (PMT), which lists the tracks.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SYNC = 0x47
SIZES = {188: 0, 192: 4, 204: 0}
"""Bytes of a packet, with the bytes before its sync byte: broadcast, Blu-ray and camcorders, with error correction."""
CHECKED = 5
"""So many packets in a row must begin with a sync byte."""
BLOCK_PACKETS = 1 << 16
"""So many packets are looked at together: 12 MB."""
PARTS = 1000
"""More parts than this are damage."""
PAT_TABLE, PMT_TABLE = 0, 2
PAT_PID = 0
CRC_POLYNOMIAL = 0x04C11DB7

Tracks = frozenset[tuple[int, int]]
"""PID and type of each track of a programme."""


@dataclass(frozen=True, slots=True)
class PartRange:
    """A part of a file."""

    first_byte: int
    end_byte: int
    """The byte after it; 0 for the end of the file."""


def ranges(path: Path) -> list[PartRange]:
    """The parts of a transport stream, each with the same tracks; one for the whole file if it is anything else."""
    whole = [PartRange(0, 0)]
    if path.stat().st_size < CHECKED * max(SIZES):
        return whole
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = next((size for size in SIZES if _is_aligned(data, 0, size)), None)
        if size is None:
            return whole
        begins = list(_changes(data, size))
    if not begins or len(begins) > PARTS:
        return whole
    return [PartRange(first, end) for first, end in zip([0, *begins], [*begins, 0], strict=True)]


def _is_aligned(data: mmap.mmap, at: int, size: int) -> bool:
    places = [at + SIZES[size] + number * size for number in range(CHECKED)]
    return places[-1] < len(data) and all(data[place] == SYNC for place in places)


def _changes(data: mmap.mmap, size: int) -> Iterator[int]:
    """Where other tracks begin: the PAT before the PMT that lists them, or that PMT."""
    known: dict[int, Tracks] = {}
    bodies: dict[int, bytes] = {}
    """The last packet of each PID without its header: a table is repeated ten times a second, and rarely changes."""
    pat_at, has_begun, is_other = 0, False, False
    for at, packet in _tables(data, size, known):
        pid, body = _pid(packet), packet[4:]
        pat_at = at if pid == PAT_PID else pat_at
        if body == bodies.get(pid) or (section := _section(packet)) is None:
            continue
        bodies[pid] = body
        if pid == PAT_PID:
            programmes = _programmes(section)
            for gone in known.keys() - programmes:
                del known[gone]
                is_other = has_begun
            known |= dict.fromkeys(programmes - known.keys(), frozenset())
        elif tracks := _tracks(section):
            if is_other or (known[pid] and tracks != known[pid]):
                yield pat_at
            known[pid], has_begun, is_other = tracks, True, False


def _tables(data: mmap.mmap, size: int, pmts: dict[int, Tracks]) -> Iterator[tuple[int, bytes]]:
    """Each packet of the PAT and of the known PMTs that begins a table, and where it begins in the file."""
    at = 0
    while at + size <= len(data):
        count = min(BLOCK_PACKETS, (len(data) - at) // size)
        block = np.frombuffer(data, np.uint8, count * size, at).reshape(count, size)[:, SIZES[size] :]
        heads = block[:, :3].copy()  # no view of the file is left: it could not be closed
        del block
        lost = np.flatnonzero(heads[:, 0] != SYNC)
        good = int(lost[0]) if len(lost) else count
        pids = (heads[:good, 1].astype(np.int32) & 0x1F) << 8 | heads[:good, 2]
        starts = (heads[:good, 1] & 0x40) != 0
        for number in _wanted(pids, starts, pmts):
            first = at + number * size
            yield first, data[first + SIZES[size] : first + SIZES[size] + 188]
        at += good * size
        if good < count and (found := _resynced(data, at + 1, size)) is not None:
            at = found
        elif good < count:
            return


def _wanted(pids: NDArray[np.int32], starts: NDArray[np.bool_], pmts: dict[int, Tracks]) -> Iterator[int]:
    """The packets that begin a table. A PAT in this block may name further PMTs, so each is looked for behind it."""
    at = 0
    while at < len(pids):
        known = [PAT_PID, *pmts]
        numbers = np.flatnonzero(np.isin(pids[at:], known) & starts[at:]) + at
        for number in numbers:
            yield int(number)
            at = int(number) + 1
            if known[1:] != list(pmts):
                break
        else:
            return


def _resynced(data: mmap.mmap, at: int, size: int) -> int | None:
    """The next packet behind damage, or behind the torn end of a part; None if there is none."""
    while (at := data.find(b"\x47", at)) >= 0:
        first = at - SIZES[size]
        if first >= 0 and _is_aligned(data, first, size):
            return first
        at += 1
    return None


def _pid(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


def _section(packet: bytes) -> bytes | None:
    """The table that begins in this packet, if all of it is there and its checksum is right."""
    begin = 4
    if packet[3] & 0x20:  # an adaptation field
        begin += 1 + packet[4]
    if not packet[3] & 0x10 or begin >= len(packet):
        return None
    begin += 1 + packet[begin]
    if begin + 3 > len(packet):
        return None
    section = packet[begin : begin + 3 + ((packet[begin + 1] & 0x0F) << 8 | packet[begin + 2])]
    if len(section) < 12 or begin + len(section) > len(packet) or _crc(section):
        return None
    return section if (section[1] & 0x0F) << 8 | section[2] == len(section) - 3 else None


def _programmes(section: bytes) -> set[int]:
    """The PIDs of the programmes' tables."""
    if section[0] != PAT_TABLE:
        return set()
    pairs = (section[at : at + 4] for at in range(8, len(section) - 4, 4))
    return {(pair[2] & 0x1F) << 8 | pair[3] for pair in pairs if pair[:2] != b"\0\0"}  # programme 0 is the network


def _tracks(section: bytes) -> Tracks:
    if section[0] != PMT_TABLE:
        return frozenset()
    at, found = 12 + ((section[10] & 0x0F) << 8 | section[11]), set[tuple[int, int]]()
    while at + 5 <= len(section) - 4:
        found.add(((section[at + 1] & 0x1F) << 8 | section[at + 2], section[at]))
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return frozenset(found)


def _crc(section: bytes) -> int:
    """CRC-32/MPEG-2 of a table with its checksum: 0 if it is whole."""
    crc = 0xFFFFFFFF
    for byte in section:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ CRC_POLYNOMIAL) & 0xFFFFFFFF if crc & 0x80000000 else crc << 1
    return crc
