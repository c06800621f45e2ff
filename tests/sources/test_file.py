"""Replay of clips, on a clock that only the test moves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, VideoFormat, end_of
from perceiverd.sources import file
from perceiverd.sources.specs import File

WANTED = MediaFormat(16000, VideoFormat(30, 42, 6.25))


class FakeClock:
    """A clock that advances only during `sleep`."""

    def __init__(self) -> None:
        self.ns = 5_000 * NS_PER_S

    def now(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.5
        self.ns += round(seconds * NS_PER_S) + 1


def grey(_: float) -> NDArray[np.uint8]:
    return np.full((60, 84, 3), 128, np.uint8)


def hum(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.3 * np.sin(2 * np.pi * 100 * t)


def test_nothing_comes_before_its_time(clip: Callable[..., Path]) -> None:
    """Each item is sent at the capture time of its last sample or its frame, not sooner and not much later."""
    clock = FakeClock()
    path = clip("a.mp4", picture=grey, sound=hum)
    count = 0
    for item in file.media(File(str(path)), WANTED, clock.now, clock.sleep):
        if item is not None:
            count += 1
            assert 0 <= clock.ns - end_of(item) < NS_PER_S // 10
    assert count > 60
    assert clock.ns - 5_000 * NS_PER_S == pytest.approx(2 * NS_PER_S, abs=NS_PER_S // 10)


def test_a_loop_has_no_seam(clip: Callable[..., Path]) -> None:
    """Over three repeats time continues: audio without gaps over 20 ms, and frames at their rate."""
    clock = FakeClock()
    path = clip("a.mp4", picture=grey, sound=hum, seconds=1.0)
    endless = file.media(File(str(path), loop=True), WANTED, clock.now, clock.sleep)
    items = [item for item in islice(endless, 150) if item is not None]
    chunks = [item for item in items if isinstance(item, Chunk)]
    frames = [item for item in items if isinstance(item, Frame)]
    assert frames[-1].start_ns - frames[0].start_ns > 3 * NS_PER_S
    assert all(abs(after.start_ns - before.end_ns) <= NS_PER_S // 50 for before, after in pairwise(chunks))
    assert all(0.02 < (b.start_ns - a.start_ns) / NS_PER_S < 0.08 for a, b in pairwise(frames))


def test_a_loop_logs_its_track_once(clip: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    """The track is logged when the file is opened first, not at each repeat."""
    clock, path = FakeClock(), clip("a.wav", sound=hum, seconds=0.2, audio_codec="pcm_s16le")
    caplog.set_level(logging.INFO)
    endless = file.media(File(str(path), loop=True), MediaFormat(16_000), clock.now, clock.sleep)
    assert len(list(islice(endless, 50))) == 50
    assert [record.getMessage().split()[0] for record in caplog.records] == ["track-chosen"]


def test_long_waits_give_signs_of_life(clip: Callable[..., Path]) -> None:
    """While a clip has no media for seconds, the replay yields None as a sign of life."""
    clock = FakeClock()
    path = clip("a.mkv", sound=hum, audio_codec="pcm_s16le", seconds=2.0, audio_gap_s=(1.0, 4.0))
    items = list(file.media(File(str(path)), WANTED, clock.now, clock.sleep))
    assert sum(item is None for item in items) >= 7


def test_a_slow_picture_is_sent_again_and_again(clip: Callable[..., Path]) -> None:
    """A picture that is shown for 4 s comes at each tick of the model, when it is due."""
    clock = FakeClock()
    path = clip("a.mkv", picture=grey, times_s=[0.0, 4.0])
    items = list(file.media(File(str(path)), WANTED, clock.now, clock.sleep))
    assert [item for item in items if item is None] == []
    times_ns = [item.start_ns for item in items if item is not None]
    assert {round((b - a) / NS_PER_S, 2) for a, b in pairwise(times_ns[:24])} == {0.16}


def test_loose_interleaving_is_sorted() -> None:
    """If audio is half a second ahead of video in the file, it does not delay the video."""
    clock = FakeClock()
    begin_ns = clock.ns

    def loose() -> Iterator[Media]:
        for half in range(4):
            start_ns = begin_ns + half * NS_PER_S // 2
            yield Chunk(start_ns, np.zeros(8000, np.float32), 16000)
            for i in range(5):
                yield Frame(start_ns + i * NS_PER_S // 10, grey(0))

    for item in file.paced(loose(), clock.now, clock.sleep):
        if item is not None:
            assert clock.ns - end_of(item) < NS_PER_S // 100


def test_a_missing_clip(tmp_path: Path) -> None:
    """A clip that cannot be opened is a MediaError before anything is sent."""
    with pytest.raises(MediaError, match="no such file"):
        next(file.media(File(str(tmp_path / "no.mp4")), WANTED))
