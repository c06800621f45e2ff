"""Errors that a user can cause or must know about. Each message is one line: what, where, what to do.

PerceiverdError
├── ConfigError      the configuration is invalid
├── ModelError       a model folder is missing, broken or not what its card says
├── MediaError       a file, URL or device cannot be read as audio or video
├── WireError        a socket cannot be opened, or a message on it is not ours
├── HistoryError     the event history cannot be read or written
└── CorrectionError  a correction is invalid, or the corrections cannot be read or written
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from typing import Literal

Refused = Literal["", "login", "request"]
"""Why a retry will not help soon: the login was refused, or the request was; empty if neither was."""
NEAR = 0.55
"""The least similarity (difflib's ratio, 0..1) of a word that is suggested in place of an unknown one."""


class PerceiverdError(Exception):
    """A fault that is reported to the user in one line, without a traceback."""

    def __init__(self, message: str) -> None:
        # We quote other libraries, files and messages from the network. Those may hold line breaks, and control
        # characters that a terminal obeys, and bytes that are no text.
        line = " ".join(message.split())
        super().__init__(
            "".join(sign if unicodedata.category(sign) not in ("Cc", "Cs") else ascii(sign)[1:-1] for sign in line)
        )


class ConfigError(PerceiverdError):
    """The configuration is invalid."""


class ModelError(PerceiverdError):
    """A model folder is missing, broken or not what its card says."""


class MediaError(PerceiverdError):
    """A file, URL or device cannot be read as audio or video."""

    def __init__(self, message: str, refused: Refused = "") -> None:
        super().__init__(message)
        self.refused: Refused = refused


class WireError(PerceiverdError):
    """A socket cannot be opened, or a message on it is not ours."""


class HistoryError(PerceiverdError):
    """The event history cannot be read or written."""


class CorrectionError(PerceiverdError):
    """A correction is invalid, or the corrections cannot be read or written."""


def nearest(word: str, known: Iterable[str], cutoff: float = NEAR) -> str | None:
    """The known word that is most like this one, ignoring case; None if none is like it."""
    return next(iter(nearest_few(word, known, 1, cutoff)), None)


def nearest_few(word: str, known: Iterable[str], count: int, cutoff: float = NEAR) -> list[str]:
    """Up to `count` known words that are like this one, ignoring case, the most similar first."""
    by_case = {each.casefold(): each for each in known}
    return [by_case[near] for near in difflib.get_close_matches(word.casefold(), by_case, count, cutoff)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'camera'?` if a known word is like this one, otherwise `choose from camera, file, url`."""
    known = list(known)
    near = nearest(word, known)
    return f"did you mean '{near}'?" if near else f"choose from {', '.join(known)}"
