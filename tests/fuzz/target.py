"""What a fuzzing target is, and the outcome of one input. Knows no particular target and no driver."""

from __future__ import annotations

import re
import traceback
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from perceiverd.core.errors import PerceiverdError

Kind = Literal["accepted", "refused", "error", "hang", "crash", "memory"]
"""`error`: another exception than PerceiverdError, or a message that is not one printable line."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Target:
    """One way into the program for data from outside."""

    name: str
    make_seeds: Callable[[Path], list[bytes]]
    """Valid inputs; may use the folder, which exists."""
    mutate: Callable[[bytes, Random, Sequence[bytes]], bytes]
    """A damaged copy of an input. The same arguments give the same copy; the sequence has inputs to borrow from."""
    run: Callable[[bytes, Path], str]
    """Give the input to the program; returns a short summary of what came out. May use the folder, which exists."""
    memory_limit_mb: int = 256
    """The most memory that one input may take."""
    foreign_crashes: bool = False
    """Whether a crash is a fault of a library that runs in a process of its own: it is reported, and is no failure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one input led to."""

    kind: Kind
    signature: str
    """The same for inputs with the same effect."""
    detail: str = ""
    """The traceback or the message."""

    @property
    def is_failure(self) -> bool:
        """Whether the program did what it never may."""
        return self.kind not in ("accepted", "refused")


def judge(target: Target, data: bytes, folder: Path) -> Outcome:
    """Give the input to the target in this process. A hang or a crash is the caller's to notice."""
    try:
        summary = target.run(data, folder)
    except PerceiverdError as error:
        return _refused(error, folder)
    except Exception as error:
        return Outcome("error", f"{type(error).__name__} {_place(error)}", traceback.format_exc(limit=-12))
    return Outcome("accepted", summary)


def named(error: PerceiverdError, path: Path) -> PerceiverdError:
    """The same error. Raises AssertionError if its message does not begin with the file that is wrong."""
    assert str(error).startswith(f"{path}: "), f"names no file: {error}"
    return error


def _refused(error: PerceiverdError, folder: Path) -> Outcome:
    message = str(error)
    if not message or any(unicodedata.category(sign) == "Cc" for sign in message):
        return Outcome("error", f"message {_place(error)}", f"not one printable line: {message!r}\n")
    pattern = re.sub(r"'.*'|\".*\"|`.*`|\$\S+:|\d+", "_", message.replace(str(folder), ""))
    return Outcome("refused", f"{type(error).__name__} {pattern[-200:]}", message)


def _place(error: Exception) -> str:
    """The innermost function of the project in which it was raised, or the innermost at all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/perceiverd/" in frame.filename] or list(frames)
    return f"in {Path(ours[-1].filename).name}:{ours[-1].name}" if ours else ""
