"""Media told from other files by their first bytes."""

import wave
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.offline.folders.signatures import HEAD_BYTES, is_media

SOUND = {
    "wav": "pcm_s16le",
    "aiff": "pcm_s16be",
    "au": "pcm_s16be",
    "caf": "pcm_s16be",
    "flac": "flac",
    "ogg": "flac",
    "mp3": "libmp3lame",
    "adts": "aac",
    "ipod": "aac",
    "mp4": "aac",
    "mov": "aac",
    "matroska": "aac",
    "mpegts": "aac",
    "avi": "mp2",
    "asf": "libmp3lame",
    "ac3": "ac3",
    "wv": "wavpack",
    "tta": "tta",
    "w64": "pcm_s16le",
    "voc": "pcm_u8",
    "nut": "pcm_s16le",
    "flv": "aac",
    "mpeg": "mp2",
    "rm": "ac3",
}
"""Formats that FFmpeg can write, with a codec that fits each."""


def write_sound(path: Path, form: str, codec: str, options: dict[str, str]) -> bool:
    """Write a second of noise; whether this build of FFmpeg can."""
    try:
        with av.open(str(path), "w", format=form, options=options) as container:
            stream = container.add_stream(codec, rate=44_100, layout="mono")
            assert isinstance(stream, av.AudioStream)
            noise = np.random.default_rng(0).normal(0, 3000, (1, 44_100)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 44_100, Fraction(1, 44_100), 0
            for fifo_frame in av.AudioResampler(stream.format, "mono", 44_100, stream.frame_size or 0).resample(frame):
                container.mux(stream.encode(fifo_frame))
            container.mux(stream.encode(None))
    except (ValueError, av.FFmpegError):
        return False
    return True


@pytest.mark.parametrize("form", SOUND)
def test_what_ffmpeg_writes_is_media(tmp_path: Path, form: str) -> None:
    """A file of each format is recognised, whatever its name is."""
    path = tmp_path / "no-ending"
    assert write_sound(path, form, SOUND[form], {})
    assert is_media(path.read_bytes()[:HEAD_BYTES])


@pytest.mark.parametrize(
    ("form", "codec", "options"),
    [
        ("mp3", "libmp3lame", {"id3v2_version": "0", "write_xing": "0"}),
        ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
        ("mpegts", "aac", {"mpegts_m2ts_mode": "1"}),
        ("wav", "pcm_s16le", {"rf64": "always"}),
    ],
)
def test_variants_are_media(tmp_path: Path, form: str, codec: str, options: dict[str, str]) -> None:
    """MP3 without tags, fragmented MP4, Blu-ray's packets and 64-bit WAV are recognised."""
    assert write_sound(tmp_path / "a", form, codec, options)
    assert is_media((tmp_path / "a").read_bytes()[:HEAD_BYTES])


def test_a_very_short_wav_is_media(tmp_path: Path) -> None:
    """A header with a few samples is enough."""
    with wave.open(str(tmp_path / "a"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\0\0")
    assert is_media((tmp_path / "a").read_bytes())


def others(tmp_path: Path) -> list[bytes]:
    """Files that are no audio or video."""
    picture = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    images = [cv2.imencode(ending, picture)[1].tobytes() for ending in (".png", ".jpg", ".bmp", ".tiff", ".webp")]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    return [
        *images,
        (tmp_path / "a.zip").read_bytes(),
        b"",
        b"%PDF-1.7\n",
        b"\x7fELF\x02\x01\x01" + bytes(50),
        b"MAC addresses of the cameras\n",
        b"feelfree to copy this text\n",
        b"import os\nprint(1)\n" * 50,
        "\ufeffUTF-16 text".encode("utf-16"),
        bytes(HEAD_BYTES),
        b"\xff" * HEAD_BYTES,
        b"G" * 100,
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"SQLite format 3\0" + bytes(100),
        b"\x1f\x8b\x08" + bytes(100),
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"MThd\0\0\0\x06\0\0\0\x01",
    ]


def test_other_files_are_no_media(tmp_path: Path) -> None:
    """Pictures, archives, programs, text and playlists are left alone."""
    assert [data[:20] for data in others(tmp_path) if is_media(data[:HEAD_BYTES])] == []


def test_noise_is_seldom_media() -> None:
    """Of 20,000 files of random bytes, at most a few look like media."""
    rng = np.random.default_rng(2)
    assert sum(is_media(rng.bytes(64)) for _ in range(20_000)) < 20


@given(st.binary(max_size=HEAD_BYTES))
def test_any_bytes_have_an_answer(head: bytes) -> None:
    """No bytes make it fail."""
    is_media(head)
