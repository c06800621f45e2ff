"""Frames that no window needs come without pixels, and windows are the same as with all frames."""

from __future__ import annotations

import os
import threading
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, VideoFormat
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.offline.decoding import Decoder
from perceiverd.offline.tag import TOLERANCE
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.sources.decode import container, lazy
from perceiverd.sources.decode import needed as module
from perceiverd.sources.decode.needed import needed
from tests.support.clips import write_clip

MS = NS_PER_S // 1000
GEOMETRY = Geometry(
    classes=2,
    trunk=Trunk(latents=3, width=8, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=1000, samples=1280, form="raw", patch=(80,), bands=2),
    video=Video(frames=2, fps=1.5625, height=3, width=5, patch=(1, 3, 5), bands=2),
)
BOTH = ("audio", "video")


def media_of(frames_ms: list[int], chunks_ms: list[tuple[int, int]]) -> list[Media]:
    """Frames whose pixels show their number, and chunks (start, length), in the order of their ends."""
    frames = [Frame(at * MS, np.full((3, 5, 3), n % 251, np.uint8)) for n, at in enumerate(frames_ms)]
    chunks = [Chunk(at * MS, np.arange(at, at + length, dtype=np.float32), 1000) for at, length in chunks_ms]
    return sorted([*frames, *chunks], key=lambda item: item.end_ns if isinstance(item, Chunk) else item.start_ns)


def windower(hop_ms: int) -> Windower:
    return Windower(GEOMETRY, hop_ms * MS, TOLERANCE)


def windows(items: list[Media], hop_ms: int, modalities: tuple[str, ...] = BOTH) -> list[tuple[object, ...]]:
    """All that a window says."""
    cutting = windower(hop_ms)
    for modality in {"audio", "video"} - set(modalities):
        cutting.end(modality)
    found: list[Window] = [window for item in items for window in cutting.push(item)] + cutting.flush()
    return [
        (
            window.start_ns,
            window.end_ns,
            None if window.audio is None else window.audio.tobytes(),
            None if window.pictures is None else [picture.tobytes() for picture in window.pictures],
            window.skew,
            window.holes_ns,
            window.missing,
        )
        for window in found
    ]


@example(gaps_ms=[40, 366, 40, 40, 40, 434, 40, 40], chunk_ms=20, audio_ms=(401, 981), hole=0, hop_ms=1280, held=3)
@given(
    gaps_ms=st.lists(st.integers(1, 900) | st.just(40), max_size=80),
    chunk_ms=st.integers(20, 500),
    audio_ms=st.tuples(st.integers(0, 3000), st.integers(0, 20_000)),
    hole=st.integers(0, 60),
    hop_ms=st.sampled_from([300, 500, 1280, 3100]),
    held=st.sampled_from([3, 256]),
)
def test_windows_do_not_change(
    gaps_ms: list[int], chunk_ms: int, audio_ms: tuple[int, int], hole: int, hop_ms: int, held: int
) -> None:
    """Times, samples, pictures, holes and reasons are the same, however frames and chunks lie."""
    begin, lasts = audio_ms
    chunks = [(at, chunk_ms) for n, at in enumerate(range(begin, begin + lasts, chunk_ms)) if n != hole]
    media = media_of(list(accumulate(gaps_ms)), chunks)
    modalities = tuple(name for name, there in (("audio", chunks), ("video", gaps_ms)) if there)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD_ITEMS", held)
        thinned = list(needed(media, windower(hop_ms).grid, modalities))
    assert [(type(item), item.start_ns) for item in thinned] == [(type(item), item.start_ns) for item in media]
    assert windows(thinned, hop_ms, modalities) == windows(media, hop_ms, modalities)


def test_a_film_needs_as_many_frames_as_its_windows_have() -> None:
    """Of a minute with 6 frames a second, windows of 2 frames need 94, and the last window a few more."""
    media = media_of(list(range(0, 60_000, 160)), [(at, 250) for at in range(0, 60_000, 250)])
    frames = [item for item in needed(media, windower(1280).grid, BOTH) if isinstance(item, Frame)]
    assert len(frames) == 375 and 94 <= sum(frame.pixels.size > 0 for frame in frames) < 110


def test_a_fault_comes_after_the_frames_before_it() -> None:
    """Frames that wait when a file breaks off are delivered, then its error is raised."""

    def broken() -> object:
        yield from media_of([0, 40, 80], [])
        raise MediaError("torn")

    got = needed(broken(), windower(500).grid, ("video",))  # type: ignore[arg-type]
    assert [next(got).start_ns // MS for _ in range(3)] == [0, 40, 80]
    with pytest.raises(MediaError, match="torn"):
        next(got)


def test_large_frames_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the limit of decoded bytes waits: frames beyond it are sized at once, and all come."""
    clip = write_clip(tmp_path / "film.mkv", video_s=4, audio_s=4)
    wanted = MediaFormat(16_000, VideoFormat(24, 32, 6.25))
    grid = Windower(GEOMETRY, 1280 * MS, TOLERANCE).grid
    one = next(item for item in container.read(clip, wanted, lazy=True) if isinstance(item, lazy.LazyFrame))
    monkeypatch.setattr(module, "HELD_BYTES", 2 * one.held_bytes)
    frames = module.NeededFrames(grid, BOTH)
    count, most = 0, 0
    for item in container.read(clip, wanted, lazy=True):
        count += sum(isinstance(each, Frame) for each in frames.add(item))
        most = max(most, sum(module._bytes(frame) for frame in frames._waiting))
    count += sum(isinstance(each, Frame) for each in frames.flush())
    assert count == 100 and 0 < most <= 2 * one.held_bytes


def test_a_worker_sends_only_the_pixels_that_windows_need(tmp_path: Path) -> None:
    """The frames with pixels are those of a worker that sends all; of the others the times come."""
    clip = write_clip(tmp_path / "film.mp4", video_s=6, audio_s=6)
    grid = Windower(GEOMETRY, 1280 * MS, TOLERANCE).grid
    with Decoder(MediaFormat(16_000, VideoFormat(24, 32, 6.25))) as decoder:
        everything = [item for item in decoder.read(str(clip)) if isinstance(item, Frame)]
        frames = [item for item in decoder.read(str(clip), grid=grid) if isinstance(item, Frame)]
    assert [frame.start_ns for frame in frames] == [frame.start_ns for frame in everything]
    with_pixels = [(a, b) for a, b in zip(frames, everything, strict=True) if a.pixels.size]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in with_pixels)
    assert len(with_pixels) < len(frames)


def test_what_comes_live_does_not_wait(tmp_path: Path) -> None:
    """All frames of a pipe have their pixels: nothing waits until it is known which of them a window needs."""
    clip, fifo = write_clip(tmp_path / "film.mkv", video_s=3, audio_s=3), tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(clip.read_bytes()))
    writer.start()
    with Decoder(MediaFormat(16_000, VideoFormat(24, 32, 6.25))) as decoder:
        grid = Windower(GEOMETRY, 1280 * MS, TOLERANCE).grid
        frames = [item for item in decoder.read(str(fifo), grid=grid) if isinstance(item, Frame)]
    writer.join()
    assert frames and all(frame.pixels.size for frame in frames)
