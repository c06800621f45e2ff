"""Stalls that still deliver, told from what is merely quiet."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, Frame
from perceiverd.pipeline.stalls import PATIENCE_MOST_NS, DeadAudioDetector, FrozenVideoDetector, Remedy, StallLimits

LIMITS = StallLimits(60 * NS_PER_S, 60 * NS_PER_S)
NOISE = np.random.default_rng(3)
SCENE = NOISE.integers(0, 250, (9, 11, 3), np.uint8)


def stands(
    picture: FrozenVideoDetector,
    shades: list[int],
    *,
    fps: float = 1.0,
    limits: StallLimits = LIMITS,
    from_s: float = 0,
) -> str:
    """A letter for each picture of the scene, in this shade: F where it is frozen."""
    times_ns = [round((from_s + n / fps) * NS_PER_S) for n in range(len(shades))]
    frames = [Frame(at_ns, SCENE + np.uint8(shade)) for at_ns, shade in zip(times_ns, shades, strict=True)]
    return "".join("F" if picture.stands(frame, limits) else "." for frame in frames)


def test_a_picture_that_never_changes_is_frozen_after_a_minute() -> None:
    """Not before, and not a picture longer than it lasts."""
    assert stands(FrozenVideoDetector(), [0] * 80 + [1] * 5) == "." * 60 + "F" * 20 + "." * 5


def test_a_quiet_scene_is_not_frozen() -> None:
    """An encoder repeats a picture exactly until its next key frame, 10 s on; that one differs in one last bit."""
    picture = FrozenVideoDetector()
    for second in range(600):
        pixels = SCENE.copy()
        pixels[second // 10 % 9, 4, 1] ^= 1
        assert not any(picture.stands(Frame(second * NS_PER_S + n, pixels.copy()), LIMITS) for n in range(3))


def test_a_few_pictures_are_not_enough() -> None:
    """A camera that gives one in 20 s may give the same one four times."""
    assert stands(FrozenVideoDetector(), [0] * 6, fps=0.05) == "....FF"


def test_frozen_outlives_the_process_that_is_started_again() -> None:
    """The same picture after a pause is still frozen; another one is not."""
    picture = FrozenVideoDetector()
    stands(picture, [0] * 70)
    assert stands(picture, [0, 0, 1], from_s=75) == "FF."


@pytest.mark.parametrize("shades", [[0] * 100, [0, 1] * 50])
def test_what_is_not_watched_is_never_frozen(shades: list[int]) -> None:
    """With 0 for the time nothing is frozen, or dead."""
    off = StallLimits(0, 0)
    assert "F" not in stands(FrozenVideoDetector(), shades, limits=off)
    sound = DeadAudioDetector()
    assert not any(sound.stands(Chunk(n * NS_PER_S, np.zeros(8, np.float32), 8), off) for n in range(100))


def heard(sound: DeadAudioDetector, samples: NDArray[np.float32], rate_hz: int = 100) -> str:
    """A letter for each second: D where the sound is dead at its end."""
    chunks = [Chunk(n * NS_PER_S, samples[n * rate_hz :][:rate_hz], rate_hz) for n in range(len(samples) // rate_hz)]
    return "".join("D" if sound.stands(chunk, LIMITS) else "." for chunk in chunks)


@pytest.mark.parametrize("level", [0.0, -0.25, 1.0])
def test_constant_sound_is_dead_after_a_minute(level: float) -> None:
    """Zeros, and any other constant; one step of 16-bit sound ends it."""
    samples = np.full(9000, level, np.float32)
    samples[8550] -= 1 / 32768
    assert heard(DeadAudioDetector(), samples) == "." * 59 + "D" * 26 + "....."


def test_the_quietest_room_is_not_dead() -> None:
    """A last bit of 16 that flickers now and then is a world that is quiet."""
    samples = np.where(NOISE.random(20_000) < 0.001, np.float32(1 / 32768), np.float32(0)).astype(np.float32)
    assert "D" not in heard(DeadAudioDetector(), samples)


def test_a_slow_wander_is_not_dead() -> None:
    """Sound that moves by less than the limit in each chunk, and by more in a minute, moves."""
    samples = np.linspace(0, 1e-4, 20_000, dtype=np.float32)
    assert "D" not in heard(DeadAudioDetector(), samples)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 200)), max_size=12))
def test_it_is_told_exactly_while_it_lasts(parts: list[tuple[bool, int]]) -> None:
    """Whatever comes after what: a picture is frozen when the last minute held no other."""
    shades: list[int] = []
    for moves, seconds in parts:
        shades += [
            (shades[-1] if shades else 0) + n + 1 if moves else shades[-1] if shades else 0 for n in range(seconds)
        ]
    shades = [shade % 5 for shade in shades]
    told = stands(FrozenVideoDetector(), shades)
    for n, letter in enumerate(told):
        assert (letter == "F") == (n >= 60 and len(set(shades[n - 60 : n + 1])) == 1)


def tries(frozen: list[bool]) -> list[int]:
    """In which seconds a source is started again."""
    remedy = Remedy()
    return [second for second, each in enumerate(frozen) if remedy.due(second * NS_PER_S, LIMITS, frozen=each)]


def test_what_stays_frozen_is_tried_ever_more_rarely() -> None:
    """At once, then after 2, 4, 8 minutes and so on, and once an hour from then on: it does not flap."""
    found = tries([True] * 40_000)
    assert found[:5] == [0, 120, 360, 840, 1800]
    assert {b - a for a, b in pairwise(found[6:])} == {PATIENCE_MOST_NS // NS_PER_S}


def test_patience_lasts_until_it_has_moved_for_as_long() -> None:
    """A source that freezes again right after each start waits longer each time; one that did well is tried at once."""
    brief = [True] * 10 + [False] * 70
    assert len(tries(brief * 20)) == 4  # at 0, and after 2, 4 and 8 minutes of 26
    well = [True] * 10 + [False] * 200
    assert tries(well * 3) == [0, 210, 420]
