"""Which source of a stream is active, and what becomes of frozen video and dead audio."""

from dataclasses import replace

import numpy as np
import pytest

from perceiverd.core.media import NS_PER_S, Chunk, Frame
from perceiverd.daemon.stream import StreamState
from perceiverd.pipeline.stalls import StallLimits
from perceiverd.sources.process.restart import RunState
from tests.support.streams import BOTH, SETTINGS, VIDEO, audio, both, source, stream

LIMITS = StallLimits(2 * NS_PER_S, 2 * NS_PER_S)


def frames(watched: StreamState, position: int, from_ms: int, until_ms: int) -> None:
    """Frames of `VIDEO` that show the position of their source."""
    for at_ms in range(from_ms, until_ms, 40):
        watched.receive(position, Frame(at_ms * 1_000_000, np.full((2, 3, 3), position, np.uint8)))


def audio_ends_s(watched: StreamState) -> list[float]:
    """The ends of the windows that are due and have audio."""
    return [window.end_ns / NS_PER_S for window in watched.due if "audio" in window.modalities]


def test_two_cameras_are_not_mixed(caplog: pytest.LogCaptureFixture) -> None:
    """The first source that delivers is active, no window mixes two, and the log names them once."""
    watched = stream(VIDEO)
    frames(watched, 1, 0, 2_000)  # the second camera is up first
    for at_ms in range(2_000, 4_000, 40):
        frames(watched, 0, at_ms, at_ms + 40)
        frames(watched, 1, at_ms + 20, at_ms + 60)
    watched.gap(("video",), 1)  # changes nothing, because it is not active
    frames(watched, 0, 4_000, 5_000)
    for window in watched.due:
        assert window.video is not None
        assert np.unique(window.video).tolist() == [0 if window.start_ns >= 2 * NS_PER_S else 1]
    assert len(watched.due) >= 8
    assert watched.windower.counts.gaps == 1
    assert [record.message for record in caplog.records] == [
        "sources-overlap stream=door modality=video sources=0,1 active=0"
    ]
    watched.due.clear()
    watched.inputs.lost(0)
    frames(watched, 1, 5_000, 6_000)
    assert watched.due[-1].video is not None and np.unique(watched.due[-1].video).tolist() == [1]


def test_frozen_video_is_missing_and_audio_continues(caplog: pytest.LogCaptureFixture) -> None:
    """From 2 s after it froze, windows have only audio and come in time; they have video once it moves again."""
    watched = stream(BOTH, limits=LIMITS)
    both(watched, 0, 10, freeze_s=4.0)
    assert watched.inputs.stalls_of(0) == ("frozen picture",)
    found = {window.end_ns / NS_PER_S: window.modalities for window in watched.due}
    assert all(modalities == (("audio", "video") if end_s <= 6 else ("audio",)) for end_s, modalities in found.items())
    assert list(found) == [0.5 * n for n in range(1, 21)]  # none is missing, none waits for frames
    assert 'media-stalled stream=door source=0 what="frozen picture" suppressed=0' in caplog.text
    watched.due.clear()
    with caplog.at_level("INFO"):
        both(watched, 10, 13)
    assert watched.inputs.stalls_of(0) == ()
    assert watched.due[-1].modalities == ("audio", "video")
    assert 'media-recovered stream=door source=0 what="frozen picture" suppressed=0' in caplog.text


def test_dead_audio_is_missing_and_video_continues() -> None:
    """From 2 s of zeros on, windows have only video; the source is not restarted, because a mute may be intended."""
    watched = stream(BOTH, limits=LIMITS)
    both(watched, 0, 10, mute_s=4.0)
    assert watched.inputs.stalls_of(0) == ("dead silence",)
    assert watched.due[-1].modalities == ("video",)
    assert watched.due[-1].end_ns >= 9 * NS_PER_S
    assert not watched.inputs.restart_due(0, 0)


def test_files_may_hold_still() -> None:
    """A replayed file is never frozen or dead."""
    watched = stream(BOTH, limits=StallLimits(NS_PER_S, NS_PER_S), replayed=frozenset({0}))
    both(watched, 0, 5, freeze_s=0, mute_s=0)
    assert watched.inputs.stalls_of(0) == ()
    assert watched.due[-1].modalities == ("audio", "video")


def test_the_next_source_is_active_while_the_first_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A microphone beside a camera with audio is used while the camera is lost; the log names both once."""
    watched = stream()
    for begin_s in (0, 10):
        for n in range(5):
            audio(watched, 0, begin_s + n, begin_s + n + 1)
            audio(watched, 1, begin_s + n, begin_s + n + 1)
        watched.gap(("audio",), 0)
        watched.inputs.lost(0)
        audio(watched, 1, begin_s + 5, begin_s + 10)
    assert audio_ends_s(watched) == [n / 2 for n in range(1, 41)]
    assert watched.windower.counts.gaps == 3
    assert watched.events_over([source(RunState.BACKING_OFF), source(RunState.UP, 1)]) == []
    assert [record.message for record in caplog.records] == [
        "sources-overlap stream=door modality=audio sources=0,1 active=0"
    ]


def test_the_next_source_is_active_while_the_first_is_dead() -> None:
    """A microphone is used beside a camera's dead audio, and the camera again once its audio is alive."""
    watched = stream(limits=LIMITS)
    for n in range(10):
        audio(watched, 0, n, n + 1, level=0.0 if n < 6 else 1.0)
        watched.update([source(RunState.UP)], n * NS_PER_S)
        audio(watched, 1, n, n + 1)
    assert watched.inputs.stalls_of(0) == ()
    ends_s = audio_ends_s(watched)
    assert len(ends_s) >= 18 and ends_s[-1] == 10.0
    assert watched.windower.counts.gaps == 2


def test_an_inactive_dead_source_does_not_excuse_the_stream() -> None:
    """Only the stall of an active source excuses a stream that gives no windows."""
    watched = stream(limits=LIMITS)
    for n in range(5):
        audio(watched, 0, n, n + 1, level=0.0)
    assert watched.inputs.is_active_stalled
    audio(watched, 1, 5, 6)
    assert not watched.inputs.is_active_stalled


def test_a_source_whose_media_stand_still_delivers_nothing() -> None:
    """Also a second source that is not active becomes stalled, and the events end."""
    watched = stream(limits=LIMITS)
    sources = [source(RunState.UP), source(RunState.UP, 1)]
    assert all(watched.inputs.delivers(each) for each in sources)  # before the first media
    for n in range(10):
        for position in (0, 1):
            audio(watched, position, n, n + 1, level=0.0)
    assert watched.inputs.stalls_of(0) == watched.inputs.stalls_of(1) == ("dead silence",)
    assert not any(watched.inputs.delivers(each) for each in sources)
    assert not watched.inputs.delivers(source(RunState.STALLED))


def test_an_exchanged_source_begins_without_a_past() -> None:
    """After a reload the new source is not stalled, and its media does not continue the old one's."""
    watched = stream(BOTH, limits=LIMITS)
    both(watched, 0, 5, freeze_s=0)
    assert watched.inputs.restart_due(0, 0)
    watched.exchanged(0)
    assert watched.inputs.stalls_of(0) == ()
    gaps = watched.windower.counts.gaps
    both(watched, 5, 8)
    assert watched.due[-1].modalities == ("audio", "video")
    assert gaps == watched.windower.counts.gaps == 2


@pytest.mark.parametrize("offset_ms", [-800, 300])
def test_the_offset_moves_frames_beside_audio(offset_ms: int) -> None:
    """Times of frames are moved by `av_offset_ms`, and skew is measured with the moved times."""
    wait_ns = NS_PER_S // 2 + abs(offset_ms) * 1_000_000
    watched = stream(BOTH, av_offset_ns=offset_ms * 1_000_000, tolerance=replace(SETTINGS.tolerance, wait_ns=wait_ns))
    for n in range(200):
        watched.receive(0, Chunk(n * 40_000_000, np.full(640, n / 250, np.float32), 16_000))
        watched.receive(0, Frame((n * 40 - offset_ms) * 1_000_000, np.full((3, 5, 3), n, np.uint8)))
    assert len(watched.due) >= 12
    for each in watched.due:
        assert each.video is not None and each.audio is not None and each.skew is not None
        shown = each.video[:, 0, 0, 0].astype(int)
        beside = np.round(each.audio[[1000, 3000, 5000, 7000]] * 250)
        assert np.abs(shown - beside).max() <= 1
        assert abs(each.skew.most_ns) <= 20_000_000


def test_another_offset_is_a_gap() -> None:
    """After a reload with another offset no window mixes frames of both."""
    watched = stream(BOTH)
    both(watched, 0, 2)
    watched.configure(SETTINGS)
    assert watched.windower.counts.gaps == 0
    watched.configure(replace(SETTINGS, av_offset_ns=NS_PER_S // 10))
    assert watched.windower.counts.gaps == 1
