"""The errors a user can cause or must hear of. Each message is one line: what, where, what to do.

PerceiverdError
├── ConfigError      the configuration cannot be used as it is written
├── ModelError       a model folder is missing, broken or not what it says it is
├── MediaError       a file, URL or device cannot be read as sound or picture
└── WireError        a socket cannot be opened, or what came over it is not ours
"""

from __future__ import annotations

from typing import Literal

Refused = Literal["", "login", "request"]
"""What another try can't mend soon: who asks is not let in, or what is asked for is not given; neither where empty."""


class PerceiverdError(Exception):
    """A fault told to the user in one line, without a traceback."""

    def __init__(self, message: str) -> None:
        # Messages of foreign libraries are quoted in ours and may hold line breaks.
        super().__init__(" ".join(message.split()))


class ConfigError(PerceiverdError):
    """The configuration cannot be used as it is written."""


class ModelError(PerceiverdError):
    """A model folder is missing, broken or not what it says it is."""


class MediaError(PerceiverdError):
    """A file, URL or device cannot be read as sound or picture."""

    def __init__(self, message: str, refused: Refused = "") -> None:
        super().__init__(message)
        self.refused: Refused = refused


class WireError(PerceiverdError):
    """A socket cannot be opened, or what came over it is not ours."""
