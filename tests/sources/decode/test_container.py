"""Real clips through decoders and containers, damaged ones too."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, MediaFormat, VideoFormat
from perceiverd.sources.decode.container import inspect, read
from perceiverd.sources.decode.decoders import DecodeCounts

Clip = Callable[..., Path]
RATE_HZ = 16000
BOTH = MediaFormat(RATE_HZ, VideoFormat(30, 42, 6.25))
RED, GREEN, BLUE, GREY = (200, 30, 40), (20, 180, 60), (30, 50, 210), (120, 120, 120)


def tone(hz: float = 1000.0) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda t: 0.5 * np.sin(2 * np.pi * hz * t)


def quadrants(_: float = 0.0, height: int = 120, width: int = 168) -> NDArray[np.uint8]:
    """Four quarters: red and green above, blue and grey below."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, GREY
    return pixels


def corners(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The colours at the quarter points: above left and right, below left and right; (4, 3)."""
    height, width, _ = pixels.shape
    rows, columns = (height // 4, height // 4, -height // 4, -height // 4), (width // 4, -width // 4) * 2
    return np.array([pixels[row, column] for row, column in zip(rows, columns, strict=True)], np.int64)


def split(
    path: Path, wanted: MediaFormat = BOTH, counts: DecodeCounts | None = None
) -> tuple[list[Frame], list[Chunk]]:
    media = list(read(path, wanted, counts=counts))
    return [item for item in media if isinstance(item, Frame)], [item for item in media if isinstance(item, Chunk)]


def whole(chunks: list[Chunk]) -> NDArray[np.float32]:
    return np.concatenate([chunk.samples for chunk in chunks])


def peak(samples: NDArray[np.float32]) -> tuple[float, float]:
    """(frequency in hertz, amplitude) of the strongest tone."""
    window = np.hanning(len(samples))
    padded = 16 * len(samples)  # finer than a bin: a tone between two bins would seem fainter
    spectrum = np.abs(np.fft.rfft(samples * window, padded))
    best = int(spectrum.argmax())
    return best * RATE_HZ / padded, float(2 * spectrum[best] / window.sum())


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a.mp4", {"picture": quadrants}),
        ("a.mkv", {"picture": quadrants, "audio_codec": "libopus", "rate_hz": 48000}),
        ("a.avi", {"picture": quadrants, "video_codec": "mpeg4", "audio_codec": "pcm_s16le", "layout": "mono"}),
        ("a.ts", {"picture": quadrants, "rate_hz": 48000}),
        ("a.wav", {"audio_codec": "pcm_s24le"}),
        ("b.wav", {"audio_codec": "pcm_f32le", "rate_hz": 8000, "layout": "mono"}),
        ("c.wav", {"audio_codec": "pcm_s16le", "rate_hz": RATE_HZ}),
        ("a.ogg", {"audio_codec": "libopus", "rate_hz": 48000}),
        ("a.flac", {"audio_codec": "flac", "rate_hz": 96000}),
        ("d.wav", {"audio_codec": "pcm_s16le", "layout": "7.1"}),
    ],
)
def test_a_tone_stays_itself(clip: Clip, name: str, what: dict[str, object]) -> None:
    """A 1 kHz tone keeps pitch, loudness and length through any container, codec, rate and layout."""
    path = clip(name, sound=tone(), **what)
    frames, chunks = split(path)
    hertz, amplitude = peak(whole(chunks)[4000:-4000])
    assert hertz == pytest.approx(1000, abs=1)
    assert amplitude == pytest.approx(0.5, rel=0.03)
    assert len(whole(chunks)) / RATE_HZ == pytest.approx(2.0, abs=0.06)
    assert all(chunk.rate_hz == RATE_HZ and len(chunk.samples) <= RATE_HZ // 2 for chunk in chunks)
    for before, after in pairwise(chunks):
        assert abs(after.start_ns - before.end_ns) < NS_PER_S // 1000
    assert bool(frames) == ("picture" in what)
    for frame in frames:
        assert frame.pixels.shape == (30, 42, 3)
        assert np.abs(corners(frame.pixels) - [RED, GREEN, BLUE, GREY]).max() <= 12
    assert chunks[0].start_ns == pytest.approx(0, abs=NS_PER_S // 30)


def test_audio_above_the_models_rate_is_removed(clip: Clip) -> None:
    """At a rate of 16 kHz, a 9 kHz tone does not appear as 7 kHz."""
    _, chunks = split(clip("a.wav", sound=tone(9000), audio_codec="pcm_s24le", rate_hz=48000))
    assert np.abs(whole(chunks)[4000:-4000]).max() < 1e-5


@pytest.mark.parametrize(
    ("layout", "codec", "name", "gains"),
    [
        ("5.1", "pcm_s24le", "a.wav", (0, 0, 1, 0, 0, 0)),
        ("5.1(side)", "ac3", "a.ac3", (0, 0, 1, 0, 0, 0)),
        ("5.1(side)", "eac3", "a.ts", (1, 1, 0, 0, 0, 0)),
        ("7.1", "flac", "a.mka", (0, 0, 0, 0, 0, 0, 1, 0)),
        ("quad", "pcm_s16le", "b.wav", (1, -1, -1, 1)),
        ("stereo", "aac", "a.m4a", (1, -1)),
        ("stereo", "libopus", "a.ogg", (1, -0.7)),
        ("stereo", "flac", "a.flac", (0, 1)),
    ],
)
def test_no_channel_is_diluted_or_cancelled(
    clip: Clip, layout: str, codec: str, name: str, gains: tuple[float, ...]
) -> None:
    """A tone keeps its level in one main channel alone, in a pair, and in opposite phases, with any codec."""
    path = clip(name, sound=lambda t: np.outer(gains, tone()(t)), audio_codec=codec, layout=layout, rate_hz=48000)
    assert peak(whole(split(path)[1])[4000:-4000])[1] == pytest.approx(0.5, rel=0.04)


def test_the_lfe_is_left_out(clip: Clip) -> None:
    """A tone in the LFE alone is not heard."""
    path = clip("a.wav", sound=lambda t: np.outer(np.eye(6)[3], tone()(t)), audio_codec="pcm_s24le", layout="5.1")
    assert np.abs(whole(split(path)[1])).max() < 1e-4


def test_a_beep_keeps_its_time(clip: Clip) -> None:
    """A codec's priming adds no delay: a beep at 0.7 s begins at 0.7 s."""
    path = clip("a.mp4", sound=lambda t: tone()(t) * (t >= 0.7), picture=quadrants)
    _, chunks = split(path)
    onset_s = chunks[0].start_ns / NS_PER_S + np.flatnonzero(np.abs(whole(chunks)) > 0.2)[0] / RATE_HZ
    assert onset_s == pytest.approx(0.7, abs=0.003)


def test_late_audio_stays_late(clip: Clip) -> None:
    """Audio that begins 2 s into the file has times from 2 s on."""
    path = clip("a.mkv", seconds=1.0, sound=tone(), audio_start_s=2.0, picture=quadrants, times_s=np.arange(75) / 25)
    frames, chunks = split(path)
    assert frames[0].start_ns == pytest.approx(0, abs=NS_PER_S // 100)
    assert chunks[0].start_ns == pytest.approx(2 * NS_PER_S, abs=NS_PER_S // 20)


def test_a_gap_in_the_audio_stays_a_gap(clip: Clip) -> None:
    """Half a second without samples is missing from the chunks; the audio around it keeps its time."""
    path = clip("a.mkv", sound=tone(), audio_codec="pcm_s16le", audio_gap_s=(1.0, 0.5), picture=quadrants, seconds=2.0)
    _, chunks = split(path)
    gaps = [
        (before.end_ns / NS_PER_S, (after.start_ns - before.end_ns) / NS_PER_S)
        for before, after in pairwise(chunks)
        if after.start_ns - before.end_ns > NS_PER_S // 50
    ]
    assert len(gaps) == 1
    assert gaps[0] == pytest.approx((1.0, 0.5), abs=0.03)
    assert len(whole(chunks)) / RATE_HZ == pytest.approx(2.0, abs=0.01)


def test_the_file_begins_at_zero(clip: Clip) -> None:
    """A transport stream begins at 0, though its own clock begins elsewhere."""
    frames, chunks = split(clip("a.ts", sound=tone(), rate_hz=48000, picture=quadrants))
    assert min(frames[0].start_ns, chunks[0].start_ns) == pytest.approx(0, abs=NS_PER_S // 1000)


def test_a_variable_rate_keeps_the_time_of_each_frame(clip: Clip) -> None:
    """Irregular frames keep their own times, not those of a constant rate."""
    times_s = [0.0, 0.1, 0.5, 0.9, 1.3, 1.34]
    frames, _ = split(clip("a.mkv", picture=quadrants, times_s=times_s))
    assert [frame.start_ns / NS_PER_S for frame in frames] == pytest.approx(times_s, abs=0.002)


def test_a_fast_video_is_decimated(clip: Clip) -> None:
    """Of 60 frames a second a model of 6.25 ticks gets at most 25, evenly; the others are counted."""
    counts = DecodeCounts()
    frames, _ = split(clip("a.mp4", picture=quadrants, fps=60), counts=counts)
    assert 40 <= len(frames) <= 51
    assert len(frames) + counts.thinned_frames == 120
    assert max(np.diff([frame.start_ns for frame in frames])) <= 0.06 * NS_PER_S


def test_a_video_of_25_frames_a_second_is_not_decimated(clip: Clip) -> None:
    """Of 25 frames a second a model of 6.25 ticks gets all, even if time stamps are rounded to milliseconds."""
    frames, _ = split(clip("a.mkv", picture=quadrants, fps=25))
    assert len(frames) == 50


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [(0, (RED, GREEN, BLUE, GREY)), (90, (GREEN, GREY, RED, BLUE)), (180, (GREY, BLUE, GREEN, RED))],
)
def test_rotated_video_is_upright(clip: Clip, rotation: int, expected: tuple[object, ...]) -> None:
    """The display matrix is applied: 90 turns the frame counterclockwise, as OpenCV and players do."""
    frames, _ = split(clip("a.mp4", picture=quadrants, seconds=0.4, rotation=rotation))
    assert np.abs(corners(frames[0].pixels) - np.array(expected)).max() <= 12


def test_the_centre_is_cropped(clip: Clip) -> None:
    """If a frame is too wide, both sides are cut off and nothing is squeezed."""

    def sides(_: float) -> NDArray[np.uint8]:
        pixels = np.full((100, 300, 3), RED, np.uint8)
        pixels[:, 80:220] = GREEN  # 100 x 140 is the model's aspect
        pixels[:, 80:90] = BLUE
        return pixels

    frames, _ = split(clip("a.mp4", picture=sides, seconds=0.4))
    pixels = frames[0].pixels.astype(int)
    assert np.abs(pixels[:, 1] - np.array(BLUE)).max() <= 25
    assert np.abs(pixels[:, 5:-2] - np.array(GREEN)).max() <= 25


@pytest.mark.parametrize(("height", "colorspace"), [(360, 5), (720, 1)])
def test_untagged_colours(clip: Clip, height: int, colorspace: int) -> None:
    """Untagged frames are BT.601 below 720 lines and BT.709 from 720 lines up."""
    path = clip(
        "a.mp4",
        picture=lambda _: quadrants(height=height, width=height * 4 // 3),
        seconds=0.2,
        colorspace=colorspace,
    )
    frames, _ = split(path)
    assert np.abs(corners(frames[0].pixels) - [RED, GREEN, BLUE, GREY]).max() <= 6


def test_shrinking_is_by_area(clip: Clip) -> None:
    """A fine checkerboard becomes an even grey; picking pixels would leave moire."""
    fine = (np.indices((240, 336)).sum(axis=0) // 3 % 2 * 255).astype(np.uint8)
    frames, _ = split(clip("a.mp4", picture=lambda _: np.repeat(fine[:, :, None], 3, axis=2), seconds=0.2))
    assert np.abs(frames[0].pixels[2:-2, 2:-2].astype(int) - 127).max() < 40


def test_only_wanted_modalities_are_read(clip: Clip) -> None:
    """A model without video gets only audio, and one without audio only video."""
    path = clip("a.mp4", sound=tone(), picture=quadrants)
    assert not split(path, MediaFormat(RATE_HZ))[0]
    assert not split(path, MediaFormat(None, BOTH.video))[1]


def test_inspect_reads_the_header(clip: Clip) -> None:
    """`inspect` returns length and modalities."""
    info = inspect(clip("a.mp4", sound=tone(), picture=quadrants))
    assert info.has_audio
    assert info.has_video
    assert info.duration_s == pytest.approx(2.0, abs=0.1)
    assert not inspect(clip("a.wav", sound=tone(), audio_codec="pcm_s16le")).has_video


def test_a_truncated_file_is_read_as_far_as_possible(clip: Clip, caplog: pytest.LogCaptureFixture) -> None:
    """A recording that breaks off is read up to that point, and a log line says so."""
    path = clip("a.mkv", sound=tone(), picture=quadrants, seconds=6.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        frames, chunks = split(path)
    assert 1 < frames[-1].start_ns / NS_PER_S < 5
    assert 1 < chunks[-1].end_ns / NS_PER_S < 5
    assert "file-damaged file=" in caplog.text


def test_damage_in_the_middle_is_skipped(clip: Clip, capfd: pytest.CaptureFixture[str]) -> None:
    """Undecodable packets are skipped and counted, what follows is delivered, and FFmpeg prints nothing."""
    path = clip("a.mkv", sound=tone(), picture=lambda t: np.roll(quadrants(), int(t * 100), 1), seconds=6.0)
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : third + 6000] = np.random.default_rng(1).bytes(6000)
    path.write_bytes(data)
    counts = DecodeCounts()
    frames, chunks = split(path, counts=counts)
    assert counts.corrupt_packets > 0
    assert frames[-1].start_ns > 5.5 * NS_PER_S
    assert chunks[-1].end_ns > 5.5 * NS_PER_S
    assert capfd.readouterr().err == ""


def spoilt(path: Path, from_s: float, until_s: float) -> Path:
    """A copy in which no audio packet of this time can be decoded."""
    out_path = path.with_name("spoilt.mkv")
    with av.open(path) as clip, av.open(out_path, "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in clip.streams}
        for packet in clip.demux():
            if packet.dts is None or packet.pts is None:
                continue
            spoils = packet.stream.type == "audio" and from_s <= packet.pts * packet.time_base < until_s
            kept = av.Packet(b"\xff" * 50) if spoils else packet
            kept.pts, kept.dts, kept.time_base = packet.pts, packet.dts, packet.time_base
            kept.is_keyframe, kept.stream = True, streams[packet.stream.index]
            out.mux(kept)
    return out_path


def test_undecodable_audio_ends_a_live_stream(clip: Clip) -> None:
    """After 100 damaged packets in a row a camera is opened again; in a file, the video is read to its end."""
    path = spoilt(clip("a.mkv", sound=tone(), picture=quadrants, seconds=6.0), 1.0, 9.0)
    with pytest.raises(MediaError, match="100 packets of its audio in a row cannot be decoded"):
        list(read(path, BOTH, live=True))
    frames, _ = split(path)
    assert frames[-1].start_ns > 5.5 * NS_PER_S


def test_live_audio_may_become_decodable_later(clip: Clip) -> None:
    """Audio that cannot be decoded at first is not given up for the whole connection."""
    path = spoilt(clip("a.mkv", sound=tone(), picture=quadrants, seconds=6.0), 0.0, 4.0)
    chunks = [item for item in read(path, BOTH, live=True) if isinstance(item, Chunk)]
    assert 3.9 < chunks[0].start_ns / NS_PER_S < 4.2


def test_names_with_colons(clip: Clip) -> None:
    """A colon in a file's name does not make it a protocol."""
    assert split(clip("http:a 12:30.wav", sound=tone(), audio_codec="pcm_s16le"))[1]


def _missing(path: Path) -> None:
    pass


def _truncated_mp4(path: Path) -> None:
    path.write_bytes(b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41\x00\x00\xff\xffmdat" + b"\x17" * 5000)


def _subtitles(path: Path) -> None:
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nHello\n\n" * 9)


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_missing, "no such file"),
        (Path.mkdir, "directory"),
        (Path.touch, "empty"),
        (os.mkfifo, "is a FIFO"),
        (lambda path: path.write_text("This is not a film.\n" * 200), "neither audio nor video"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(20000)), "neither audio nor video"),
        (_truncated_mp4, "breaks off before its index"),
        (_subtitles, "neither audio nor video"),
        (_playlist, ""),
    ],
    ids=["missing", "directory", "empty", "fifo", "text", "noise", "truncated mp4", "subtitles", "playlist"],
)
def test_a_file_that_is_no_clip_is_refused(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    """A file that is no clip raises MediaError: one line with the path, what is wrong and what to do."""
    path = tmp_path / "film.mp4"
    make(path)
    with pytest.raises(MediaError) as caught:
        list(read(path, BOTH))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert ";" in message
    assert "\n" not in message
    with pytest.raises(MediaError):
        inspect(path)


def test_text_under_its_own_name_is_refused(tmp_path: Path) -> None:
    """A .txt file is refused, though FFmpeg would render it to video."""
    (tmp_path / "notes.txt").write_text("Nothing to see here.\n" * 100)
    with pytest.raises(MediaError, match="text"):
        list(read(tmp_path / "notes.txt", BOTH))


def test_a_missing_modality_is_an_error(clip: Clip) -> None:
    """If a video without audio meets a model without video, the error says so."""
    path = clip("a.mp4", picture=quadrants, seconds=0.4)
    with pytest.raises(MediaError, match="only video and the model wants only audio"):
        list(read(path, MediaFormat(RATE_HZ)))


def test_reading_is_lazy(clip: Clip) -> None:
    """The first items come before the rest is decoded, so memory does not grow with the length of a file."""
    counts = DecodeCounts()
    media = read(clip("a.mp4", picture=quadrants, fps=60, seconds=8.0), BOTH, counts=counts)
    for _ in range(5):
        next(media)
    assert counts.thinned_frames < 60
