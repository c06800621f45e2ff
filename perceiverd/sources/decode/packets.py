"""Demuxes a container: its packets, on the programme's time line. Skips damage in files. Decodes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import av
from av.container import InputContainer

from perceiverd.core.clock import now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S
from perceiverd.sources.decode.boundary import ffmpeg_errors
from perceiverd.sources.decode.decoders import CORRUPT_RUN, DecodeCounts, Packet, StreamDecoder
from perceiverd.sources.decode.opening import message_of
from perceiverd.sources.decode.timeline import Stamp, TimeLine

FOREIGN_RUN = 50
"""After this many packets in a row of tracks that were not there at first, the programme has other tracks."""
HOLE_RUN = 16_384
"""So many reads in a row without a packet end an MPEG-TS: 1 GiB of damage, because each of them searches 64 KiB."""


@dataclass(slots=True)
class Demuxed:
    """How far a container was read."""

    first_byte: int = 0
    """Where in the file the container begins."""
    end_byte: int = 0
    """Where in the file its last packet begins."""
    tracks_changed: bool = False
    """Whether reading stopped because the programme has other tracks from here on."""


def demux(
    container: InputContainer,
    indices: list[int],
    name: str,
    counts: DecodeCounts,
    read_timeout_s: float | None,
    demuxed: Demuxed,
    *,
    live: bool,
) -> Iterator[Packet]:
    """The packets of these streams and, at the end, the decoders' flush. Raises MediaError."""
    damaged, holes, foreign, asked_ns = 0, 0, 0, now_ns()
    while True:
        try:
            packets = container.demux(indices)
            while True:
                with ffmpeg_errors():
                    packet = next(packets, None)
                if packet is None:
                    return
                _check_silence(name, asked_ns, read_timeout_s)
                if packet.size:
                    damaged = foreign = 0
                holes = 0
                demuxed.end_byte = max(demuxed.end_byte, demuxed.first_byte + (packet.pos or 0))
                yield cast(Packet, packet)
                asked_ns = now_ns()
        except (av.error.InvalidDataError, av.error.BlockingIOError) as error:
            # The second one in a file: an MPEG-TS without a packet for 64 KiB. The next read continues behind that.
            if live and isinstance(error, av.error.BlockingIOError):
                _check_silence(name, asked_ns, read_timeout_s)
                raise MediaError(_unreadable(name, error, live=live)) from None
            if isinstance(error.__cause__, IndexError):  # PyAV does not know streams that begin later
                counts.ignored_packets += 1
                foreign += 1
                if foreign < FOREIGN_RUN or live:
                    continue
                demuxed.tracks_changed = True
                return
            counts.corrupt_packets += 1
            is_hole = isinstance(error, av.error.BlockingIOError)
            damaged, holes = damaged + (not is_hole), holes + is_hole
            if live or damaged >= CORRUPT_RUN or holes >= HOLE_RUN:
                hint = "check the network" if live else "copy or record it again"
                raise MediaError(
                    f"{name}: is damaged and cannot be read further ({message_of(error)}); {hint}"
                ) from None
        except av.FFmpegError as error:
            if isinstance(error, av.error.ExitError):
                asked_ns = 0
            _check_silence(name, asked_ns, read_timeout_s)
            raise MediaError(_unreadable(name, error, live=live)) from None


def _unreadable(name: str, error: av.FFmpegError, *, live: bool) -> str:
    if live:
        hint = "check the device and the network"
    else:
        hint = "copy or record it again" if isinstance(error, av.error.MemoryError) else "check the disk"
    return f"{name}: cannot be read further ({message_of(error)}); {hint}"


def on_time_line(
    packets: Iterator[Packet],
    line: TimeLine[Packet],
    name: str,
    decoders: Mapping[int, StreamDecoder],
    joined: Callable[[int], None],
) -> Iterator[Packet]:
    """The same packets, moved to the programme's time line. Calls `joined` with the time at which a part begins."""
    joins = line.joins
    for packet in packets:
        if packet.has_sidedata("encryption_info"):
            raise MediaError(f"{name}: is encrypted; perceiverd cannot decrypt it")
        decoder = decoders[packet.stream.index]
        kind, is_flush = decoder.kind, packet.dts is None and not packet.size
        # At the end of a part, FFmpeg may put all that is left into one packet without a time.
        line.extend(kind, decoder.end_ns)
        stamp, lasts_ns = _times(packet, decoder)
        decided = line.flush() if is_flush else line.add(kind, stamp, packet, lasts_ns)
        for moved, by_ns in decided:
            if line.joins > joins:
                joins = line.joins
                joined(line.joined_ns)
            yield _later(moved, by_ns) if by_ns else moved
        if is_flush:
            yield packet


def _times(packet: Packet, decoder: StreamDecoder) -> tuple[Stamp | None, int]:
    """The packet's times, None if its container says too little; and how long it lasts, in nanoseconds."""
    dts, pts = packet.dts, packet.pts
    if decoder.unit_ns is None:
        return None, 0
    up, down = decoder.unit_ns
    lasts_ns = (packet.duration or 0) * up // down
    first = dts if dts is not None or decoder.kind == "video" else pts
    if first is None:
        return None, lasts_ns
    return Stamp(first * up // down, (first if pts is None else pts) * up // down, lasts_ns), lasts_ns


def _later(packet: Packet, by_ns: int) -> Packet:
    """The packet at another time, without the mark by which an edit list hides it.

    A fragmented MP4 applies the edit list of its first part to all, and so it hides the beginning of the others.
    """
    if packet.is_discard:
        packet = _unhidden(packet)
    units = round(by_ns / NS_PER_S / packet.time_base)
    packet.pts = packet.pts if packet.pts is None else packet.pts + units
    packet.dts = packet.dts if packet.dts is None else packet.dts + units
    return packet


def _unhidden(packet: Packet) -> Packet:
    copy = cast(Packet, av.Packet(bytes(packet)))
    copy.stream, copy.time_base = packet.stream, packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe = packet.is_keyframe
    for data in packet.iter_sidedata():
        copy.set_sidedata(data)
    return copy


def _check_silence(name: str, asked_ns: int, read_timeout_s: float | None) -> None:
    """An interrupted read may return a last packet, the stream's end or an error, so the time decides."""
    if read_timeout_s is not None and now_ns() - asked_ns >= read_timeout_s * NS_PER_S:
        raise MediaError(f"{name}: no data for {read_timeout_s:g} s; check the device and the network")
