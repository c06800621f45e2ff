"""Marks from a key that a terminal repeats."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.cli.holding import AFTER_S, REACTION_S, RELEASED_S, TAPPED_S, HeldKey, HeldMark


def played(presses_s: list[float], until_s: float) -> list[HeldMark]:
    """The marks if the key sends at these times and somebody looks every tenth of a second."""
    key, found, at_s = HeldKey(), [], 0.0
    waiting = sorted(presses_s)
    while at_s < until_s:
        while waiting and waiting[0] <= at_s:
            key.press(waiting.pop(0))
        if (mark := key.released(at_s)) is not None:
            found.append(mark)
        at_s += 0.1
    return found


def test_a_held_key_marks_its_time() -> None:
    """From the reaction time before the first press to a little after the last repetition."""
    (mark,) = played([3.0, 3.5, *(3.5 + n / 30 for n in range(60))], 9)
    assert mark.start_s == pytest.approx(3.0 - REACTION_S) and mark.end_s == pytest.approx(3.5 + 59 / 30 + AFTER_S)


def test_a_tap_marks_what_was_just_heard() -> None:
    """A key that is not held means the two seconds before."""
    assert played([5.0], 9) == [HeldMark(5.0 - TAPPED_S, 5.0 + AFTER_S)]


@given(st.lists(st.floats(0, 30), max_size=40))
def test_each_pause_ends_one_mark(presses_s: list[float]) -> None:
    """There are as many marks as groups of presses without a long pause between them, in order."""
    marks = played(presses_s, 40)
    ordered = sorted(presses_s)
    sure = sum(b - a > RELEASED_S + 0.2 for a, b in pairwise(ordered))
    most = sum(b - a >= RELEASED_S - 0.2 for a, b in pairwise(ordered))
    if presses_s:
        assert sure + 1 <= len(marks) <= most + 1
    assert all(mark.start_s < mark.end_s for mark in marks)
    assert [mark.end_s for mark in marks] == sorted(mark.end_s for mark in marks)
