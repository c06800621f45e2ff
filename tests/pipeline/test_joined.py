"""Chunks joined to a window's audio: places, holes and capture times."""

from __future__ import annotations

import numpy as np

from perceiverd.core.media import NS_PER_S, Chunk
from perceiverd.pipeline.joined import JoinedChunks

MS = NS_PER_S // 1_000
JITTER_NS = 20 * MS


def chunk(start_ms: int, length_ms: int = 50, first: int | None = None) -> Chunk:
    """Audio in which each sample is its own time in milliseconds, or counts from `first` on."""
    begin = start_ms if first is None else first
    return Chunk(start_ms * MS, np.arange(begin, begin + length_ms, dtype=np.float32), 1_000)


def test_chunks_are_joined_by_index() -> None:
    """The first chunk may begin before the window; times follow the timestamps of the chunks."""
    joined = JoinedChunks(10 * MS, 1_000, 42)
    joined.add_first(chunk(0))
    assert joined.add(chunk(55, first=50), JITTER_NS, after_hole=False)  # 5 ms late
    assert joined.is_complete
    assert joined.holes == []
    assert joined.samples().tolist() == list(range(10, 52))
    assert (joined.captured_ns(np.array([0, 39, 40, 41])) // MS).tolist() == [10, 49, 55, 56]


def test_audio_after_a_hole_has_its_time() -> None:
    """What is missing before, between and after chunks are holes; their samples have the times when they were due."""
    joined = JoinedChunks(0, 1_000, 200)
    joined.add_first(chunk(20))
    assert joined.add(chunk(100), JITTER_NS, after_hole=True)
    assert joined.holes == [(0, 20), (70, 100), (150, 200)]
    assert joined.holes_ns() == [(0, 20 * MS), (70 * MS, 100 * MS), (150 * MS, 200 * MS)]
    padded = joined.padded()
    assert not padded[:20].any() and padded[70:100].any() and not padded[150:].any()
    assert (joined.captured_ns(np.array([5, 30, 80, 120, 199])) // MS).tolist() == [5, 30, 80, 120, 199]


def test_jitter_does_not_add_up() -> None:
    """Chunks that are a little later each are joined by index, until they are too late: then there is a hole."""
    joined = JoinedChunks(0, 1_000, 300)
    joined.add_first(chunk(0))
    for number in range(1, 5):
        assert joined.add(chunk(59 * number), JITTER_NS, after_hole=False)
    assert joined.holes == [(150, 177), (277, 300)]


def test_audio_that_is_too_early_is_refused() -> None:
    """A chunk that overlaps the audio by more than the jitter cannot be joined."""
    joined = JoinedChunks(0, 1_000, 300)
    joined.add_first(chunk(0))
    assert not joined.add(chunk(29), JITTER_NS, after_hole=False)
    assert joined.add(chunk(30), JITTER_NS, after_hole=False)
