"""Damaged metadata, programmes with other tracks than they name, and encrypted media cost one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import Chunk, MediaFormat, VideoFormat
from perceiverd.sources.decode.boundary import ffmpeg_errors
from perceiverd.sources.decode.container import inspect, read

Clip = Callable[..., Path]
BOTH = MediaFormat(16_000, VideoFormat(30, 42, 6.25))
NO_TEXT = b"\xff\xfe\xc3\x28\xa0\xa1\xed\xa0\x80\xf5"


def hum(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.3 * np.sin(2 * np.pi * 200 * t)


def grey(_: float) -> NDArray[np.uint8]:
    return np.full((60, 84, 3), 99, np.uint8)


@pytest.mark.parametrize("fault", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), IndexError(3), MemoryError()])
def test_any_exception_becomes_one_of_ffmpeg(fault: Exception) -> None:
    """Whatever PyAV raises at its border is an InvalidDataError, with the cause in its text."""
    with pytest.raises(av.error.InvalidDataError, match=type(fault).__name__), ffmpeg_errors():
        raise fault


def test_an_error_of_ffmpeg_stays_itself() -> None:
    """An error that FFmpeg explains is not wrapped."""
    with pytest.raises(av.error.EOFError), ffmpeg_errors():
        raise av.error.EOFError(1, "end")


def copied(source: Path, target: Path, **metadata: str) -> Path:
    """A copy with these texts for the file and its first track."""
    with av.open(source) as clip, av.open(target, "w") as out:
        out.metadata.update(metadata)
        streams = {stream.index: out.add_stream_from_template(stream) for stream in clip.streams}
        out.streams[0].metadata.update({"title": "TRACKTRACK", "handler_name": "TRACKTRACK"})
        for packet in clip.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return target


FILE, TRACK = b"TITLETITLE", b"TRACKTRACK"


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, FILE) for name in ("a.mp4", "a.mkv", "a.flac", "a.mp3", "a.flv", "a.wav")]
    + [(name, TRACK) for name in ("a.mp4", "a.mkv")],  # the other containers have no title for a track
)
def test_titles_that_are_no_text(clip: Clip, tmp_path: Path, name: str, text: bytes) -> None:
    """A file whose titles are no UTF-8 is read like any other."""
    codec = {"a.flac": "flac", "a.mp3": "libmp3lame", "a.wav": "pcm_s16le"}.get(name, "aac")
    source = clip(
        name, sound=hum, audio_codec=codec, **({"picture": grey} if name in ("a.mp4", "a.mkv", "a.flv") else {})
    )
    path = copied(source, tmp_path / f"titled-{name}", title="TITLETITLE")
    data = path.read_bytes()
    assert text in data
    path.write_bytes(data.replace(text, NO_TEXT))
    assert inspect(path).has_audio
    chunks = [item for item in read(path, BOTH) if isinstance(item, Chunk)]
    assert chunks[-1].end_ns / 1e9 == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("fragmented", [False, True])
@pytest.mark.parametrize("has_video", [False, True])
def test_encrypted_media(clip: Clip, tmp_path: Path, fragmented: bool, has_video: bool) -> None:
    """A file with common encryption is refused as that, not as damaged."""
    source = clip("a.mp4", sound=hum, **({"picture": grey} if has_video else {}))
    path, key = tmp_path / "b.mp4", "76a6c65c5ea762046bd749a2e632ccbb"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    if fragmented:
        options["movflags"] = "+frag_keyframe+empty_moov"
    with av.open(source) as clear, av.open(path, "w", options=options) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in clear.streams}
        for packet in clear.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    with pytest.raises(MediaError, match=r"is encrypted; perceiverd cannot decrypt it"):
        list(read(path, BOTH))


def test_a_playlist_with_a_key_that_is_missing(clip: Clip, tmp_path: Path) -> None:
    """An HLS playlist whose key cannot be had is refused as encrypted."""
    clip("a.ts", sound=hum, seconds=2.0, rate_hz=48_000)
    playlist = tmp_path / "a.m3u8"
    key = '#EXT-X-KEY:METHOD=AES-128,URI="gone.key"'
    playlist.write_text(
        "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:2", key, "#EXTINF:2,", "a.ts", "#EXT-X-ENDLIST", ""])
    )
    with pytest.raises(MediaError, match="is encrypted"):
        list(read(playlist, BOTH))
