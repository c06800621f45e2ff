"""The records of files: what `perceiverd tag` writes and the library yields. Knows no format and no file.

A record has the keys of the message for the same thing (`messages`), with the same meaning. `file` takes the place of
`stream`. What only a live stream has is left out: times of day, latencies, and the numbers of messages.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from perceiverd.wire.messages import SCHEMA, Model, Tag


class FileHeader(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """Describes a file and how it is tagged. The first record of each file."""

    file: str
    """Path or URL as it was given, without a password."""
    version: str
    """Version of perceiverd."""
    model: Model
    window_s: float
    """Length of a window in seconds."""
    hop_s: float
    """Seconds between the starts of two consecutive windows."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` the file has."""
    length_s: float | None
    """Length in seconds that the file states; null if it states none."""
    schema: int = SCHEMA
    """Version of the format."""


class FileScores(msgspec.Struct, frozen=True, kw_only=True, tag="scores"):
    """The model's scores for one window of a file."""

    file: str
    """As in `FileHeader`."""
    start_s: float
    """Start of the window in seconds from the start of the file."""
    end_s: float
    """End of the window in seconds from the start of the file."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` the model received. A missing one was masked, not replaced by zeros."""
    model: Model
    labels: tuple[Tag, ...]
    """Labels with their scores, the highest score first."""
    filled_ms: dict[str, float] = {}
    """Milliseconds of `audio` and `video` that were missing in the window and were filled from the media beside them.
    Media without holes is not listed."""
    missing: dict[str, str] = {}
    """Why the window lacks `audio` or `video`: `no track`, `hole` (too much of it is missing) or `too far apart` (the
    file stores it too far away from the other one)."""
    schema: int = SCHEMA
    """As in `FileHeader`."""


class FileExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why an event ended."""

    score: float
    """The label's score, smoothed over time, when the event ended."""
    on: float
    """Threshold at or above which the event could begin."""
    off: float
    """Lower threshold. Below it the event faded."""
    windows: int
    """How many windows have confirmed the event."""
    reason: str
    """`faded`, `subsumed` (an event of a label below it in the ontology replaced it), `stream ended` (the file ended),
    `gap` (a time without windows) or `maximum duration`."""


class FileEvent(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """An event from its beginning to its end: a label was recognised for some time."""

    file: str
    """As in `FileHeader`."""
    kind: Literal["end"] = "end"
    """A file's event is written once, when it is over."""
    id: str
    """No other event of this file has it."""
    mid: str
    """The label's key."""
    index: int
    """Its index among the model's outputs."""
    name: str
    """The label's name."""
    start_s: float
    """Start of its first window in seconds from the start of the file."""
    end_s: float
    """End of the last window that confirmed it."""
    duration_s: float
    """Seconds from `start_s` to `end_s`."""
    peak: float
    """The highest score in its windows, of its label or of a label below it in the ontology."""
    mean: float
    """The mean score over the windows that confirmed it, of the same labels."""
    modalities: tuple[str, ...]
    """Which of `audio` and `video` its windows had."""
    continues: str | None
    """The id of the event that this one continues, because that one reached the maximum duration; otherwise null."""
    explanation: FileExplanation
    model: Model
    schema: int = SCHEMA
    """As in `FileHeader`."""


class FileSummary(msgspec.Struct, frozen=True, kw_only=True, tag="summary"):
    """The mean scores over all windows of a file. The last record of each file."""

    file: str
    """As in `FileHeader`."""
    windows: int
    """Windows that were tagged."""
    end_s: float
    """End of the last window in seconds from the start of the file."""
    labels: tuple[Tag, ...]
    """Labels with their mean scores, the highest first."""
    model: Model
    error: str | None = None
    """Why the file could not be read to its end, in one line; null if it could."""
    schema: int = SCHEMA
    """As in `FileHeader`."""


Record = FileHeader | FileScores | FileEvent | FileSummary
