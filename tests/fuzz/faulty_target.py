"""A target with every fault, for tests of the drivers. `run` without names leaves it out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

from perceiverd.core.errors import ConfigError
from tests.fuzz.target import Target

KEPT: list[bytes] = []


def make_seeds(folder: Path) -> list[bytes]:
    """One input that is accepted."""
    return [b"fine"]


def mutate(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """One of the faults."""
    return rng.choice((b"fine", b"refuse", b"escape", b"error", b"error" + b"!" * rng.randrange(9), b"crash"))


def run(data: bytes, folder: Path) -> str:
    """Do what the input says."""
    match data.rstrip(b"!"):
        case b"refuse":
            raise ConfigError("c.toml: is wrong; correct it")
        case b"escape":
            error = ConfigError("")
            error.args = ("\x1b[31m",)
            raise error
        case b"error":
            raise ZeroDivisionError
        case b"hang":
            while True:
                pass
        case b"crash":
            os.abort()
        case b"peak":
            bytearray(b"\1") * (100 << 20)
        case b"leak":
            KEPT.append(b"\1" * (1 << 20))
    return "fine"


TARGET = Target("faulty", make_seeds, mutate, run, memory_limit_mb=50, foreign_crashes=True)
