"""What `perceiverd tag` writes: a record for each window, event or file, as text for people or JSON for programs.

A format turns records into text, in the order they come. It knows no file, model or network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from perceiverd.wire.messages import Tag


class FileScores(msgspec.Struct, frozen=True, tag="scores"):
    """What the model makes of one window of a file."""

    file: str
    start_s: float
    """Time within the file."""
    end_s: float
    labels: tuple[Tag, ...]
    """Best first."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` the model was given."""


class FileSummary(msgspec.Struct, frozen=True, tag="summary"):
    """The mean over all windows of a file."""

    file: str
    windows: int
    labels: tuple[Tag, ...]
    """Best first."""


class FileEvent(msgspec.Struct, frozen=True, tag="event"):
    """A label from its beginning to its end; said when it is over."""

    file: str
    id: str
    start_s: float
    """Time within the file."""
    end_s: float
    mid: str
    index: int
    name: str
    peak: float
    """The highest score of the label, or of a label below it in the ontology, in a window of the event."""
    mean: float
    """The mean of these scores over the windows that confirm it."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` its windows had."""
    windows: int
    """How many windows confirm it."""
    on: float
    off: float
    """The thresholds between which its smoothed score went up and down."""
    reason: str
    """Why it ended, in the words of `messages.Explanation`."""
    continues: str | None
    """The id of the event that had lasted as long as one may, and that goes on in this one."""


Record = FileScores | FileEvent | FileSummary
Format = Callable[[Record], str]
"""Gives the lines of a record, each ended."""


class JsonLines:
    """One line of JSON a record; its keys are the record's fields, `type` says which record it is."""

    def __call__(self, record: Record) -> str:
        return msgspec.json.encode(record).decode() + "\n"


class Text:
    """One line a record to read: seconds, then labels with their scores; a file's name above its windows or events.

    Of an event the highest score is shown.
    """

    def __init__(self) -> None:
        self._file: str | None = None

    def __call__(self, record: Record) -> str:
        match record:
            case FileSummary():
                return f"{_printable(record.file)}  {_told(record.labels)}\n"
            case FileScores():
                what = _told(record.labels)
            case FileEvent():
                what = f"{record.name} {record.peak:.2f}"
        heading = "" if record.file == self._file else f"{_printable(record.file)}\n"
        self._file = record.file
        return f"{heading}{record.start_s:7.2f}-{record.end_s:<7.2f}  {what}\n"


def _told(labels: Sequence[Tag]) -> str:
    return ", ".join(f"{tag.name} {tag.score:.2f}" for tag in labels)


def _printable(name: str) -> str:
    """The name on one line: what would break it, or steer a terminal, is escaped."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)


FormatName = Literal["text", "jsonl"]
FORMATS: dict[FormatName, Callable[[], Format]] = {"text": Text, "jsonl": JsonLines}
