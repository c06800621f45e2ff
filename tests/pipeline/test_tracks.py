"""The media of one modality: runs, gaps, and what is cut from them."""

import numpy as np
import pytest

from perceiverd.core.media import NS_PER_S, Chunk, Frame, end_of
from perceiverd.model.geometry import Audio, Video
from perceiverd.pipeline.tracks import ChunkTrack, FrameTrack, pixels_of

MS = NS_PER_S // 1_000
AUDIO = Audio(rate_hz=1_000, samples=70, form="raw", patch=(7,), bands=2)
VIDEO = Video(frames=2, fps=10, height=3, width=5, patch=(1, 3, 5), bands=2)


def chunk(start_ms: int, length_ms: int = 50) -> Chunk:
    """Audio in which each sample is its own time in milliseconds."""
    return Chunk(start_ms * MS, np.arange(start_ms, start_ms + length_ms, dtype=np.float32), 1_000)


def frame(at_ms: int) -> Frame:
    return Frame(at_ms * MS, np.full((3, 5, 3), at_ms % 251, np.uint8))


def test_a_frame_is_a_point_in_time() -> None:
    """A chunk brings its modality to its end, a frame to its own time."""
    assert (end_of(chunk(10)), end_of(frame(10))) == (60 * MS, 10 * MS)


def test_a_gap_starts_a_new_run() -> None:
    """A gap is found in the times, or marked; marking it twice is one gap."""
    track = ChunkTrack(AUDIO, 20 * MS)
    for start_ms in (0, 50, 121):  # 21 ms too late
        assert track.add(chunk(start_ms))
    track.mark_gap()
    track.mark_gap()
    assert track.add(chunk(171))
    assert track.gaps == 2
    starts_ns = [track.next_run_ns(after_ms * MS, 70 * MS) for after_ms in (0, 121, 171)]
    assert starts_ns == [121 * MS, 171 * MS, None]
    assert [item.start_ns // MS for item in track.last_run()] == [171]


def test_a_hole_that_is_filled_is_part_of_a_run() -> None:
    """A window may begin before such a hole ends; a marked gap ends the run, however short it is."""
    track = ChunkTrack(AUDIO, 20 * MS, conceal_ns=30 * MS)
    for start_ms in (0, 80, 161):  # 30 and 31 ms are missing
        track.add(chunk(start_ms))
    assert [item.start_ns // MS for item in track.last_run()] == [161]
    track.add(chunk(241))
    assert [item.start_ns // MS for item in track.last_run()] == [161, 241]
    assert track.next_run_ns(0, 70 * MS) == 10 * MS
    track.mark_gap()
    track.add(chunk(291))
    assert [item.start_ns // MS for item in track.last_run()] == [291]


def test_media_that_is_too_old_is_ignored() -> None:
    """Chunks may overlap by the tolerated gap; two frames never have the same time."""
    audio, video = ChunkTrack(AUDIO, 20 * MS), FrameTrack(VIDEO, NS_PER_S)
    assert [audio.add(chunk(start_ms)) for start_ms in (0, 30, 59)] == [True, True, False]
    assert [video.add(frame(at_ms)) for at_ms in (0, 40, 40, 41)] == [True, True, False, True]


def test_other_media_than_the_models_is_an_error() -> None:
    """A chunk of another rate and a frame of another size raise ValueError with both values."""
    with pytest.raises(ValueError, match="a chunk of 8000 Hz; the model needs 1000 Hz"):
        ChunkTrack(AUDIO, MS).add(Chunk(0, np.zeros(8, np.float32), 8_000))
    with pytest.raises(ValueError, match=r"a frame of \(4, 5, 3\); the model needs \(3, 5, 3\)"):
        FrameTrack(VIDEO, MS).add(Frame(0, np.zeros((4, 5, 3), np.uint8)))


def test_a_cut_needs_the_whole_window() -> None:
    """Audio is decided once its samples are complete, or its run ends before; until then nothing is cut."""
    track = ChunkTrack(AUDIO, 20 * MS)
    track.add(chunk(0))
    assert (track.cut(0), track.decided(0)) == (None, False)
    track.add(chunk(50))
    cut = track.cut(0)
    assert cut is not None and cut.samples().tolist() == list(range(70))
    assert track.decided(0) and not track.decided(60 * MS)
    track.mark_gap()
    assert track.cut(60 * MS) is None and track.decided(60 * MS)


def test_each_tick_gets_the_nearest_frame() -> None:
    """Ticks are at 50 and 150 ms; a run that does not reach the last one gives no video."""
    track = FrameTrack(VIDEO, NS_PER_S)
    for at_ms in (0, 40, 80):
        track.add(frame(at_ms))
    assert track.cut(0) is None and not track.decided(0)
    for at_ms in (120, 160):
        track.add(frame(at_ms))
    cut = track.cut(0)
    assert cut is not None and [each.start_ns // MS for each in cut.frames] == [40, 160]
    assert [each.shape for each in pixels_of(cut.frames)] == [(3, 5, 3)] * 2 and cut.holes_ns == []
    assert track.decided(0)


def test_old_media_is_forgotten() -> None:
    """Chunks go when they end before the time; of frames, the one before the first tick stays."""
    audio, video = ChunkTrack(AUDIO, 0), FrameTrack(VIDEO, NS_PER_S)
    for n in range(4):
        audio.add(chunk(50 * n))
        video.add(frame(40 * n))
    audio.forget(100 * MS)
    video.forget(0)
    assert [item.start_ns // MS for item in audio.last_run()] == [100, 150]
    assert [item.start_ns // MS for item in video.last_run()] == [40, 80, 120]
