"""What a format implements to write what was found in files. Knows no format, and not where the output lies.

The caller opens the output and makes the `Writer` for it. It then calls `begin` for a file, `window` and `event` as
they come, and `end`; more files follow if the format can hold them; `close` is last. The caller closes the output, and
gives it its name only then, so a writer never has to care about half a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perceiverd.wire.records import FileEvent, FileHeader, FileScores, FileSummary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from perceiverd.model.card import Card
    from perceiverd.pipeline.rules import Rules
    from perceiverd.pipeline.windower import Window

RecordKind = Literal["file", "scores", "event", "summary"]
"""The `type` of a record."""
ALL_KINDS: frozenset[RecordKind] = frozenset({"file", "scores", "event", "summary"})


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """What a writer is told about its output."""

    kinds: frozenset[RecordKind] = ALL_KINDS
    """The records to write, if the format has a choice."""
    target: Path | None = None
    """Where the output will be when it is complete; until then it has another name. None if it is no file."""
    embed_bytes: int = 0
    """Put media up to this size into the output, if the format can; otherwise the output links to it."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file when its first window is there."""

    header: FileHeader
    address: str
    """Path or URL that was opened; `-` is standard input. A URL may have a password in it: write `header.file`."""
    card: Card
    """The model: its labels, geometry and calibration."""
    rules: Rules | None
    """By which events are made; None if none are."""


@dataclass(frozen=True, slots=True)
class TaggedWindow:
    """A window with its scores."""

    window: Window
    """Its times in ns from the start of the file, and the audio and video that the model received."""
    scores: NDArray[np.float32]
    """(classes,), 0..1: the score of each label, in the order of the model's outputs."""
    record: FileScores
    """The same as a record, with the best labels only."""


Piece = FileFacts | TaggedWindow | FileEvent | FileSummary
"""What tagging a file yields, in this order; windows and events alternate."""


class Writer:
    """Writes one output. A format implements what it has a use for; memory must not grow with the file.

    OSError passes through to the caller.
    """

    def begin(self, facts: FileFacts) -> None:
        """A file begins: at least one window follows."""

    def window(self, tagged: TaggedWindow) -> None:
        """The next window, in order of start."""

    def event(self, event: FileEvent) -> None:
        """An event has ended. In order of start if the format asks for it (`Format.sorts`)."""

    def end(self, summary: FileSummary) -> None:
        """The file has ended, or cannot be read any further (`summary.error`)."""

    def close(self) -> None:
        """No file follows. Write what is still to be written; the caller closes the output."""

    def write(self, piece: Piece) -> None:
        """Pass on a piece."""
        match piece:
            case FileFacts():
                self.begin(piece)
            case TaggedWindow():
                self.window(piece)
            case FileEvent():
                self.event(piece)
            case FileSummary():
                self.end(piece)
