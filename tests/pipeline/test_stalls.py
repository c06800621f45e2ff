"""Frozen video and dead audio, and scenes and rooms that are only quiet."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S, Chunk, Frame
from perceiverd.pipeline.stalls import (
    LONGEST_PAUSE_NS,
    DeadAudioDetector,
    FrozenVideoDetector,
    RestartSchedule,
    StallLimits,
)

LIMITS = StallLimits(60 * NS_PER_S, 60 * NS_PER_S)
NOISE = np.random.default_rng(3)
SCENE = NOISE.integers(0, 250, (9, 11, 3), np.uint8)


def frozen(
    detector: FrozenVideoDetector,
    shades: list[int],
    *,
    fps: float = 1.0,
    limits: StallLimits = LIMITS,
    from_s: float = 0,
) -> str:
    """A letter for each frame of the scene, in this shade: F if the video is frozen."""
    times_ns = [round((from_s + n / fps) * NS_PER_S) for n in range(len(shades))]
    frames = [Frame(at_ns, SCENE + np.uint8(shade)) for at_ns, shade in zip(times_ns, shades, strict=True)]
    return "".join("F" if detector.stalls(frame, limits) else "." for frame in frames)


def test_frames_that_never_change_are_frozen_after_a_minute() -> None:
    """Not earlier, and the first frame that differs ends it."""
    assert frozen(FrozenVideoDetector(), [0] * 80 + [1] * 5) == "." * 60 + "F" * 20 + "." * 5


def test_a_quiet_scene_is_not_frozen() -> None:
    """An encoder repeats a frame exactly until its next key frame after 10 s; that one differs in one last bit."""
    detector = FrozenVideoDetector()
    for second in range(600):
        pixels = SCENE.copy()
        pixels[second // 10 % 9, 4, 1] ^= 1
        assert not any(detector.stalls(Frame(second * NS_PER_S + n, pixels.copy()), LIMITS) for n in range(3))


def test_a_few_frames_are_not_enough() -> None:
    """A camera that gives one frame in 20 s may give the same one four times."""
    assert frozen(FrozenVideoDetector(), [0] * 6, fps=0.05) == "....FF"


def test_video_can_stay_frozen_after_a_restart() -> None:
    """The same frame after a pause is still frozen; another one is not."""
    detector = FrozenVideoDetector()
    frozen(detector, [0] * 70)
    assert frozen(detector, [0, 0, 1], from_s=75) == "FF."


@pytest.mark.parametrize("shades", [[0] * 100, [0, 1] * 50])
def test_a_limit_of_0_switches_the_check_off(shades: list[int]) -> None:
    """With a limit of 0 no video is frozen and no audio dead."""
    off = StallLimits(0, 0)
    assert "F" not in frozen(FrozenVideoDetector(), shades, limits=off)
    audio = DeadAudioDetector()
    assert not any(audio.stalls(Chunk(n * NS_PER_S, np.zeros(8, np.float32), 8), off) for n in range(100))


def dead(detector: DeadAudioDetector, samples: NDArray[np.float32], rate_hz: int = 100) -> str:
    """A letter for each second: D if the audio is dead at its end."""
    chunks = [Chunk(n * NS_PER_S, samples[n * rate_hz :][:rate_hz], rate_hz) for n in range(len(samples) // rate_hz)]
    return "".join("D" if detector.stalls(chunk, LIMITS) else "." for chunk in chunks)


@pytest.mark.parametrize("level", [0.0, -0.25, 1.0])
def test_constant_audio_is_dead_after_a_minute(level: float) -> None:
    """Zeros or any other constant; one step of 16-bit audio ends it."""
    samples = np.full(9000, level, np.float32)
    samples[8550] -= 1 / 32768
    assert dead(DeadAudioDetector(), samples) == "." * 59 + "D" * 26 + "....."


def test_the_quietest_room_is_not_dead() -> None:
    """If the last of 16 bits flickers now and then, the room is quiet and the audio is not dead."""
    samples = np.where(NOISE.random(20_000) < 0.001, np.float32(1 / 32768), np.float32(0)).astype(np.float32)
    assert "D" not in dead(DeadAudioDetector(), samples)


def test_a_slow_wander_is_not_dead() -> None:
    """Audio that changes by less than the limit in each chunk, and by more in a minute, is not dead."""
    samples = np.linspace(0, 1e-4, 20_000, dtype=np.float32)
    assert "D" not in dead(DeadAudioDetector(), samples)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 200)), max_size=12))
def test_frozen_exactly_while_the_last_minute_held_one_frame(parts: list[tuple[bool, int]]) -> None:
    """In any order of still and moving parts, video is frozen if the last minute held no other frame."""
    shades: list[int] = []
    for moves, seconds in parts:
        shades += [
            (shades[-1] if shades else 0) + n + 1 if moves else shades[-1] if shades else 0 for n in range(seconds)
        ]
    shades = [shade % 5 for shade in shades]
    found = frozen(FrozenVideoDetector(), shades)
    for n, letter in enumerate(found):
        assert (letter == "F") == (n >= 60 and len(set(shades[n - 60 : n + 1])) == 1)


def restarts(frozen: list[bool]) -> list[int]:
    """The seconds in which a source is restarted."""
    schedule = RestartSchedule()
    return [second for second, each in enumerate(frozen) if schedule.due(second * NS_PER_S, LIMITS, frozen=each)]


def test_a_source_that_stays_frozen_is_restarted_ever_more_rarely() -> None:
    """At once, then after 2, 4, 8 minutes and so on, and finally once an hour."""
    found = restarts([True] * 40_000)
    assert found[:5] == [0, 120, 360, 840, 1800]
    assert {b - a for a, b in pairwise(found[6:])} == {LONGEST_PAUSE_NS // NS_PER_S}


def test_the_pause_lasts_until_the_video_has_moved_for_as_long() -> None:
    """A source that freezes soon after each restart waits longer each time; one that ran well is restarted at once."""
    brief = [True] * 10 + [False] * 70
    assert len(restarts(brief * 20)) == 4  # at 0, and after 2, 4 and 8 minutes of 26
    well = [True] * 10 + [False] * 200
    assert restarts(well * 3) == [0, 210, 420]
