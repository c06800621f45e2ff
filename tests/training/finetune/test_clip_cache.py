"""The clip cache: any window can be cut from a decoded clip, and nothing is decoded twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S
from perceiverd.evaluation.manifest import ManifestRow
from perceiverd.pipeline.windower import Windower
from perceiverd.sources.decode import container
from perceiverd.training.finetune import clip_cache
from perceiverd.training.finetune.clip_cache import ClipCache, DecodedClip
from tests.support.clips import GEOMETRY as BOTH
from tests.support.clips import write_clip
from tests.support.finetune import AUDIO, RATE_HZ, write_sound


def test_windows_of_a_cached_clip_equal_those_of_its_file(tmp_path: Path) -> None:
    """A clip from the cache gives the windows that the file itself gives, to the rounding of 16 bits."""
    file = write_clip(tmp_path / "film.mkv", video_s=3.4, audio_s=3.4)
    windower, direct = Windower(BOTH, NS_PER_S // 2, clip_cache.TOLERANCE), []
    for item in container.read(file, BOTH.media_format):
        direct += windower.push(item)
    direct += windower.flush()
    ((_, place),) = ClipCache(tmp_path / "cache", BOTH).fill([ManifestRow(0, file, 0, None, ())], 1)
    assert isinstance(place, Path)
    kept = clip_cache.load(place).windows(BOTH, NS_PER_S // 2)
    assert [window.start_ns for window in kept] == [window.start_ns for window in direct]
    for one, other in zip(kept, direct, strict=True):
        assert one.audio is not None and other.audio is not None and one.video is not None and other.video is not None
        np.testing.assert_allclose(one.audio, other.audio, atol=1 / 32_768)
        np.testing.assert_array_equal(one.video, other.video)


def test_a_window_can_start_anywhere_in_a_clip() -> None:
    """A window starts where it is asked for, to the sample, and has the nearest frames."""
    samples = np.arange(-16_000, 32_000)
    frames = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None, None], (30, 24, 32, 3))
    clip = DecodedClip(
        16_000, samples.astype(np.int16), np.array([[0, 0, 48_000]]), frames, np.arange(30) * NS_PER_S // 10, 1.0
    )
    for start_s in (0.0, 0.03, 0.5, 1.25, 2.0):
        window = clip.window(BOTH, round(start_s * NS_PER_S))
        assert window is not None and window.audio is not None and window.video is not None
        assert abs(window.audio[0] * 32_768 + 16_000 - start_s * 16_000) <= 0.0625 * 16_000
        assert abs(int(window.video[0, 0, 0, 0]) - 10 * window.start_ns / NS_PER_S) <= 1


def test_clips_of_one_file_are_separate(tmp_path: Path) -> None:
    """Each row of a file gets its own stretch. A clip may reach past the file's end; one after it is an error."""
    ramp = np.linspace(-0.9, 0.9, 3 * RATE_HZ)
    file = write_sound(tmp_path / "ramp.wav", ramp)
    rows = [ManifestRow(2, file, 0.5, 1.0, ()), ManifestRow(3, file, 2.5, 9.0, ()), ManifestRow(4, file, 5, 6, ())]
    first, second, third = clip_cache.decode(file, rows, AUDIO.media_format)
    assert isinstance(first, DecodedClip) and isinstance(second, DecodedClip) and isinstance(third, MediaError)
    np.testing.assert_allclose(first.pcm / 32_768, ramp[8_000:16_000], atol=1e-3)
    np.testing.assert_allclose(second.pcm / 32_768, ramp[40_000:], atol=1e-3)
    assert "has no audio or video from 5 s to 6 s" in str(third)


def test_a_file_named_by_id_may_be_the_clip(tmp_path: Path) -> None:
    """AudioSet's clip of 30 to 40 s is all of a file that lasts 10 s, and a part of one that lasts longer."""
    short = write_sound(tmp_path / "short.wav", np.zeros(10 * RATE_HZ) + 0.1)
    long = write_sound(tmp_path / "long.wav", np.zeros(45 * RATE_HZ) + 0.1)
    for file in (short, long):
        (clip,) = clip_cache.decode(file, [ManifestRow(1, file, 30, 40, (), cut=True)], AUDIO.media_format)
        assert isinstance(clip, DecodedClip) and clip.end_ns == 10 * NS_PER_S


def test_a_cached_clip_is_not_decoded_again(tmp_path: Path) -> None:
    """The same bytes under another name have the same file in the cache, which is not written again."""
    file = write_sound(tmp_path / "one.wav", np.zeros(8_000) + 0.1)
    cache = ClipCache(tmp_path / "cache", AUDIO)
    ((_, first),) = cache.fill([ManifestRow(2, file, 0, None, ())], 1)
    assert isinstance(first, Path)
    written = first.stat().st_mtime_ns
    ((_, again),) = cache.fill([ManifestRow(2, file.rename(tmp_path / "two.wav"), 0, None, ())], 1)
    assert again == first and first.stat().st_mtime_ns == written
