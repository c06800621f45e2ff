"""Holes in audio are filled from both sides."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.pipeline.conceal import conceal


def tone(count: int, period: float = 40) -> NDArray[np.float32]:
    wave: NDArray[np.float32] = np.sin(2 * np.pi * np.arange(count) / period).astype(np.float32)
    return wave


def test_without_holes_nothing_changes() -> None:
    """Audio without holes is returned as it is, without a copy."""
    audio = tone(100)
    assert conceal(audio, []) is audio


def test_a_hole_has_the_level_of_the_audio_beside_it() -> None:
    """In noise the level of a filled hole is that of the noise; it begins and ends with the samples beside it."""
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 30_000).astype(np.float32)
    filled = conceal(noise, [(10_000, 13_000)])[10_000:13_000]
    assert abs(np.sqrt(np.mean(filled**2)) / np.sqrt(np.mean(noise**2)) - 1) < 0.1
    assert np.isclose(filled[0], noise[9_999], atol=0.01) and np.isclose(filled[-1], noise[13_000], atol=0.01)


def test_holes_at_the_ends_are_reflections() -> None:
    """A hole at the beginning or end reflects the audio on its one side, again and again if that is short."""
    audio = np.array([9, 9, 0.1, 0.2, 9, 9, 9, 9, 9], np.float32)
    filled = conceal(audio, [(0, 2), (4, 9)])
    np.testing.assert_array_equal(filled, np.array([0.2, 0.1, 0.1, 0.2, 0.2, 0.1, 0.1, 0.2, 0.2], np.float32))


def test_without_audio_there_is_silence() -> None:
    """If all is missing the result is silence, whatever the array held."""
    assert not conceal(np.full(5, np.nan, np.float32), [(0, 5)]).any()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.booleans())
def test_only_the_holes_change(lengths: list[int], hole_first: bool) -> None:
    """For any holes all other samples stay; what was in a hole does not matter; values stay in -1..1."""
    edges = np.cumsum([0, *lengths]).tolist()
    holes = list(pairwise(edges))[0 if hole_first else 1 :: 2]
    audio, is_hole = tone(edges[-1]), np.zeros(edges[-1], bool)
    for begin, end in holes:
        is_hole[begin:end] = True
    filled = conceal(np.where(is_hole, np.float32(np.nan), audio), holes)
    np.testing.assert_array_equal(filled[~is_hole], audio[~is_hole])
    assert filled.dtype == np.float32 and np.abs(filled).max() <= 1
