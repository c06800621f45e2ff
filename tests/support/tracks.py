"""Films with several audio tracks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer

TONES_HZ = {"deu": 500, "eng": 1000, "fra": 2000}
"""The tone of each track."""


def write_tracks(
    path: Path, codec: str = "aac", languages: Sequence[str | None] = tuple(TONES_HZ), *, film: bool = True
) -> Path:
    """A film with one audio track for each language, each with a tone of its own."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25) if film else None
        tracks = [container.add_stream(codec, rate=48_000, layout="stereo") for _ in languages]
        for track, language in zip(tracks, languages, strict=True):
            if language:
                track.metadata["language"] = language
        if video:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for n in range(25):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), n * 8, np.uint8))
                frame.pts, frame.time_base = n, Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        for track, hertz in zip(tracks, TONES_HZ.values(), strict=False):
            assert isinstance(track, av.AudioStream)
            _write_tone(container, track, hertz)
    return path


def _write_tone(container: OutputContainer, track: av.AudioStream, hertz: float) -> None:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(48_000) / 48_000)
    kind, size = track.codec_context.format.name, track.codec_context.frame_size or 1024
    for at in range(0, 48_000, size):
        piece = np.stack([wave[at : at + size]] * 2)
        data = piece.astype(np.float32) if kind.startswith("flt") else (piece * 2**15).astype(np.int16)
        block = av.AudioFrame.from_ndarray(data if kind.endswith("p") else data.T.reshape(1, -1), kind, "stereo")
        block.sample_rate, block.pts, block.time_base = 48_000, at, Fraction(1, 48_000)
        container.mux(track.encode(block))
    container.mux(track.encode(None))
