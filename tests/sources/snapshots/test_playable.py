"""A clip in forms that browsers play, decoded again."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, StillFormat
from perceiverd.sources.snapshots import playable
from perceiverd.sources.snapshots.clip import Still, clip
from perceiverd.sources.snapshots.jpeg import JpegEncoder

RATE_HZ = 16_000
TONE_HZ = 1000


def made(stills: int = 10, chunks: int = 10) -> bytes:
    """A clip of fifths of a second: greys that become lighter, and a tone."""
    items: list[Still | Chunk] = []
    for number in range(stills):
        pixels = np.full((46, 62, 3), 20 * number, np.uint8)
        jpeg = JpegEncoder(StillFormat(640, 5)).of(0, av.VideoFrame.from_ndarray(pixels, "rgb24"))
        assert jpeg
        items.append(Still(number * NS_PER_S // 5, jpeg))
    for number in range(chunks):
        times = (np.arange(RATE_HZ // 5) + number * RATE_HZ // 5) / RATE_HZ
        samples = (0.5 * np.sin(2 * np.pi * TONE_HZ * times)).astype(np.float32)
        items.append(Chunk(number * NS_PER_S // 5, samples, RATE_HZ))
    return clip(items)


def test_webm_keeps_pictures_sound_and_times() -> None:
    """VP8 and Opus with the frames at their times, their greys, and the tone."""
    data = playable.webm(made())
    with av.open(io.BytesIO(data), "r") as container:
        assert [each.codec_context.name for each in container.streams] == ["vp8", "opus"]
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([n / 5 for n in range(10)], abs=0.002)
    greys = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    assert greys == pytest.approx([20 * n for n in range(10)], abs=12)
    with av.open(io.BytesIO(data), "r") as container:
        sound = np.concatenate([each.to_ndarray().reshape(-1) for each in container.decode(audio=0)])
    assert len(sound) / 48_000 == pytest.approx(2, abs=0.1)
    assert np.abs(np.fft.rfft(sound)).argmax() * 48_000 / len(sound) == pytest.approx(TONE_HZ, abs=2)


def test_the_sound_is_exact() -> None:
    """FLAC has the samples of the clip, bit for bit."""
    with av.open(io.BytesIO(playable.sound(made())), "r") as container:
        found = np.concatenate([each.to_ndarray().reshape(-1) for each in container.decode(audio=0)])
    with av.open(io.BytesIO(made()), "r") as container:
        before = np.concatenate([each.to_ndarray().reshape(-1) for each in container.decode(audio=0)])
    assert np.array_equal(found, before)


def test_the_spectrogram_shows_the_tone() -> None:
    """A bright line across the picture."""
    with av.open(io.BytesIO(playable.picture_of_sound(made())), "r") as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24")
    rows = pixels[20:280, 200:600].mean(axis=(1, 2))
    assert rows.max() > 4 * np.median(rows)


def test_clips_without_one_of_both() -> None:
    """Without video there is still sound, without sound there are still pictures, and asking for sound is refused."""
    with av.open(io.BytesIO(playable.webm(made(stills=0))), "r") as container:
        assert [each.type for each in container.streams] == ["audio"]
    silent = made(chunks=0)
    with av.open(io.BytesIO(playable.webm(silent)), "r") as container:
        assert [each.type for each in container.streams] == ["video"]
    with pytest.raises(MediaError, match="the clip has no sound"):
        playable.sound(silent)


@pytest.mark.parametrize(
    "data", [b"", b"\x1aE\xdf\xa3", made()[:200], b"x" * 1000], ids=["empty", "head", "cut", "noise"]
)
def test_damaged_clips_are_one_line(data: bytes) -> None:
    """They are refused with a reason."""
    with pytest.raises(MediaError) as caught:
        playable.webm(data)
    assert "\n" not in str(caught.value)
