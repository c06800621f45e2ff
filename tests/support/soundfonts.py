"""A soundfont of one sine, and the arguments of sounds that are not rendered yet."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np


def arguments(render: Callable[[], bytes]) -> tuple[Any, ...]:
    """The arguments that a sound will be rendered with."""
    assert isinstance(render, partial)
    return render.args


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
