"""What `perceiverd tag` writes: one record a window or a file, as text for people or JSON lines for programs.

A format turns records into text, in the order they come. It knows no file, model or network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from perceiverd.messages import Tag


class Scores(msgspec.Struct, frozen=True, tag="scores"):
    """What the model makes of one window of a file."""

    file: str
    start_s: float
    """Time within the file."""
    end_s: float
    labels: tuple[Tag, ...]
    """Best first."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` the model was given."""


class Summary(msgspec.Struct, frozen=True, tag="summary"):
    """The mean over all windows of a file."""

    file: str
    windows: int
    labels: tuple[Tag, ...]
    """Best first."""


Record = Scores | Summary
Format = Callable[[Record], str]
"""Gives the lines of a record, each ended."""


class JsonLines:
    """One line of JSON a record; its keys are the record's fields, `type` says which record it is."""

    def __call__(self, record: Record) -> str:
        return msgspec.json.encode(record).decode() + "\n"


class Text:
    """One line a record to read: seconds, then labels with their scores; a file's name above its windows."""

    def __init__(self) -> None:
        self._file: str | None = None

    def __call__(self, record: Record) -> str:
        labels = ", ".join(f"{tag.name} {tag.score:.2f}" for tag in record.labels)
        match record:
            case Scores():
                heading = "" if record.file == self._file else f"{_printable(record.file)}\n"
                self._file = record.file
                return f"{heading}{record.start_s:7.2f}-{record.end_s:<7.2f}  {labels}\n"
            case Summary():
                return f"{_printable(record.file)}  {labels}\n"


def _printable(name: str) -> str:
    """The name on one line: what would break it, or steer a terminal, is escaped."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)


FormatName = Literal["text", "jsonl"]
FORMATS: dict[FormatName, Callable[[], Format]] = {"text": Text, "jsonl": JsonLines}
