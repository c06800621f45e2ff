"""Holes in a stream: what a window has then, how much of it was filled, and why a modality is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiverd.config import WindowConfig
from perceiverd.core.media import Chunk, Frame
from perceiverd.pipeline.tracks import KEEP_SHARE
from perceiverd.pipeline.windower import Window, Windower
from tests.pipeline.test_windower import AUDIO_ONLY, BOTH, MS, WINDOW_NS, chunk, frame, merged, run

TOLERANCE = WindowConfig().tolerance
CONCEAL_MS = TOLERANCE.conceal_ns // MS
WINDOW_MS = WINDOW_NS // MS
STRICT = replace(TOLERANCE, conceal_ns=0)

Lost = Sequence[tuple[int, int]]


def without(lost: Lost, until_ms: int) -> list[Frame | Chunk]:
    """Audio and video; the audio lacks these milliseconds."""
    edges = [0, *(edge for span in lost for edge in span), until_ms]
    audio: list[Frame | Chunk] = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        audio += [chunk(at, min(50, end - at)) for at in range(begin, end, 50)]
    video = [item for item in merged(until_ms) if isinstance(item, Frame)]
    return sorted([*audio, *video], key=lambda item: item.start_ns)


def overlap_ms(lost: Lost, start_ms: int, end_ms: int) -> int:
    """How many of these milliseconds are lost between two times."""
    return sum(max(0, min(end, end_ms) - max(begin, start_ms)) for begin, end in lost)


def check_samples(window: Window, lost: Lost) -> None:
    """Every sample that was not lost is at its own time."""
    assert window.audio is not None
    times_ms = window.start_ns // MS + np.arange(WINDOW_MS)
    is_lost = np.zeros(WINDOW_MS, bool)
    for begin, end in lost:
        is_lost |= (times_ms >= begin) & (times_ms < end)
    np.testing.assert_array_equal(window.audio[~is_lost], times_ms[~is_lost])


@st.composite
def holes(draw: st.DrawFn, longest_ms: int) -> Lost:
    """Holes anywhere in 4 s, 16 ms (more than the jitter) to `longest_ms` long, with audio between them."""
    spans, at_ms = list[tuple[int, int]](), 0
    for apart_ms, length_ms in draw(st.lists(st.tuples(st.integers(1, 900), st.integers(16, longest_ms)), max_size=20)):
        at_ms += apart_ms
        if at_ms + length_ms >= 4_000:
            break
        spans.append((at_ms, at_ms + length_ms))
        at_ms += length_ms
    return spans


@settings(max_examples=60, deadline=None)
@given(holes(longest_ms=CONCEAL_MS), st.integers(50, 1_000))
def test_short_holes_cost_no_window_its_audio(lost: Lost, hop_ms: int) -> None:
    """With holes up to the bound every window has its audio, each real sample at its time, and counts the holes."""
    windower = Windower(BOTH, hop_ms * MS, TOLERANCE)
    windows = run(windower, without(lost, 4_000))
    assert len(windows) >= (4_000 - WINDOW_MS) // hop_ms
    for window in windows:
        assert window.modalities == ("audio", "video") and window.missing == {}
        check_samples(window, lost)
        filled = overlap_ms(lost, window.start_ns // MS, window.end_ns // MS)
        assert window.filled_ms.get("audio", 0) == filled
    if hop_ms <= WINDOW_MS:
        assert windower.counts.filled_ns.get("audio", 0) == overlap_ms(lost, 0, windows[-1].end_ns // MS) * MS


@settings(max_examples=60, deadline=None)
@given(holes(longest_ms=1_500), st.integers(50, 1_000))
def test_long_holes_cost_the_audio_of_windows_that_lack_too_much(lost: Lost, hop_ms: int) -> None:
    """Above the bound a window has audio exactly if enough of it is present; otherwise it says why not."""
    for window in run(Windower(BOTH, hop_ms * MS, TOLERANCE), without(lost, 4_000)):
        start_ms, end_ms = window.start_ns // MS, window.end_ns // MS
        missing = [overlap_ms([span], start_ms, end_ms) for span in lost]
        share = 1 - sum(missing) / WINDOW_MS
        # Times are rounded, so the bound allows one sample more: here, at 1 kHz, one millisecond.
        kept = share > 0 and (max(missing, default=0) <= CONCEAL_MS + 1 or share >= KEEP_SHARE)
        assert (window.audio is not None) == kept
        # While a hole lasts longer than windows wait, nobody knows how it ends.
        assert window.missing in ([{}] if kept else [{"audio": "hole"}, {"audio": "late"}])
        if kept:
            check_samples(window, lost)
            assert window.filled_ms.get("audio", 0) == sum(missing)


@settings(max_examples=30, deadline=None)
@given(holes(longest_ms=400), st.integers(50, 1_000), st.integers(1, 200))
def test_the_size_of_chunks_does_not_matter(lost: Lost, hop_ms: int, chunk_ms: int) -> None:
    """The same audio with the same holes gives the same windows, in chunks of any size."""
    items = without(lost, 4_000)
    split: list[Frame | Chunk] = []
    for item in items:
        if isinstance(item, Frame):
            split.append(item)
        else:
            count, start_ms = len(item.samples), item.start_ns // MS
            split += [chunk(start_ms + at, min(chunk_ms, count - at)) for at in range(0, count, chunk_ms)]
    first, second = (run(Windower(AUDIO_ONLY, hop_ms * MS, TOLERANCE), media) for media in (items, split))
    assert [window.start_ns for window in first] == [window.start_ns for window in second]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.audio, other.audio)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(10, 90), st.integers(50, 900))
def test_media_without_holes_is_as_without_concealment(chunk_ms: int, frame_ms: int, hop_ms: int) -> None:
    """Concealment changes no window of media without holes."""
    media = merged(3_000 // chunk_ms * chunk_ms, frame_ms=frame_ms, chunk_ms=chunk_ms)
    plain, filled = (run(Windower(BOTH, hop_ms * MS, tolerance), media) for tolerance in (STRICT, TOLERANCE))
    for one, other in zip(plain, filled, strict=False):  # the ends may differ by a chunk
        if one.audio is not None and one.video is not None:
            np.testing.assert_array_equal(one.audio, other.audio)
            np.testing.assert_array_equal(one.video, other.video)
            assert (one.start_ns, one.skew) == (other.start_ns, other.skew) and not other.filled_ms.get("audio")


def test_small_holes_are_filled_before_they_add_up() -> None:
    """Many holes of 14 ms are jitter each; when they add up they are filled, and audio stays near its time."""
    media = [chunk(at, 40) for at in range(0, 3_500, 54)]
    windows = run(Windower(AUDIO_ONLY, 300 * MS, TOLERANCE), media)
    assert len(windows) > 5
    for window in windows:
        assert window.audio is not None and window.filled_ms["audio"] > 100
        late_ms = window.start_ns / MS + np.arange(WINDOW_MS) - window.audio
        assert (np.abs(late_ms) <= 2 * 15).mean() > 0.7


def test_a_reported_gap_is_never_filled() -> None:
    """A window over a gap that the source has reported has no audio, however short the gap is."""
    windower = Windower(BOTH, 100 * MS, TOLERANCE)
    windows = list[Window]()
    for item in without([(1_000, 1_030)], 3_000):
        if isinstance(item, Chunk) and item.start_ns == 1_030 * MS:
            windower.gap("audio")
        windows += windower.push(item)
    for window in windows + windower.flush():
        spans_gap = window.start_ns < 1_030 * MS and window.end_ns > 1_000 * MS
        assert window.missing == ({"audio": "hole"} if spans_gap else {})
    assert windower.counts.missing == {"audio": {"hole": sum(w.audio is None for w in windows)}}


def test_audio_that_begins_or_ends_a_little_apart_is_kept() -> None:
    """Audio that begins and ends some milliseconds inside the video is filled at both ends, and at the tail too."""
    media = [item for item in merged(2_000) if isinstance(item, Frame) or 50 <= item.start_ns // MS < 1_900]
    windows = run(Windower(BOTH, 700 * MS, TOLERANCE), media)
    assert [window.modalities for window in windows] == [("audio", "video")] * 3
    assert [window.filled_ms.get("audio") for window in windows] == [50, None, 60]  # the last frame is at 1,960


def test_a_year_without_audio_is_one_step() -> None:
    """After a hole of a year the first window with enough audio comes at once."""
    windower, year_ms = Windower(AUDIO_ONLY, 100 * MS, TOLERANCE), 365 * 86_400_000
    for at in range(0, 1_000, 50):
        windower.push(chunk(at, 50))
    windows = [w for at in range(0, 1_000, 50) for w in windower.push(chunk_at(year_ms + at))]
    present = 1 - (year_ms - windows[-1].start_ns // MS) / WINDOW_MS
    assert windows and windows[0].start_ns < year_ms * MS and present >= KEEP_SHARE


def chunk_at(start_ms: int) -> Chunk:
    return Chunk(start_ms * MS, np.zeros(50, np.float32), 1_000)


def test_lost_frames_are_counted_beyond_their_usual_interval() -> None:
    """One lost frame of 25 a second changes no tick and counts nothing; half a second counts but for one interval."""
    media = [item for item in merged(4_000) if not (isinstance(item, Frame) and item.start_ns in lost_frames())]
    windower = Windower(BOTH, 700 * MS, TOLERANCE)
    windows = run(windower, media)
    assert all(window.modalities == ("audio", "video") for window in windows)
    # The frame at 1,400 ms stands for half a tick (50 ms); the next one is at 1,920 ms.
    assert [window.filled_ms for window in windows] == [{}, {}, {"video": 470}, {}, {}, {}]
    assert windower.counts.filled_ns == {"video": 470 * MS}


def lost_frames() -> set[int]:
    return {at * MS for at in [280, *range(1_440, 1_920, 40)]}


@pytest.mark.parametrize(("gap_ms", "kept"), [(1_240, True), (1_800, False)])
def test_video_above_the_bound_needs_enough_ticks(gap_ms: int, kept: bool) -> None:
    """After a hole in the video of more than `frame_gap_ns` a window has video if enough of its ticks have a frame."""
    media = [item for item in merged(6_000) if isinstance(item, Chunk) or not 0 < item.start_ns // MS - 1_800 < gap_ms]
    windows = run(Windower(BOTH, 700 * MS, TOLERANCE), media)
    assert [window.missing for window in windows[:2]] == [{}, {}]
    assert windows[2].missing == {} and windows[2].filled_ms["video"] > 200  # 1,400 to 2,100 ms
    assert (windows[3].missing == {}) is False  # 2,100 to 2,800 ms
    assert (windows[4].missing == {}) is kept  # 2,800 to 3,500 ms
    assert windows[6].missing == {}


def test_each_missing_modality_has_a_reason() -> None:
    """Nothing ever came; it came and is late; it came and has a hole."""
    windower = Windower(BOTH, 700 * MS, TOLERANCE)
    windows = [w for at in range(0, 3_000, 50) for w in windower.push(chunk(at, 50))]
    assert {tuple(window.missing.items()) for window in windows} == {(("video", "no track"),)}
    windower = Windower(BOTH, 700 * MS, TOLERANCE)
    windows = [w for item in merged(700) for w in windower.push(item)]
    windows += [w for at in range(700, 3_000, 50) for w in windower.push(chunk(at, 50))]
    assert [dict(window.missing) for window in windows] == [{}, {"video": "late"}, {"video": "late"}]
    windower.gap("video")
    (last, *_) = [w for at in range(3_000, 4_000, 50) for w in windower.push(chunk(at, 50))]
    assert last.missing == {"video": "hole"}


def test_no_window_waits_for_media_that_never_comes() -> None:
    """After `end` windows are cut at once, without the modality; if it comes after all, they have it."""
    windower = Windower(BOTH, 700 * MS, TOLERANCE)
    windower.end("audio")
    due = {at: windower.push(frame(at)) for at in range(0, 1_000, 40)}
    assert [at for at, windows in due.items() if windows] == [720] and due[720][0].missing == {"audio": "no track"}
    windows = [w for item in merged(3_000) if item.start_ns >= 1_000 * MS for w in windower.push(item)]
    assert windows[-1].modalities == ("audio", "video")


def test_stored_media_is_too_far_apart_instead_of_late() -> None:
    """In a file audio that comes long after its video is too far apart; audio that has ended is a hole."""
    windower = Windower(BOTH, 700 * MS, replace(TOLERANCE, is_stored=True))
    windows = [w for at in range(0, 4_000, 40) for w in windower.push(frame(at))]
    assert {tuple(window.missing.items()) for window in windows} == {(("audio", "no track"),)}
    for at in [0, *range(2_800, 3_600, 50)]:
        windower.push(chunk(at, 50))
    windows = [w for at in range(4_000, 7_000, 40) for w in windower.push(frame(at))]
    assert windows and {tuple(window.missing.items()) for window in windows} <= {(), (("audio", "too far apart"),)}
    assert windows[-1].missing == {"audio": "too far apart"}
    assert {window.missing.get("audio") for window in windower.flush()} == {"hole"}
