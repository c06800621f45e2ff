"""A clip of stills and audio as a Matroska file."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from perceiverd.core.media import NS_PER_S, Chunk, StillFormat
from perceiverd.sources.snapshots.clip import Still, clip
from perceiverd.sources.snapshots.jpeg import JpegEncoder

RATE_HZ = 16_000


def still(start_ns: int, grey: int) -> Still:
    pixels = np.full((48, 64, 3), grey, np.uint8)
    jpeg = JpegEncoder(StillFormat(640, 5)).of(0, av.VideoFrame.from_ndarray(pixels, "rgb24"))
    assert jpeg
    return Still(start_ns, jpeg)


def chunk(start_ns: int, value: float) -> Chunk:
    return Chunk(start_ns, np.full(RATE_HZ // 5, value, np.float32), RATE_HZ)


def test_stills_and_audio_keep_their_times() -> None:
    """Stills and chunks in any order come back in order, with their times from the first item on."""
    begin_ns = 77 * NS_PER_S
    chunks = [chunk(begin_ns + n * NS_PER_S // 5, n / 10) for n in range(5)]
    stills = [still(begin_ns + n * NS_PER_S // 5, n * 40) for n in range(5)]
    with av.open(io.BytesIO(clip([*reversed(stills), *chunks])), "r") as container:
        frames = list(container.decode(video=0))
    with av.open(io.BytesIO(clip([*reversed(stills), *chunks])), "r") as container:
        samples = np.concatenate([each.to_ndarray() for each in container.decode(audio=0)], axis=1)[0]
    assert [frame.time for frame in frames] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    greys = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    assert greys == pytest.approx([0, 40, 80, 120, 160], abs=3)
    assert samples[:: RATE_HZ // 5] / 32767 == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4], abs=1e-4)


def test_a_clip_may_have_one_modality() -> None:
    """Stills alone make a clip without audio, chunks alone one without video."""
    for items, kind in (([still(0, 9)], "video"), ([chunk(0, 0.5)], "audio")):
        with av.open(io.BytesIO(clip(items))) as container:
            assert [stream.type for stream in container.streams] == [kind]


def test_nothing_makes_no_clip() -> None:
    """Without items, clip raises FileNotFoundError with the reason that the log shows."""
    with pytest.raises(FileNotFoundError, match="has sent nothing recently"):
        clip([])
