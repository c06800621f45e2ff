"""Files that were joined: real encoders and containers, and every sample counted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, Frame, MediaFormat, VideoFormat
from perceiverd.sources.decode.container import read
from perceiverd.sources.decode.decoders import DecodeCounts

Clip = Callable[..., Path]
RATE_HZ = 16_000
BOTH = MediaFormat(RATE_HZ, VideoFormat(30, 42, 6.25))


def tone(hz: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda t: 0.5 * np.sin(2 * np.pi * hz * t)


def grey(level: int, height: int = 60, width: int = 84) -> Callable[[float], NDArray[np.uint8]]:
    return lambda _: np.full((height, width, 3), level, np.uint8)


def joined(target: Path, *parts: Path) -> Path:
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def heard(path: Path, counts: DecodeCounts | None = None) -> tuple[list[Frame], NDArray[np.float32]]:
    """The frames, and the audio, each sample at its time; NaN where there is none."""
    frames, chunks = list[Frame](), list[Chunk]()
    for item in read(path, BOTH, counts=counts):
        (frames if isinstance(item, Frame) else chunks).append(item)  # type: ignore[arg-type]
    audio = np.full(max((round(chunk.end_ns * RATE_HZ / NS_PER_S) for chunk in chunks), default=0), np.nan, np.float32)
    for before, after in pairwise(chunks):
        assert after.start_ns >= before.end_ns - NS_PER_S // 50
    for chunk in chunks:
        first = round(chunk.start_ns * RATE_HZ / NS_PER_S)
        skip = max(0, -first)
        audio[first + skip : first + len(chunk.samples)] = chunk.samples[skip:]
    assert all(after.start_ns > before.start_ns for before, after in pairwise(frames))
    return frames, audio


def strongest_hz(audio: NDArray[np.float32], from_s: float, until_s: float) -> float:
    piece = np.nan_to_num(audio[round(from_s * RATE_HZ) : round(until_s * RATE_HZ)])
    return float(np.abs(np.fft.rfft(piece * np.hanning(len(piece)))).argmax() * RATE_HZ / len(piece))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("wav", {"audio_codec": "pcm_s16le", "rate_hz": RATE_HZ}),
        ("flac", {"audio_codec": "flac", "rate_hz": RATE_HZ}),
        ("ogg", {"audio_codec": "libopus", "rate_hz": 48_000}),
        ("mp3", {"audio_codec": "libmp3lame", "rate_hz": RATE_HZ}),
        ("aac", {"container_format": "adts", "rate_hz": RATE_HZ}),
        ("mka", {"audio_codec": "flac", "rate_hz": RATE_HZ, "container_format": "matroska"}),
    ],
)
def test_all_parts_of_joined_sounds_are_read(clip: Clip, tmp_path: Path, name: str, what: dict[str, object]) -> None:
    """Three sounds in one file give all their audio, one behind the other, in any container."""
    parts = [clip(f"{hz}.{name}", sound=tone(hz), seconds=2.0, **what) for hz in (500, 1500, 3000)]
    apart_s = [len(heard(part)[1]) / RATE_HZ for part in parts]
    _, audio = heard(joined(tmp_path / f"joined.{name}", *parts))
    assert len(audio) / RATE_HZ == pytest.approx(sum(apart_s), abs=0.3)  # MP3 pads each part
    assert np.isnan(audio).sum() < 0.15 * RATE_HZ
    for place, hz in enumerate((500, 1500, 3000)):
        from_s = sum(apart_s[:place]) + 0.2
        assert strongest_hz(audio, from_s, from_s + 1.4) == pytest.approx(hz, abs=10)  # times are smoothed


def test_joined_wav_files_lose_no_sample(clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two WAV files behind each other give exactly their samples; one join is counted and logged."""
    rng = np.random.default_rng(3)
    waves = [rng.uniform(-0.9, 0.9, RATE_HZ * 2) for _ in range(2)]
    parts = [
        clip(
            f"{n}.wav", sound=lambda t, n=n: waves[n][: len(t)], audio_codec="pcm_s16le", layout="mono", rate_hz=RATE_HZ
        )
        for n in range(2)
    ]
    counts = DecodeCounts()
    with caplog.at_level(logging.INFO):
        _, audio = heard(joined(tmp_path / "joined.wav", *parts), counts)
    assert np.abs(audio - np.concatenate(waves)).max() < 2**-14
    assert (counts.joins, counts.refused_items, counts.corrupt_packets) == (1, 0, 0)
    assert [line for line in caplog.text.splitlines() if "media-joined" in line] == [
        next(line for line in caplog.text.splitlines() if "at_s=2.0" in line)
    ]
    assert "file-damaged" not in caplog.text


@pytest.mark.parametrize("name", ["ts", "mkv", "flv", "mp4"])
def test_all_parts_of_joined_films_are_read(clip: Clip, tmp_path: Path, name: str) -> None:
    """Two films in one file give all frames and all audio, and stay in step: the colour changes with the tone."""
    parts = [
        clip(f"{hz}.{name}", sound=tone(hz), picture=grey(level), seconds=3.0, rate_hz=44_100)
        for hz, level in ((500, 40), (2000, 200))
    ]
    counts = DecodeCounts()
    frames, audio = heard(joined(tmp_path / f"joined.{name}", *parts), counts)
    assert (counts.joins, counts.refused_items) == (1, 0)
    assert len(frames) == 150
    changes_s = next(frame.start_ns for frame in frames if frame.pixels.mean() > 120) / NS_PER_S
    assert changes_s == pytest.approx(3.0, abs=0.12)
    assert strongest_hz(audio, changes_s - 1, changes_s - 0.1) == pytest.approx(500, abs=3)
    assert strongest_hz(audio, changes_s + 0.1, changes_s + 1) == pytest.approx(2000, abs=3)
    assert frames[-1].start_ns / NS_PER_S == pytest.approx(5.96 + (changes_s - 3), abs=0.12)
    assert np.isnan(audio).mean() < 0.05


def test_rate_layout_and_size_may_change(clip: Clip, tmp_path: Path) -> None:
    """A part of another rate, layout, picture size and audio codec is read like the first one."""
    first = clip("a.ts", sound=tone(500), picture=grey(40), seconds=3.0, rate_hz=48_000)
    second = clip(
        "b.ts",
        sound=tone(2000),
        picture=grey(200, 120, 120),
        seconds=3.0,
        rate_hz=32_000,
        layout="mono",
        audio_codec="mp2",
    )
    frames, audio = heard(joined(tmp_path / "joined.ts", first, second, first))
    assert strongest_hz(audio, 0.5, 2.5) == pytest.approx(500, abs=3)
    assert strongest_hz(audio, 3.5, 5.5) == pytest.approx(2000, abs=3)
    assert strongest_hz(audio, 7.0, 8.5) == pytest.approx(500, abs=3)
    levels = [
        np.mean([f.pixels.mean() for f in frames if a < f.start_ns / NS_PER_S < b]) for a, b in ((1, 2), (4, 5), (7, 8))
    ]
    assert levels == pytest.approx([40, 200, 40], abs=12)


def shifted(source: Path, target: Path, by_s: float) -> Path:
    """A copy whose time stamps are later by this much."""
    with av.open(source) as clip, av.open(target, "w", format="mpegts", options={"mpegts_copyts": "1"}) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in clip.streams}
        for packet in clip.demux():
            if packet.dts is None or packet.pts is None:
                continue
            units = round(by_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + units, packet.dts + units
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    return target


def test_a_jump_far_ahead_is_cut(clip: Clip, tmp_path: Path) -> None:
    """A transport stream whose clock jumps by 5000 s continues without a gap of 5000 s."""
    part = clip("a.ts", sound=tone(500), picture=grey(99), seconds=3.0, rate_hz=48_000)
    counts = DecodeCounts()
    frames, audio = heard(joined(tmp_path / "b.ts", part, shifted(part, tmp_path / "late.ts", 5000)), counts)
    assert counts.joins == 1
    assert len(frames) == 150
    assert len(audio) / RATE_HZ == pytest.approx(6.0, abs=0.15)


def test_the_clock_of_a_transport_stream_wraps(clip: Clip, tmp_path: Path) -> None:
    """Where the 33 bits run over, long after the beginning, audio and video continue, and nothing is joined."""
    part = clip("a.ts", sound=tone(500), picture=grey(99), seconds=100.0, fps=5, rate_hz=16_000, audio_codec="mp2")
    late = shifted(part, tmp_path / "late.ts", 2**33 / 90_000 - 80)
    counts = DecodeCounts()
    frames, audio = heard(late, counts)
    assert counts.joins == 0
    assert len(frames) == 500
    assert frames[-1].start_ns / NS_PER_S == pytest.approx(99.8, abs=0.2)
    assert np.isnan(audio).sum() < 0.05 * RATE_HZ


def test_a_playlist_with_a_discontinuity(clip: Clip, tmp_path: Path) -> None:
    """Both programmes of an HLS playlist are read, though the second one begins at the same time."""
    for name, hz in (("a.ts", 500.0), ("b.ts", 2000.0)):
        clip(name, sound=tone(hz), picture=grey(round(hz / 10)), seconds=4.0, rate_hz=48_000)
    playlist = tmp_path / "joined.m3u8"
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:4", "#EXTINF:4.0,", "a.ts"]
    playlist.write_text("\n".join([*lines, "#EXT-X-DISCONTINUITY", "#EXTINF:4.0,", "b.ts", "#EXT-X-ENDLIST", ""]))
    counts = DecodeCounts()
    frames, audio = heard(playlist, counts)
    assert counts.joins == 1
    assert len(frames) == 200
    assert strongest_hz(audio, 0.5, 3.5) == pytest.approx(500, abs=3)
    assert strongest_hz(audio, 4.5, 7.5) == pytest.approx(2000, abs=3)


def test_audio_far_behind_its_video_in_the_file(clip: Clip, tmp_path: Path) -> None:
    """If a file has 15 s of video before their audio, both come side by side, at their times."""
    source = clip("a.mkv", sound=tone(500), picture=grey(99), seconds=20.0, rate_hz=16_000)
    path = tmp_path / "apart.mkv"
    with av.open(source) as original, av.open(path, "w", options={"max_interleave_delta": "1"}) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in original.streams}
        packets = [packet for packet in original.demux() if packet.pts is not None]
        for packet in sorted(packets, key=lambda p: (int((p.pts or 0) * p.time_base // 15), p.stream.type != "video")):
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    fronts_ns = {Frame: 0, Chunk: 0}
    for item in read(path, BOTH):
        fronts_ns[type(item)] = item.start_ns
        assert abs(fronts_ns[Frame] - fronts_ns[Chunk]) < NS_PER_S
    assert min(fronts_ns.values()) > 19 * NS_PER_S


def test_what_only_looks_like_another_part_ends_nothing(clip: Clip, tmp_path: Path) -> None:
    """If only the header of a WAV file stands behind another file, reading ends there, and what was read stays."""
    part = clip("a.wav", sound=tone(500), audio_codec="pcm_s16le", layout="mono", rate_hz=RATE_HZ)
    path = tmp_path / "b.wav"
    path.write_bytes(part.read_bytes() + part.read_bytes()[:12] + bytes(200))
    _, audio = heard(path)
    assert len(audio) == 2 * RATE_HZ
