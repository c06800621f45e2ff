"""Soundfonts: what is in one is known, and it is rendered to the same bytes each time."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from perceiverd.training.data.corpus import samples_of
from perceiverd.training.synthesis import midi, soundfont
from perceiverd.training.synthesis.midi import Note
from tests.training.synthesis.test_speech import arguments


def chunk(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return name + struct.pack("<I", len(body)) + body


def font(program: int, hertz: float) -> bytes:
    """A SoundFont 2 file with one preset of bank 0: a sine of this frequency, for key 69."""
    rate = 8_000
    wave = (12_000 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)).astype("<i2")
    name = b"sine".ljust(20, b"\0")
    end = b"end".ljust(20, b"\0")
    version = chunk(b"ifil", struct.pack("<HH", 2, 1))
    head = chunk(b"LIST", b"INFO", version, chunk(b"isng", b"EMU8000\0"), chunk(b"INAM", b"sine\0\0"))
    data = chunk(b"LIST", b"sdta", chunk(b"smpl", wave.tobytes(), b"\0\0" * 46))
    presets = struct.pack("<20sHHHIII", name, program, 0, 0, 0, 0, 0) + struct.pack("<20sHHHIII", end, 0, 0, 1, 0, 0, 0)
    records = {
        b"phdr": presets,
        b"pbag": struct.pack("<HHHH", 0, 0, 1, 0),
        b"pmod": b"\0" * 10,
        b"pgen": struct.pack("<HHHH", 41, 0, 0, 0),  # the instrument
        b"inst": struct.pack("<20sH", name, 0) + struct.pack("<20sH", end, 1),
        b"ibag": struct.pack("<HHHH", 0, 0, 2, 0),
        b"imod": b"\0" * 10,
        b"igen": struct.pack("<HHHHHH", 54, 1, 53, 0, 0, 0),  # looped; the sample
        b"shdr": struct.pack("<20sIIIIIBbHH", name, 0, rate, 0, rate, rate, 69, 0, 0, 1) + end + b"\0" * 26,
    }
    hydra = chunk(b"LIST", b"pdta", *(chunk(key, value) for key, value in records.items()))
    return chunk(b"RIFF", b"sfbk", head, data, hydra)


def test_presets_are_read() -> None:
    """Bank and program of each preset are found, and not those of the closing record."""
    assert soundfont.presets(font(40, 440)) == {(0, 40)}


def test_only_what_the_font_has_is_played(tmp_path: Path) -> None:
    """A font with one program gives the pieces of its instrument alone, the same each time, others for another font."""
    (tmp_path / "a.sf2").write_bytes(font(42, 440))
    one, again, other = (list(soundfont.sounds(tmp_path / "a.sf2", name)) for name in ("a", "a", "b"))
    assert [path for path, _, _ in one] == [f"cello/042-{number}.wav" for number in range(soundfont.PIECES)]
    assert {labels for _, _, labels in one} == {("Cello",)}
    scores = [[arguments(render)[1] for _, render, _ in found] for found in (one, again, other)]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="needs fluidsynth")
def test_rendering_is_the_same_each_time(tmp_path: Path) -> None:
    """A note comes out at its pitch and its length, and twice to the same bytes."""
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
