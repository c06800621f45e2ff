"""Lengths that a container knows, lengths that are guessed, and files that are cut short."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, MediaFormat, VideoFormat
from perceiverd.sources.decode.container import inspect, read

Clip = Callable[..., Path]
BOTH = MediaFormat(16_000, VideoFormat(30, 42, 6.25))


def hum(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.3 * np.sin(2 * np.pi * 200 * t) * (t > 2)


def grey(_: float) -> NDArray[np.uint8]:
    return np.full((60, 84, 3), 99, np.uint8)


def is_called_damaged(path: Path, caplog: pytest.LogCaptureFixture) -> bool:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        list(read(path, BOTH))
    return "file-damaged" in caplog.text


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.mp4", {"picture": grey}),
        ("a.mkv", {"picture": grey}),
        ("a.avi", {"picture": grey, "video_codec": "mpeg4", "audio_codec": "libmp3lame"}),
        ("a.wav", {"audio_codec": "pcm_s16le"}),
        ("a.flac", {"audio_codec": "flac"}),
        ("a.mp3", {"audio_codec": "libmp3lame"}),
    ],
)
def test_a_known_length(clip: Clip, caplog: pytest.LogCaptureFixture, name: str, what: dict[str, object]) -> None:
    """Containers that store their length have it, and a whole file is not called damaged."""
    path = clip(name, sound=hum, seconds=6.0, **what)
    assert inspect(path).duration_s == pytest.approx(6.0, abs=0.15)
    assert not is_called_damaged(path, caplog)


@pytest.mark.parametrize(
    ("name", "what"),
    [("a.aac", {"container_format": "adts"}), ("a.ts", {"picture": grey, "rate_hz": 48_000})],
)
def test_a_guessed_length(clip: Clip, caplog: pytest.LogCaptureFixture, name: str, what: dict[str, object]) -> None:
    """A length that FFmpeg estimates is no length, and a file that ends before it is not damaged."""
    path = clip(name, sound=hum, seconds=6.0, **what)
    assert inspect(path).duration_s is None
    assert inspect(path).estimate_s is not None
    assert not is_called_damaged(path, caplog)


def test_an_mp3_without_a_xing_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An MP3 of a variable bit rate, silent at first, has a guess that is far too long and is not called damaged."""
    path = tmp_path / "a.mp3"
    rng = np.random.default_rng(1)
    with av.open(path, "w", options={"write_xing": "0", "id3v2_version": "0"}) as out:
        stream = out.add_stream("libmp3lame", rate=44_100, layout="mono", options={"q": "2", "b": "0"})
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.options = {"compression_level": "2"}
        for n in range(400):
            wave = rng.uniform(-0.5, 0.5, (1, 1152)) * (n > 200)
            frame = av.AudioFrame.from_ndarray(wave.astype(np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44_100, n * 1152
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert inspect(path).duration_s is None
    assert not is_called_damaged(path, caplog)


def test_a_longer_track_is_no_damage(clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Subtitles until 90 s make a film of 3 s neither longer nor damaged."""
    film, path = clip("a.mp4", sound=hum, picture=grey, seconds=3.0), tmp_path / "subtitles.mkv"
    (tmp_path / "s.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nhello\n\n2\n00:01:30,000 --> 00:01:31,000\nbye\n"
    )
    with av.open(film) as source, av.open(tmp_path / "s.srt") as text, av.open(path, "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        subtitles = out.add_stream_from_template(text.streams[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
        for packet in text.demux():
            if packet.dts is not None:
                packet.stream = subtitles
                out.mux(packet)
    assert inspect(path).estimate_s == pytest.approx(91, abs=2)
    assert inspect(path).duration_s is None
    assert not is_called_damaged(path, caplog)


def test_a_shorter_modality_is_no_damage(clip: Clip, caplog: pytest.LogCaptureFixture) -> None:
    """A film whose video ends before its audio is whole."""
    path = clip("a.mp4", sound=hum, seconds=8.0, picture=grey, times_s=[n / 25 for n in range(50)])
    assert not is_called_damaged(path, caplog)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.mkv", {"picture": grey}),
        ("a.avi", {"picture": grey, "video_codec": "mpeg4", "audio_codec": "libmp3lame"}),
        ("a.wav", {"audio_codec": "pcm_s16le"}),
        ("a.mp3", {"audio_codec": "libmp3lame"}),
    ],
)
def test_a_file_that_is_cut_short(
    clip: Clip, caplog: pytest.LogCaptureFixture, name: str, what: dict[str, object]
) -> None:
    """A file that ends before its own header says is read as far as it goes, and is called damaged."""
    path = clip(name, sound=hum, seconds=8.0, **what)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert is_called_damaged(path, caplog)


def test_a_transport_stream_that_ends_with_other_data(clip: Clip, caplog: pytest.LogCaptureFixture) -> None:
    """A file of another kind behind it, or noise, is reported; a few bytes and a second transport stream are not."""
    path = clip("a.ts", sound=hum, picture=grey, seconds=6.0, rate_hz=48_000)
    other = clip("b.wav", sound=hum, seconds=6.0, audio_codec="pcm_s16le").read_bytes()
    whole = path.read_bytes()
    for tail, called in ((other, True), (other[:40_000], False), (whole, False)):
        path.write_bytes(whole + tail)
        assert is_called_damaged(path, caplog) == called


@pytest.mark.parametrize("hole_bytes", [131_072, 8_000_000])
def test_a_transport_stream_with_a_long_hole_is_read_to_its_end(
    clip: Clip, caplog: pytest.LogCaptureFixture, hole_bytes: int
) -> None:
    """After 64 KiB without a packet FFmpeg gives up for a moment; what follows is read, and the file is damaged."""
    path = clip("a.ts", sound=hum, picture=grey, seconds=6.0, rate_hz=48_000)
    whole = path.read_bytes()
    half = len(whole) // 376 * 188
    path.write_bytes(whole[:half] + bytes(hole_bytes) + whole[half:])
    with caplog.at_level(logging.WARNING):
        last = max(each.start_ns for each in read(path, BOTH))
    assert last > 5 * NS_PER_S
    assert "file-damaged" in caplog.text
