"""What `perceiverd tag` writes: a record for each window, event or file, as text for people or JSON for programs.

A record has the keys of the wire's message for the same thing (`wire.messages`), with two differences: `file` takes
the place of `stream`, and there are no times of day. A format turns records into text, in the order they come. It
knows no file, model or network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from perceiverd.wire import holes
from perceiverd.wire.messages import Tag


class FileScores(msgspec.Struct, frozen=True, tag="scores"):
    """The model's scores for one window of a file."""

    file: str
    start_s: float
    """Time within the file."""
    end_s: float
    modalities: tuple[str, ...]
    """Which of `audio` and `video` the model was given."""
    labels: tuple[Tag, ...]
    """Best first."""
    filled_ms: dict[str, float] = {}
    """Milliseconds of `audio` and `video` that were missing in the window and were filled; only media with holes."""
    missing: dict[str, str] = {}
    """Why the window lacks `audio` or `video`: `no track`, `hole` (too much of it is missing) or `too far apart` (the
    file stores it too far away from the other one)."""


class FileSummary(msgspec.Struct, frozen=True, tag="summary"):
    """The mean scores over all windows of a file."""

    file: str
    windows: int
    labels: tuple[Tag, ...]
    """Best first."""


class FileExplanation(msgspec.Struct, frozen=True):
    """Why an event ended, as in `messages.Explanation`."""

    score: float
    """The label's smoothed score when the event ended."""
    on: float
    """The event could begin when the smoothed score reached this threshold."""
    off: float
    """The event faded when the smoothed score fell below this threshold."""
    windows: int
    """How many windows confirm the event."""
    reason: str


class FileEvent(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """A label from its beginning to its end, written when the event has ended."""

    file: str
    kind: Literal["end"] = "end"
    """The record has the keys of the wire's message at the end of an event."""
    id: str
    mid: str
    index: int
    name: str
    start_s: float
    """Time within the file."""
    end_s: float
    duration_s: float
    peak: float
    """The highest score of the label, or of a label below it in the ontology, in a window of the event."""
    mean: float
    """The mean of these scores over the windows that confirm the event."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` its windows had."""
    continues: str | None
    """The id of the event that reached its maximum duration and continues as this one."""
    explanation: FileExplanation


Record = FileScores | FileEvent | FileSummary
Format = Callable[[Record], str]
"""Returns the lines of a record, each with its line end."""


class JsonLines:
    """One line of JSON for each record; its keys are the record's fields, and `type` names the kind of record."""

    def __call__(self, record: Record) -> str:
        return msgspec.json.encode(record).decode() + "\n"


class TextLines:
    """One line of text for each record: times in seconds, then labels with scores. The file's name is a line above.

    An event has its highest score.
    """

    def __init__(self) -> None:
        self._file: str | None = None

    def __call__(self, record: Record) -> str:
        match record:
            case FileSummary():
                return f"{_printable(record.file)}  {_labels(record.labels)}\n"
            case FileScores():
                labels = _labels(record.labels)
                if losses := holes.described(record.filled_ms, record.missing):
                    labels += f"  ({losses})"
            case FileEvent():
                labels = f"{record.name} {record.peak:.2f}"
        heading = "" if record.file == self._file else f"{_printable(record.file)}\n"
        self._file = record.file
        return f"{heading}{record.start_s:7.2f}-{record.end_s:<7.2f}  {labels}\n"


def _labels(tags: Sequence[Tag]) -> str:
    return ", ".join(f"{tag.name} {tag.score:.2f}" for tag in tags)


def _printable(name: str) -> str:
    """The name on one line, with escapes for characters that would break the line or control a terminal."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in name)


FormatName = Literal["text", "jsonl"]
FORMATS: dict[FormatName, Callable[[], Format]] = {"text": TextLines, "jsonl": JsonLines}
