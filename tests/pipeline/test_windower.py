"""The windower: which windows it cuts, from which media, in any order and with any gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.config import WindowConfig
from perceiverd.core.media import NS_PER_S, Chunk, Frame
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.pipeline.windower import Window, Windower

RATE_HZ = 1_000
MS = NS_PER_S // 1_000
TRUNK = Trunk(latents=3, width=8, cross_attends=1, layers=1, heads=2)
AUDIO = Audio(rate_hz=RATE_HZ, samples=700, form="raw", patch=(70,), bands=2)
VIDEO = Video(frames=7, fps=10, height=3, width=5, patch=(1, 3, 5), bands=2)
BOTH = Geometry(classes=2, trunk=TRUNK, audio=AUDIO, video=VIDEO)
AUDIO_ONLY = Geometry(classes=2, trunk=TRUNK, audio=AUDIO)
WINDOW_NS = 700 * MS
TOLERANCE = replace(WindowConfig().tolerance, chunk_gap_ns=20 * MS, conceal_ns=0)
"""Nothing is filled here: `test_holes` does that."""


def chunk(start_ms: int, length_ms: int) -> Chunk:
    """Audio in which each sample is its own time in milliseconds."""
    return Chunk(start_ms * MS, np.arange(start_ms, start_ms + length_ms, dtype=np.float32), RATE_HZ)


def frame(at_ms: int) -> Frame:
    """A frame whose colour is its own time in units of 20 ms."""
    return Frame(at_ms * MS, np.full((3, 5, 3), at_ms // 20 % 251, dtype=np.uint8))


def merged(until_ms: int, *, chunk_ms: int = 50, frame_ms: int = 40) -> list[Frame | Chunk]:
    """Audio and video without gaps, in the order of time."""
    media: list[Frame | Chunk] = [chunk(t, chunk_ms) for t in range(0, until_ms, chunk_ms)]
    media += [frame(t) for t in range(0, until_ms, frame_ms)]
    return sorted(media, key=lambda item: item.start_ns)


def run(windower: Windower, media: Sequence[Frame | Chunk]) -> list[Window]:
    windows = [window for item in media for window in windower.push(item)]
    return windows + windower.flush()


def test_windows_are_on_the_grid_and_hold_their_own_time() -> None:
    """Every window starts one hop after the last, and its samples are those of its time."""
    windows = run(Windower(BOTH, 300 * MS, TOLERANCE), merged(2_000))
    assert [window.start_ns // MS for window in windows] == [0, 300, 600, 900, 1200, 1300]
    for window in windows:
        assert window.audio is not None and window.audio[0] == window.start_ns // MS
        assert len(window.audio) == 700 and window.end_ns - window.start_ns == WINDOW_NS


def test_hop_and_tolerance_can_change() -> None:
    """The next window starts where it would have started; after it the new hop and the new tolerance hold."""
    windower, media = Windower(BOTH, 300 * MS, TOLERANCE), merged(3_000)
    half = next(i for i, item in enumerate(media) if item.start_ns >= 1_250 * MS)
    windows = [window for item in media[:half] for window in windower.push(item)]
    assert [window.start_ns // MS for window in windows] == [0, 300]
    windower.tune(500 * MS, replace(TOLERANCE, chunk_gap_ns=200 * MS))
    rest = [item for item in media[half:] if isinstance(item, Frame) or not 2_000 <= item.start_ns // MS < 2_150]
    windows = run(windower, rest)
    assert [window.start_ns // MS for window in windows] == [600, 1100, 1600, 2100, 2300]
    assert [window.audio is not None for window in windows[:3]] == [True, True, True]  # the gap is joined now
    with pytest.raises(ValueError, match="positive"):
        windower.tune(0, TOLERANCE)


def test_frames_are_those_nearest_to_the_ticks() -> None:
    """Each tick, in the middle of its share of the window, gets the nearest frame."""
    (first, *_) = run(Windower(BOTH, 700 * MS, TOLERANCE), merged(1_000))
    assert first.video is not None
    shown_ms = first.video[:, 0, 0, 0].astype(int) * 20
    ticks_ms = np.arange(7) * 100 + 50
    assert np.abs(shown_ms - ticks_ms).max() <= 20


def test_audio_that_starts_late_is_missing_until_it_fills_a_window() -> None:
    """Windows before the audio have video only; no window mixes audio with invented silence."""
    media = [item for item in merged(4_000) if isinstance(item, Frame) or item.start_ns >= 2_000 * MS]
    for window in run(Windower(BOTH, 300 * MS, TOLERANCE), media):
        assert (window.audio is not None) == (window.start_ns >= 2_000 * MS)
        assert window.video is not None


def test_a_gap_in_the_audio_is_never_joined() -> None:
    """A window over a gap in the audio has no audio; the windows before and after it have theirs."""
    media = [item for item in merged(5_000) if isinstance(item, Frame) or not 2_000 <= item.start_ns // MS < 2_200]
    windows = run(Windower(BOTH, 100 * MS, TOLERANCE), media)
    for window in windows:
        start_ms = window.start_ns // MS
        assert (window.audio is not None) == (start_ms + 700 <= 2_000 or start_ms >= 2_200)
    assert {window.audio is None for window in windows} == {True, False}


def test_a_reported_gap_is_never_joined() -> None:
    """After `gap` no window joins the media before and after it, even if the times fit."""
    windower = Windower(AUDIO_ONLY, 100 * MS, TOLERANCE)
    windows = [w for t in range(0, 1_000, 50) for w in windower.push(chunk(t, 50))]
    windower.gap("audio")
    windows += [w for t in range(1_000, 2_000, 50) for w in windower.push(chunk(t, 50))]
    windows += windower.flush()
    assert all(w.end_ns <= 1_000 * MS or w.start_ns >= 1_000 * MS for w in windows)
    assert windower.counts.gaps == 1


def test_a_window_waits_a_limited_time_for_the_other_modality() -> None:
    """A window waits `wait_ns` for missing video and then is cut without it."""
    windower = Windower(BOTH, 700 * MS, replace(TOLERANCE, wait_ns=400 * MS))
    due = {t: windower.push(chunk(t, 50)) for t in range(0, 2_000, 50)}
    (first_ms,) = [t for t, windows in due.items() if windows][:1]
    assert first_ms + 50 == 700 + 400
    assert due[first_ms][0].modalities == ("audio",)


def test_late_media_is_ignored_and_counted() -> None:
    """A frame or chunk that is too old changes nothing but the count."""
    windower = Windower(BOTH, 300 * MS, TOLERANCE)
    before = [w for item in merged(3_000) for w in windower.push(item)]
    assert windower.push(frame(40)) == [] and windower.push(chunk(50, 50)) == []
    assert windower.counts.late == 2 and windower.counts.windows == len(before)


def test_a_jump_of_a_year_is_one_step() -> None:
    """If media continues a year later, windows continue there at once, on the same grid."""
    windower = Windower(AUDIO_ONLY, 300 * MS, TOLERANCE)
    for t in range(0, 1_000, 50):
        windower.push(chunk(t, 50))
    year_ns = 365 * 86_400 * NS_PER_S
    windows = []
    for t in range(0, 2_000, 50):
        windows += windower.push(Chunk(year_ns + t * MS, np.zeros(50, np.float32), RATE_HZ))
    assert windows and windows[-1].start_ns >= year_ns
    assert all(window.start_ns % (300 * MS) == 0 for window in windows)


@pytest.mark.parametrize("missing", ["audio", "video"])
def test_memory_is_bounded_if_one_modality_is_missing(missing: str) -> None:
    """However long one modality comes alone, the windower keeps no more than a few windows of it."""
    windower = Windower(BOTH, 300 * MS, TOLERANCE)
    media = merged(1_000) + [
        item
        for item in merged(120_000)
        if item.start_ns >= 1_000 * MS and isinstance(item, Frame if missing == "audio" else Chunk)
    ]
    most = 0
    for item in media:
        windower.push(item)
        most = max(most, sum(len(track._items) for track in windower._tracks))
    assert most < 120


def test_media_shorter_than_a_window_makes_one() -> None:
    """Half a window of audio makes one window, followed by zeros; its end is the end of the media."""
    (window,) = run(Windower(BOTH, 300 * MS, TOLERANCE), [chunk(0, 300)])
    assert window.audio is not None and window.end_ns == 300 * MS and window.video is None
    assert window.audio[299] == 299 and not window.audio[300:].any()


def test_a_short_clip_keeps_audio_and_video_together() -> None:
    """Audio that begins after the video has its place in the one window, and the end counts as no gap."""
    windower = Windower(BOTH, 300 * MS, TOLERANCE)
    (window,) = run(windower, [*map(frame, range(0, 400, 40)), chunk(200, 200)])
    assert window.modalities == ("audio", "video") and (window.start_ns, window.end_ns) == (0, 400 * MS)
    assert window.audio is not None and not window.audio[:200].any() and not window.audio[400:].any()
    np.testing.assert_array_equal(window.audio[200:400], np.arange(200, 400))
    assert windower.counts.gaps == 0


@pytest.mark.parametrize("hop_ms", [100, 1_000])
def test_short_pieces_make_one_window_of_the_last(hop_ms: int) -> None:
    """If no run is as long as a window, the one window has the times of the newest run."""
    (window,) = run(Windower(AUDIO_ONLY, hop_ms * MS, TOLERANCE), [chunk(0, 300), chunk(600, 300), chunk(1200, 300)])
    assert (window.start_ns, window.end_ns) == (1200 * MS, 1500 * MS)
    assert window.audio is not None and window.audio[0] == 1200 and not window.audio[300:].any()


def test_audio_that_ended_earlier_is_missing_in_the_last_window() -> None:
    """Audio that ended before the one window begins is None in it, not zeros."""
    (window,) = run(Windower(BOTH, 1_000 * MS, TOLERANCE), [chunk(0, 100), *map(frame, range(500, 900, 40))])
    assert window.modalities == ("video",) and window.start_ns == 500 * MS


def test_small_gaps_do_not_add_up() -> None:
    """Many gaps that would each be joined (19 ms) never shift audio far from its time in a window."""
    media: list[Frame | Chunk] = [chunk(t, 40) for t in range(0, 3_500, 59)]
    media += [frame(t) for t in range(0, 3_500, 40)]
    windows = run(Windower(BOTH, 300 * MS, TOLERANCE), sorted(media, key=lambda item: item.start_ns))
    assert len(windows) > 5 and {window.modalities for window in windows} == {("video",)}
    one_gap = [*(chunk(t, 50) for t in range(0, 500, 50)), *(chunk(t, 50) for t in range(519, 2_000, 50))]
    assert all(window.audio is not None for window in run(Windower(AUDIO_ONLY, 300 * MS, TOLERANCE), one_gap))


def test_a_hop_longer_than_a_window_makes_nothing_late_and_no_gap() -> None:
    """Media between two windows is neither late nor a gap, and the windower keeps little of it."""
    windower, most = Windower(BOTH, 3_000 * MS, TOLERANCE), 0
    windows = []
    for item in merged(20_000):
        windows += windower.push(item)
        most = max(most, sum(len(track._items) for track in windower._tracks))
    assert [window.start_ns // MS for window in windows] == list(range(0, 20_000, 3_000))
    assert (windower.counts.late, windower.counts.gaps) == (0, 0)
    assert most < 100


def test_without_media_there_is_no_window() -> None:
    """A windower that received no media flushes no window."""
    assert Windower(BOTH, MS, TOLERANCE).flush() == []


def test_a_single_picture_makes_a_window() -> None:
    """A picture without a successor has no end: its window lasts from one tick to the next."""
    (window,) = run(Windower(BOTH, MS, TOLERANCE), [frame(40)])
    assert (window.start_ns, window.end_ns) == (40 * MS, 140 * MS)
    assert window.modalities == ("video",)


def test_a_hop_must_be_positive() -> None:
    """A hop of 0 would cut windows without end, and raises ValueError."""
    with pytest.raises(ValueError, match="positive"):
        Windower(BOTH, 0, TOLERANCE)


def test_a_drifting_clock_makes_no_gap() -> None:
    """Chunks with timestamps of a clock 200 ppm off stay one run for an hour, and windows follow the timestamps."""
    windower = Windower(AUDIO_ONLY, NS_PER_S, TOLERANCE)
    windows = []
    for i in range(7_200):  # chunks of 0.5 s
        stamp_ns = round(i * 500 * MS * 1.0002)
        windows += windower.push(Chunk(stamp_ns, np.full(500, i, np.float32), RATE_HZ))
    assert windower.counts.gaps == 0 and len(windows) >= 3_599
    last = windows[-1]
    assert last.audio is not None and abs(last.audio[0] * 500 * MS * 1.0002 - last.start_ns) <= 501 * MS


media_lists = st.lists(
    st.tuples(
        st.sampled_from(["audio", "video", "gap audio", "gap video"]), st.integers(-300, 900), st.integers(1, 400)
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(media_lists, st.integers(20, 1500))
def test_any_media_gives_whole_windows_in_order(steps: list[tuple[str, int, int]], hop_ms: int) -> None:
    """For any media, windows move forward on the grid, and every sample in a window has its own time."""
    windower, now_ms, windows, first_ms = Windower(BOTH, hop_ms * MS, TOLERANCE), 0, list[Window](), None
    for kind, forward_ms, length_ms in steps:
        if kind.startswith("gap"):
            windower.gap(kind.split()[1])
            continue
        now_ms = max(0, now_ms + forward_ms)
        windows += windower.push(chunk(now_ms, length_ms) if kind == "audio" else frame(now_ms))
    on_grid = len(windows)
    windows += windower.flush()
    starts = [window.start_ns for window in windows]
    assert starts == sorted(set(starts))
    for number, window in enumerate(windows):
        assert window.modalities
        if window.audio is not None and window.end_ns - window.start_ns == WINDOW_NS:
            expected = window.start_ns / MS + np.arange(700)
            # Timestamps of chunks may be early or late by up to the tolerated gap (20 ms).
            drift = window.audio - expected
            assert np.abs(np.diff(drift)).max() <= 20.5 and abs(drift[0]) <= 20.5
        if window.video is not None:
            assert window.video.shape == (7, 3, 5, 3)
        if number < on_grid and first_ms is None:
            first_ms = window.start_ns
        if number < on_grid and first_ms is not None:
            assert (window.start_ns - first_ms) % (hop_ms * MS) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(10, 90), st.integers(50, 900))
def test_the_size_of_chunks_does_not_matter(chunk_ms: int, frame_ms: int, hop_ms: int) -> None:
    """The same audio in chunks of another size gives the same windows."""
    whole = run(Windower(BOTH, hop_ms * MS, TOLERANCE), merged(3_000, frame_ms=frame_ms, chunk_ms=100))
    other = run(Windower(BOTH, hop_ms * MS, TOLERANCE), merged(3_000, frame_ms=frame_ms, chunk_ms=chunk_ms))
    common = min(len(whole), len(other)) - 2  # the ends differ if 3 s is not a whole number of chunks
    for a, b in zip(whole[:common], other[:common], strict=True):
        assert a.start_ns == b.start_ns and a.audio is not None and b.audio is not None
        np.testing.assert_array_equal(a.audio, b.audio)


def skewed(by_ms: float, *, drift_ms: float = 0.0) -> list[Frame | Chunk]:
    """3 s of 25 frames a second, captured `by_ms` later than the audio; its timestamps drift by `drift_ms`."""
    media: list[Frame | Chunk] = []
    for n in range(60):
        late_ns = round(drift_ms * n / 60 * MS)
        media.append(Chunk(n * 50 * MS + late_ns, np.zeros(50, np.float32), RATE_HZ))
    media += [Frame(round((n * 40 + 10 + by_ms) * MS), np.zeros((3, 5, 3), np.uint8)) for n in range(75)]
    return sorted(media, key=lambda item: item.start_ns)


@pytest.mark.parametrize("by_ms", [-10, 0, 7])
def test_skew_compares_frames_with_the_audio_beside_them(by_ms: float) -> None:
    """With a tick each 100 ms and a frame each 40 ms, skew is the computed distance to the nearest frame."""
    times_ms = np.arange(75) * 40 + 10 + by_ms
    for window in run(Windower(BOTH, 300 * MS, TOLERANCE), skewed(by_ms)):
        ticks_ms = window.start_ns / MS + 50 + 100 * np.arange(7)
        off_ms = np.array([(times_ms - tick)[np.abs(times_ms - tick).argmin()] for tick in ticks_ms])
        assert window.skew is not None
        # If two frames are equally near, either may be chosen.
        assert abs(window.skew.most_ns) == pytest.approx(np.abs(off_ms).max() * MS)
        if not np.isclose(np.abs(off_ms), 20).any():
            assert window.skew.mean_ns == pytest.approx(off_ms.mean() * MS, abs=1)


def test_skew_includes_the_drift_of_joined_audio() -> None:
    """If the timestamps of joined audio run ever later, the frames beside it were captured ever earlier."""
    windower = Windower(BOTH, 100 * MS, replace(TOLERANCE, frame_gap_ns=NS_PER_S, chunk_gap_ns=100 * MS))
    windows = [window for window in run(windower, skewed(0, drift_ms=600)) if window.skew]
    assert windows
    for window in windows:
        assert window.skew is not None
        # Within a window the timestamps drift by a fifth: 0.2 * 350 ms at the middle tick, less the skew at its start.
        assert -150 * MS < window.skew.mean_ns < -20 * MS


def test_skew_needs_both_modalities() -> None:
    """A window with one modality has no skew, and neither has a padded one."""
    video_only = run(Windower(BOTH, 300 * MS, TOLERANCE), [item for item in skewed(0) if isinstance(item, Frame)])
    assert video_only and all(window.skew is None for window in video_only)
    short = run(Windower(BOTH, 300 * MS, TOLERANCE), [item for item in skewed(0) if item.start_ns < 400 * MS])
    assert [window.skew for window in short] == [None]
