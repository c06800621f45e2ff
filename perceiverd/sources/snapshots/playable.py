"""A clip in forms that browsers play: WebM, its sound as FLAC, its spectrogram as JPEG. Pure: bytes in, bytes out.

A clip has motion JPEG and PCM, because the daemon must not spend time on codecs; browsers play neither.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np
from av.container import InputContainer, OutputContainer
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.sources.snapshots.clip import CLIP_FPS
from perceiverd.sources.snapshots.sound import flac
from perceiverd.sources.snapshots.spectrogram import spectrogram

MILLI = Fraction(1, 1000)
VIDEO_BITS, AUDIO_BITS = 1_500_000, 64_000
"""Bits a second."""
OPUS_HZ = 48_000
JPEG_QUALITY = 80
FAST = {"deadline": "realtime", "cpu-used": "8", "threads": "1"}
"""Options of libvpx: a clip of 10 s takes half a second of one core."""


def webm(clip: bytes) -> bytes:
    """The clip as VP8 and Opus. Raises MediaError if it cannot be read."""
    body = io.BytesIO()
    try:
        with av.open(io.BytesIO(clip), "r", format="matroska") as source, av.open(body, "w", format="webm") as made:
            video = _video_encoder(made, source) if source.streams.video else None
            audio = _audio_encoder(made) if source.streams.audio else None
            for frame in _decoded(source):
                if video is not None and isinstance(frame, av.VideoFrame):
                    made.mux(video.encode(_limited(frame)))
                elif audio is not None and isinstance(frame, av.AudioFrame):
                    made.mux(audio.encode(frame))
            for encoder in (video, audio):
                if encoder is not None:
                    made.mux(encoder.encode(None))
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(f"the clip cannot be read: {error}") from error
    return body.getvalue()


def sound(clip: bytes) -> bytes:
    """The clip's sound as FLAC. Raises MediaError if it has none."""
    samples, rate_hz = _samples(clip)
    return flac(samples, rate_hz)


def picture_of_sound(clip: bytes) -> bytes:
    """The spectrogram of the clip's sound as JPEG. Raises MediaError if it has none."""
    samples, rate_hz = _samples(clip)
    pixels = spectrogram(samples, rate_hz, 0.0)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise MediaError("the spectrogram cannot be written as JPEG")
    return data.tobytes()


def _samples(clip: bytes) -> tuple[NDArray[np.float32], int]:
    """All samples, (S,), -1..1, and their rate."""
    try:
        with av.open(io.BytesIO(clip), "r", format="matroska") as source:
            if not source.streams.audio:
                raise MediaError("the clip has no sound")
            rate_hz = source.streams.audio[0].rate
            frames = [frame.to_ndarray().reshape(-1) for frame in source.decode(audio=0)]
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(f"the clip cannot be read: {error}") from error
    if not frames:
        raise MediaError("the clip has no sound")
    samples: NDArray[np.float32] = np.concatenate(frames).astype(np.float32) / np.float32(32768)
    return samples, rate_hz


def _audio_encoder(made: OutputContainer) -> av.AudioStream:
    audio = made.add_stream("libopus", rate=OPUS_HZ, layout="mono")
    audio.bit_rate = AUDIO_BITS
    return audio


def _video_encoder(made: OutputContainer, source: InputContainer) -> av.VideoStream:
    size = source.streams.video[0]
    video = made.add_stream("libvpx", rate=round(CLIP_FPS), options=FAST)
    video.width, video.height, video.pix_fmt = size.width, size.height, "yuv420p"
    video.bit_rate = VIDEO_BITS
    video.time_base = video.codec_context.time_base = MILLI
    return video


def _decoded(source: InputContainer) -> Iterator[av.VideoFrame | av.AudioFrame]:
    for packet in source.demux():
        for frame in packet.decode():
            if isinstance(frame, av.VideoFrame | av.AudioFrame):
                yield frame


def _limited(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame in the colours of WebM: motion JPEG uses the full range of values, VP8 the limited one."""
    made = frame.reformat(format="yuv420p", dst_color_range="MPEG")
    made.pts, made.time_base = frame.pts, frame.time_base
    return made
