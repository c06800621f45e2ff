"""Whether it pays to decode video on the GPU: frames of 1080p, decoded and shrunk to the model's size, both ways."""

from __future__ import annotations

import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from perceiverd.core.media import VideoFormat
from perceiverd.sources.decode.opening import open_container
from perceiverd.sources.decode.video import Sizer
from tests.gpu_check.result import Check, Result, Setup

WIDTH, HEIGHT, FPS = 1920, 1080, 25
ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""The first that this PyAV has: NVDEC knows both codecs."""
PAYS = 1.2
"""`tag --decoder auto` becomes the default if a GPU decodes so many times as fast as one core."""


def nvdec(setup: Setup) -> Result:
    """Frames a second by the CPU and by NVDEC, copied to the host and shrunk; and whether both see the same."""
    seconds = 8 if setup.is_gpu else 0.2
    with tempfile.TemporaryDirectory(prefix="perceiverd-gpu-") as folder:
        clip = Path(folder) / "clip.mp4"
        codec = write_clip(clip, seconds)
        software, exact, _ = decoded(clip, hardware=False)
        hardware, found, is_hardware = decoded(clip, hardware=True)
    off = float(np.abs(found.astype(int) - exact.astype(int)).mean())
    gain = hardware / software
    text = f"{codec} {HEIGHT}p: {software:.0f} frames/s on the CPU, {hardware:.0f} on the GPU, {gain:.2f} times"
    checks = [
        setup.check("PyAV decodes on the GPU", is_hardware, "yes" if is_hardware else "no: it fell back to the CPU"),
        Check("both decoders see the same", off < 1.0, f"{off:.2f} grey levels apart on average"),
        setup.check(f"decoding on the GPU pays ({PAYS} times)", gain >= PAYS, text),
    ]
    return Result("nvdec", text, checks)


def decoded(clip: Path, *, hardware: bool) -> tuple[float, np.ndarray, bool]:
    """Frames a second, the last frame in the model's size, and whether the GPU decoded it."""
    sizer, frames = Sizer(VideoFormat(96, 128, 10)), 0
    began_s = time.monotonic()
    with open_container(clip, {}, None, None, hardware=hardware) as container:
        context = container.streams.video[0].codec_context
        if not hardware:
            context.thread_count = 1  # as `tag` has it with a job on each core
        for frame in container.decode(video=0):
            small = sizer.fit(frame, None)
            frames += 1
        is_hardware = bool(context.is_hwaccel)
    return frames / (time.monotonic() - began_s), small, is_hardware


def write_clip(path: Path, seconds: float) -> str:
    """Write moving patterns; returns the codec."""
    name = next(each for each in ENCODERS if each in av.codecs_available)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=FPS)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(round(seconds * FPS)):
            pattern = ((x + 7 * number) // 8 + (y + 3 * number) // 16).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.stack([pattern, pattern // 2, 255 - pattern], axis=2), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        return stream.codec_context.codec.canonical_name
