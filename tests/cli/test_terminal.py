"""Bars and marks, with the signs that an output can show."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.cli.terminal import Glyphs, console

SIGNS = st.sampled_from([Glyphs(), Glyphs.of("ascii")])
SHARES = st.floats(0, 1)


@pytest.mark.parametrize(("encoding", "full"), [("utf-8", "█"), ("ascii", "#"), ("latin-1", "#"), ("none-such", "#")])
def test_signs_are_those_that_can_be_shown(encoding: str, full: str) -> None:
    """If an output's encoding has no block characters, plain characters replace them."""
    assert Glyphs.of(encoding).full == full


@given(SIGNS, st.floats(-1, 2), st.integers(1, 60))
def test_a_bar_is_as_wide_as_it_should_be(signs: Glyphs, share: float, width: int) -> None:
    """Whatever its share, a bar is padded to its width; nothing is empty, and all is full."""
    assert len(signs.bar(share, width)) == width
    assert signs.bar(0, width) == " " * width
    assert signs.bar(1, width) == signs.full * width


@given(SIGNS, st.lists(SHARES, min_size=2, max_size=2), st.integers(2, 60))
def test_a_longer_bar_is_more(signs: Glyphs, shares: list[float], width: int) -> None:
    """A greater share never has the shorter bar."""
    less, more = (signs.bar(share, width).count(signs.full) for share in sorted(shares))
    assert less <= more


@given(SIGNS, SHARES, st.none() | SHARES, st.none() | SHARES, SHARES, st.integers(10, 60))
def test_a_gauge_shows_where_things_stand(
    signs: Glyphs, filled: float, now: float | None, off: float | None, on: float, width: int
) -> None:
    """All marks are within the gauge. The mark of the score is always visible; without it, that of `on` is."""
    gauge = signs.gauge(filled, now, off, on, width)
    assert len(gauge) == width
    place = min(width - 1, round(on * width))
    if now is None:
        assert gauge[place] == signs.on
        assert signs.now not in gauge
    else:
        assert gauge[min(width - 1, round(now * width))] == signs.now


def test_what_cannot_be_encoded_does_not_end_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label or stream in signs that the output lacks is shown with question marks."""
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        console().print("Fahrradklingel läutet", soft_wrap=True)
    assert (tmp_path / "out").read_text(encoding="ascii") == "Fahrradklingel l?utet\n"
