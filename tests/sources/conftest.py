"""Writes real clips with PyAV, so that tests read through real encoders and containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

Picture = Callable[[float], NDArray[np.uint8]]
Sound = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """Writes a clip and returns its path; see `write`."""
    return lambda name, **what: write(tmp_path / name, **what)


def write(
    path: Path,
    *,
    seconds: float = 2.0,
    picture: Picture | None = None,
    fps: int = 25,
    times_s: Sequence[float] | None = None,
    video_codec: str = "libx264",
    rotation: float | None = None,
    colorspace: int | None = None,
    cover: NDArray[np.uint8] | None = None,
    sound: Sound | None = None,
    rate_hz: int = 44100,
    layout: str = "stereo",
    audio_codec: str = "aac",
    audio_start_s: float = 0.0,
    audio_gap_s: tuple[float, float] | None = None,
    container_format: str | None = None,
) -> Path:
    """Write `picture(t)`, (H, W, 3) RGB, as video and `sound(t)`, (channels, S) or (S,) for all channels, as audio.

    `times_s` replaces the constant rate; `audio_gap_s` = (at, length) moves the audio after `at` back by `length`.
    """
    with av.open(str(path), "w", format=container_format) as container:
        video: av.VideoStream | None = None
        audio: av.AudioStream | None = None
        if picture is not None:
            height, width, _ = picture(0.0).shape
            film = container.add_stream(video_codec, rate=fps)
            assert isinstance(film, av.VideoStream)
            video = film
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
            if video_codec == "libx264":
                video.options = {"crf": "5", "preset": "ultrafast", "g": "12"}
            if rotation is not None:
                video.set_display_rotation(rotation)
        if sound is not None:
            track = container.add_stream(audio_codec, rate=rate_hz, layout=layout)
            assert isinstance(track, av.AudioStream)
            audio = track
        packets: list[tuple[float, Any]] = []
        if cover is not None:
            art = container.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = cover.shape[1], cover.shape[0], "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(cover, "rgb24").reformat(format="yuvj420p")
            frame.pts = 0
            packets += [(-1.0, packet) for packet in [*art.encode(frame), *art.encode(None)]]
        if video is not None and picture is not None:
            for time_s in times_s if times_s is not None else np.arange(round(seconds * fps)) / fps:
                frame = av.VideoFrame.from_ndarray(picture(float(time_s)), "rgb24")
                if colorspace is not None:
                    frame = frame.reformat(format="yuv420p", dst_colorspace=colorspace)
                frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
                packets += [(float(time_s), packet) for packet in video.encode(frame)]
            packets += [(1e9, packet) for packet in video.encode(None)]
        if audio is not None and sound is not None:
            for time_s, block in _blocks(sound, seconds, rate_hz, layout, audio):
                late_s = audio_gap_s[1] if audio_gap_s and time_s >= audio_gap_s[0] else 0.0
                block.pts, block.time_base = (
                    round((time_s + audio_start_s + late_s) * rate_hz),
                    Fraction(1, rate_hz),
                )
                packets += [(time_s + audio_start_s + late_s, packet) for packet in audio.encode(block)]
            packets += [(1e9, packet) for packet in audio.encode(None)]
        for _, packet in sorted(packets, key=lambda entry: entry[0]):
            container.mux(packet)
    return path


def _blocks(
    sound: Sound, seconds: float, rate_hz: int, layout: str, audio: av.AudioStream
) -> Iterator[tuple[float, av.AudioFrame]]:
    channels = av.AudioLayout(layout).nb_channels
    wave = np.broadcast_to(sound(np.arange(round(seconds * rate_hz)) / rate_hz), (channels, round(seconds * rate_hz)))
    kind = audio.codec_context.format.name
    size = audio.codec_context.frame_size or 1024
    for first in range(0, wave.shape[1], size):
        piece = np.ascontiguousarray(wave[:, first : first + size])
        if kind.startswith("flt"):
            data = piece.astype(np.float32)
        else:
            full = 2 ** (15 if kind.startswith("s16") else 31)
            data = np.clip(np.round(piece * full), -full, full - 1).astype(f"i{2 if full == 2**15 else 4}")
        if not kind.endswith("p"):
            data = data.T.reshape(1, -1)
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), kind, layout)
        block.sample_rate = rate_hz
        yield first / rate_hz, block
