"""Media files: `container.read`, in a process of its own, because damaged data may crash FFmpeg."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

from perceiverd.core.media import Chunk, MediaFormat, VideoFormat
from perceiverd.sources.decode import container
from tests.fuzz import mutations
from tests.fuzz.target import Target

CONTAINERS = (
    ("mp4", "mpeg4", "aac"),
    ("mkv", "libx264", "libopus"),
    ("webm", "libvpx", "libvorbis"),
    ("ts", "mpeg2video", "mp2"),
    ("avi", "mjpeg", "libmp3lame"),
    ("flv", "flv", "libmp3lame"),
    ("mpg", "mpeg1video", "mp2"),
    ("mov", "libx264", "pcm_s16le"),
    ("ogg", "", "libopus"),
    ("wav", "", "pcm_s16le"),
    ("flac", "", "flac"),
    ("mp3", "", "libmp3lame"),
    ("m4a", "", "alac"),
    ("aac", "", "aac"),
)
"""Ending, codec of the video, codec of the audio."""
SECONDS, FPS, RATE_HZ, SAMPLES = 1.2, 10, 48_000, 960
WANTED = MediaFormat(16_000, VideoFormat(height=24, width=32, fps=10))
MOST_ITEMS = 5_000
"""Of one input; damaged times may make a short file long."""


def make_seeds(folder: Path) -> list[bytes]:
    """A clip of moving bars and noise in each container for which this FFmpeg has the encoders."""
    seeds = []
    for ending, video, audio in CONTAINERS:
        if {video, audio} - {""} <= av.codec.codecs_available:
            path = folder / f"seed.{ending}"
            _write(path, video, audio)
            seeds.append(path.read_bytes())
    return seeds


def _write(path: Path, video: str, audio: str) -> None:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as file:
        file.metadata["title"] = "Ünïcode"
        pictures = file.add_stream(video, rate=25 if video.startswith("mpeg") else FPS) if video else None
        sound = file.add_stream(audio, rate=RATE_HZ, layout="mono")
        assert isinstance(sound, av.AudioStream)
        if isinstance(pictures, av.VideoStream):
            pictures.width, pictures.height = 64, 48
            pictures.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
        at = 0
        for number in range(round(SECONDS * FPS)):
            if isinstance(pictures, av.VideoStream):
                pixels = np.roll(np.arange(48 * 64 * 3).reshape(48, 64, 3) % 251, number * 9, axis=1).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                file.mux(pictures.encode(frame))
            while at < (number + 1) * RATE_HZ // FPS:
                noise = rng.normal(0, 3000, (1, SAMPLES)).astype(np.int16)
                chunk = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
                chunk.sample_rate, chunk.time_base, chunk.pts = RATE_HZ, Fraction(1, RATE_HZ), at
                at += SAMPLES
                file.mux(sound.encode(chunk))
        if isinstance(pictures, av.VideoStream):
            file.mux(pictures.encode(None))
        file.mux(sound.encode(None))


def run(data: bytes, folder: Path) -> str:
    """Read its header and its media as `tag` does."""
    path = folder / "input"
    path.write_bytes(data)
    info = container.inspect(path)
    media = list(islice(container.read(path, WANTED), MOST_ITEMS))
    chunks = [item for item in media if isinstance(item, Chunk)]
    assert all(np.isfinite(chunk.samples).all() for chunk in chunks), "audio that is no number"
    amount = (len(chunks).bit_length(), (len(media) - len(chunks)).bit_length())
    return f"read {amount} of {info.has_audio} {info.has_video} {info.duration_s is None}"


TARGET = Target("media", make_seeds, mutations.damage, run, memory_limit_mb=1500, foreign_crashes=True)
