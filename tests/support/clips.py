"""Small clips and small models that tests of several packages use."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from perceiverd.core.labels import ontology
from perceiverd.model.checkpoint import save_model
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.model.perceiver import Perceiver

GEOMETRY = Geometry(
    classes=527,
    trunk=Trunk(latents=5, width=12, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=16_000, samples=16_000, form="raw", patch=(1000,), bands=3),
    video=Video(frames=10, fps=10, height=24, width=32, patch=(5, 12, 16), bands=2),
)
"""A model with windows of 1 s that needs milliseconds for each."""
FPS, RATE_HZ = 25, 44_100


def make_model(folder: Path, geometry: Geometry = GEOMETRY) -> Path:
    """Write a model folder with random weights that are the same in each run."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = Perceiver(geometry.modalities, geometry.trunk, geometry.classes)
    save_model(folder, network, geometry, ontology().labels, name="tiny", licence="CC0-1.0")
    return folder


def write_clip(path: Path, *, video_s: float = 0, audio_s: float = 0, audio_from_s: float = 0) -> Path:
    """Write a clip of changing grey frames and of noise; a part of 0 s is left out."""
    rng = np.random.default_rng(len(path.name))
    ending = path.suffix[1:]
    codec = {"wav": "pcm_s16le", "ogg": "flac"}.get(ending, "aac")
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=FPS) if video_s else None
        sound = container.add_stream(codec, rate=RATE_HZ, layout="mono") if audio_s else None
        if picture:
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
            for i in range(round(video_s * FPS)):
                pixels = np.full((48, 64, 3), (i * 5) % 256, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, FPS)
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        if sound:
            assert isinstance(sound, av.AudioStream)
            noise = rng.normal(0, 3000, round(audio_s * RATE_HZ)).astype(np.int16)
            for at in range(0, len(noise), 1024):
                chunk = av.AudioFrame.from_ndarray(noise[np.newaxis, at : at + 1024], format="s16", layout="mono")
                chunk.sample_rate, chunk.time_base = RATE_HZ, Fraction(1, RATE_HZ)
                chunk.pts = at + round(audio_from_s * RATE_HZ)
                container.mux(sound.encode(chunk))
            container.mux(sound.encode(None))
    return path
