"""Finds the MP3 frames that need bits of a lost frame. Pure: bytes and times of packets in, yes or no out.

The data of an MP3 frame may begin up to 511 bytes before the frame itself, inside the frames before it: the bit
reservoir (ISO/IEC 11172-3, 2.4.2.7, `main_data_begin`). After a lost frame, FFmpeg decodes the next three or four from
the wrong bytes. What comes out is noise as loud as the audio, so those frames count as lost too.
"""

from __future__ import annotations

MOST_BYTES = 511
"""`main_data_begin` has nine bits."""
HOLE_SHARE = 0.75
"""A packet does not follow the one before it if the time between is at least this share of a packet."""
REGULAR_PACKETS = 2
"""So many packets must follow each other before a hole is believed: the times of some containers are no use."""


class BitReservoir:
    """What a decoder has of the data before a frame."""

    def __init__(self) -> None:
        self._held_bytes = MOST_BYTES
        """Of frames without a hole between them."""
        self._end_ns: int | None = None
        self._regular = 0

    def is_lost(self, start_ns: int, end_ns: int) -> bool:
        """Whether a hole lies before the packet of these times. If so, nothing is held; flush the decoder too."""
        follows = self._end_ns is None or start_ns - self._end_ns < HOLE_SHARE * (end_ns - start_ns)
        self._end_ns = end_ns
        self._regular, before = (self._regular + 1 if follows else 0), self._regular
        if follows or before < REGULAR_PACKETS:
            return False
        self._held_bytes = 0
        return True

    def suffices(self, packet: bytes) -> bool:
        """Whether the frame in this packet, the next one, has all its data. A packet that is no frame of MP3 has."""
        found = _main_data(packet)
        if found is None:
            return True
        needs_bytes, brings_bytes = found
        suffices = needs_bytes <= self._held_bytes
        self._held_bytes = min(MOST_BYTES, self._held_bytes + brings_bytes)
        return suffices


def _main_data(packet: bytes) -> tuple[int, int] | None:
    """(bytes that the frame needs of those before it, bytes of data that it brings); None if it is no frame of MP3."""
    if len(packet) < 8 or packet[0] != 0xFF or packet[1] & 0xE6 != 0xE2:  # synchronisation, layer III
        return None
    is_mpeg_1, is_mono = packet[1] & 0x18 == 0x18, packet[3] >> 6 == 3
    begin = 4 if packet[1] & 1 else 6  # a checksum of two bytes
    if is_mpeg_1:
        needs_bytes, side_bytes = packet[begin] << 1 | packet[begin + 1] >> 7, 17 if is_mono else 32
    else:
        needs_bytes, side_bytes = packet[begin], 9 if is_mono else 17
    return needs_bytes, max(0, len(packet) - begin - side_bytes)
