"""Tells audio and video from other files by their first bytes. Pure: bytes in, an answer out.

A name may be wrong or have no ending, so a walk reads the first bytes of each file. FFmpeg's own probing would need
milliseconds for each, and its code for a million files that are no media. What looks like media here is opened by
FFmpeg afterwards. Pictures are not media: FFmpeg would take each for a film of one frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HEAD_BYTES = 1100
"""What `is_media` needs to see: five packets of an MPEG transport stream with 204 bytes each, and some more."""

_PREFIXES = (
    b"OggS",  # Ogg: Vorbis, Opus, FLAC, Theora
    b"fLaC",
    b"ID3",  # tags before MP3, AAC, sometimes FLAC
    b"\x1aE\xdf\xa3",  # EBML: Matroska, WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMA, WMV
    b"\x00\x00\x01\xba",  # MPEG programme stream, VOB
    b"\x00\x00\x01\xb3",  # MPEG video
    b".snd",  # AU
    b"dns.",  # AU, little endian
    b"caff",
    b"#!AMR",
    b"wvpk",  # WavPack
    b"TTA1",
    b"TTA2",
    b"DSD \x1c",
    b"FRM8",  # DSDIFF
    b"MPCK",  # Musepack 8
    b"MP+",  # Musepack 7
    b"ajkg",  # Shorten
    b"tBaK",  # TAK
    b"Creative Voice File\x1a",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
    b"YUV4MPEG2",
    b"DKIF",  # IVF
    b".RMF",  # RealMedia
    b".ra\xfd",
    b"nut/multimedia container\x00",
    b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb",  # Wave64
    b"\x0b\x77",  # AC-3
    b"\x7f\xfe\x80\x01",  # DTS
    b"DTSHDHDR",
    b"NSVf",
    b"NSVs",
    b"DHAV",  # recorders of Dahua
    b"IMKH",  # recorders of Hikvision: a programme stream behind 40 bytes
    b"\x00\x00\x00\x01\x67",  # H.264 without a container
    b"\x00\x00\x00\x01\x40\x01",  # H.265
)
_RIFF = frozenset({b"WAVE", b"AVI ", b"AVIX", b"RMP3", b"CDXA"})
_ATOMS = frozenset({b"moov", b"wide", b"free", b"skip", b"pnot", b"udta", b"styp", b"sidx", b"moof"})
"""Atoms that begin a QuickTime file or a fragment of MP4; `ftyp` is looked at closer."""
_PICTURES = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"crx ", b"jp2 "}
)
"""Brands of MP4's relatives that hold pictures: HEIF, AVIF, raw photographs, JPEG 2000."""
_PACKETS = (188, 192, 204)
"""Bytes of a packet of an MPEG transport stream: plain, with a time in front (Blu-ray), with parity behind."""
_SYNC = b"\x47"


def is_media(head: bytes) -> bool:
    """Whether a file that begins with these bytes, up to HEAD_BYTES, looks like audio or video."""
    return head.startswith(_PREFIXES) or any(looks(head) for looks in _TESTS)


def _is_riff(head: bytes) -> bool:
    """WAV and AVI with 32-bit and 64-bit lengths; also AIFF and 8SVX, which have the same shape."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return head[8:12] in _RIFF
    return head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC", b"8SVX", b"16SV")


def _is_mp4(head: bytes) -> bool:
    if head[4:8] == b"ftyp":
        return head[8:12] not in _PICTURES
    # Four letters of text as a length are half a gigabyte at least, which only the media themselves (`mdat`) can be.
    return head[4:8] == b"mdat" or (head[4:8] in _ATOMS and head[0] < 0x20)


def _is_transport_stream(head: bytes) -> bool:
    return any(
        len(head) > first + size and all(head[at : at + 1] == _SYNC for at in range(first, len(head), size))
        for size in _PACKETS
        for first in ((4,) if size == 192 else (0,))
    )


_BITRATES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
"""Of MPEG-1 layer III, in kbit/s, by the header's index."""
_BITRATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""By the header's version: MPEG-1, 2 and 2.5."""


def _is_mp3(head: bytes) -> bool:
    """Two frames of layer III where the first says that the second is; or one frame, if the file ends before that.

    The two bytes of the sync pattern alone begin one in a thousand files of noise, and UTF-16 text.
    """
    length = _mp3_bytes(head)
    return length > 0 and (len(head) < length + 4 or _mp3_bytes(head[length:]) > 0)


def _mp3_bytes(head: bytes) -> int:
    """The length of the frame of layer III that begins here; 0 if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return 0
    kilobits, samples = (_BITRATES[bitrate], 144) if version == 3 else (_BITRATES_2[bitrate], 72)
    return samples * kilobits * 1000 // _RATES_HZ[version][rate] + (head[2] >> 1 & 1)


def _is_adts(head: bytes) -> bool:
    """AAC without a container: two headers, the first of which says where the second is."""
    length = _adts_bytes(head)
    return length > 7 and (len(head) < length + 7 or _adts_bytes(head[length:]) > 7)


def _adts_bytes(head: bytes) -> int:
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5


def _is_motion_jpeg(head: bytes) -> bool:
    """What cameras send over HTTP, when it is saved as it comes."""
    return re.match(rb"\s*--[^\r\n]{1,80}\r?\nContent-Type: *image/jpeg", head, re.IGNORECASE) is not None


_TESTS: tuple[Callable[[bytes], bool], ...] = (
    _is_riff,
    _is_mp4,
    _is_transport_stream,
    _is_mp3,
    _is_adts,
    _is_motion_jpeg,
)
