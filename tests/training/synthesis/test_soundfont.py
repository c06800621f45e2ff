"""Soundfonts: their presets are read, and a piece is rendered to the same bytes each time."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from perceiverd.training.data.corpus import samples_of
from perceiverd.training.synthesis import midi, soundfont
from perceiverd.training.synthesis.midi import Note
from tests.support.soundfonts import arguments, font


def test_presets_are_read() -> None:
    """Bank and program of each preset are read; the closing record is no preset."""
    assert soundfont.presets(font(40, 440)) == {(0, 40)}


def test_only_the_fonts_programs_are_played(tmp_path: Path) -> None:
    """A font with one program gives pieces of its instrument only: the same each time, others for another font."""
    (tmp_path / "a.sf2").write_bytes(font(42, 440))
    one, again, other = (list(soundfont.sounds(tmp_path / "a.sf2", name)) for name in ("a", "a", "b"))
    assert [path for path, _, _ in one] == [f"cello/042-{number}.wav" for number in range(soundfont.PIECES)]
    assert {labels for _, _, labels in one} == {("Cello",)}
    scores = [[arguments(render)[1] for _, render, _ in found] for found in (one, again, other)]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="needs fluidsynth")
def test_rendering_repeats_itself(tmp_path: Path) -> None:
    """A note has its pitch and its length, and a second rendering has the same bytes."""
    path = tmp_path / "a.sf2"
    path.write_bytes(font(42, 440))
    score = midi.midi([Note(0, 2, 81, 100)], {0: 42})
    one = soundfont.play(path, score)
    assert one == soundfont.play(path, score)
    pcm = samples_of(one)
    assert 2 < len(pcm) / 16_000 < 6
    sounding = pcm[1_600:17_600]
    assert np.abs(sounding).max() > 300
    assert np.abs(np.fft.rfft(sounding)).argmax() == pytest.approx(880, abs=3)
