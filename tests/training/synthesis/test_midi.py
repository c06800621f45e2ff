"""Pieces: the same for the same seed, in the instrument's range, and valid MIDI."""

import struct

import numpy as np
import pytest

from perceiverd.core.labels import ontology
from perceiverd.training.synthesis import midi
from perceiverd.training.synthesis.midi import INSTRUMENTS, TICKS_PER_S, Instrument, Note


def read(midi: bytes) -> list[tuple[int, bytes]]:
    """(tick, message) of each event in a file of one track."""
    assert struct.unpack_from(">4sIHHH", midi) == (b"MThd", 6, 0, 1, TICKS_PER_S // 2)
    track = midi[22:]
    assert struct.unpack_from(">I", midi, 18)[0] == len(track)
    out: list[tuple[int, bytes]] = []
    at = tick = 0
    while True:
        delta = 0
        while True:
            delta, at = delta << 7 | track[at] & 0x7F, at + 1
            if track[at - 1] < 0x80:
                break
        tick += delta
        if track[at] == 0xFF:
            assert track[at:] == b"\xff\x2f\x00"
            return [*out, (tick, b"")]
        size = 2 if track[at] >> 4 == 0xC else 3
        out.append((tick, track[at : at + size]))
        at += size


def test_notes_become_messages() -> None:
    """A channel gets its program, then notes start and end at their times; at one tick, ends come first."""
    notes = [Note(0.5, 0.25, 60, 90), Note(0.75, 1, 60, 80)]
    messages = read(midi.midi(notes, {0: 40}))
    assert messages == [
        (0, bytes([0xC0, 40])),
        (480, bytes([0x90, 60, 90])),
        (720, bytes([0x80, 60, 0])),
        (720, bytes([0x90, 60, 80])),
        (1680, bytes([0x80, 60, 0])),
        (1680 + TICKS_PER_S, b""),
    ]


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda one: one.name)
def test_every_instrument_has_pieces(instrument: Instrument) -> None:
    """Each instrument has AudioSet labels, and pieces of about 16 s with keys in its range."""
    assert all(ontology().find(label) for label in instrument.labels)
    for seed in range(4):
        messages = read(midi.piece(instrument, instrument.programs[0], np.random.default_rng(seed)))
        pressed = [(tick, message) for tick, message in messages if message and message[0] >> 4 == 9]
        assert len(pressed) >= 4
        assert 10 < messages[-1][0] / TICKS_PER_S < 40
        assert all(20 <= message[2] <= 127 for _, message in pressed)
        assert all((message[0] & 15 == midi.DRUMS) == instrument.drum for _, message in pressed)
        if instrument.keys:
            assert {message[1] for _, message in pressed} <= set(instrument.keys)
        elif not instrument.drum and instrument.styles not in {"drone", "orchestra"}:
            assert all(instrument.low <= message[1] <= instrument.high for _, message in pressed)


def test_a_piece_depends_on_its_seed() -> None:
    """The same seed gives the same bytes, another seed gives others."""
    one, again, other = (midi.piece(INSTRUMENTS[0], 0, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one == again != other
