"""Events as labels for programs that show or compare sound: Audacity, Raven, and RTTM for evaluation.

All three are tables with a line for each event. Names lose the signs that separate columns.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import IO

from perceiverd.offline.writers.writer import FileFacts, Writer
from perceiverd.wire.records import FileEvent

RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Label",
    "Score",
    "Mean Score",
    "Mid",
    "Begin Path",
    "File Offset (s)",
)
"""Raven requires the first seven. It shows the others as annotations, and finds the sound by the last two."""


class AudacityLabels(Writer):
    """A label track of Audacity: start, end, and the event's name with its highest score."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def event(self, event: FileEvent) -> None:
        self._out.write(f"{event.start_s:.6f}\t{event.end_s:.6f}\t{_words(event.name)} {event.peak:.2f}\n")


class RavenSelections(Writer):
    """A selection table of Raven. A selection spans all frequencies that the model hears."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._number = out, 0
        self._path, self._highest_hz = "", 0.0
        out.write("\t".join(RAVEN_COLUMNS) + "\n")

    def begin(self, facts: FileFacts) -> None:
        audio = facts.card.geometry.audio
        self._highest_hz = audio.rate_hz / 2 if audio else 0.0
        self._path = _words(facts.header.file)

    def event(self, event: FileEvent) -> None:
        self._number += 1
        cells = (
            self._number,
            "Spectrogram 1",
            1,
            f"{event.start_s:.3f}",
            f"{event.end_s:.3f}",
            0,
            f"{self._highest_hz:g}",
            _words(event.name),
            f"{event.peak:.4f}",
            f"{event.mean:.4f}",
            _words(event.mid),
            self._path,
            f"{event.start_s:.3f}",
        )
        self._out.write("\t".join(map(str, cells)) + "\n")


class Rttm(Writer):
    """Rich Transcription Time Marked (NIST 2009): a SPEAKER line for each event, with the label as its name.

    Fields are separated by spaces, so those in names become `_`. The file is named without its folder and ending, as
    tools for RTTM expect. The confidence is the event's highest score.
    """

    def __init__(self, out: IO[str]) -> None:
        self._out, self._file = out, ""

    def begin(self, facts: FileFacts) -> None:
        self._file = _word(PurePath(facts.header.file).stem)

    def event(self, event: FileEvent) -> None:
        times = f"{event.start_s:.3f} {event.duration_s:.3f}"
        self._out.write(f"SPEAKER {self._file} 1 {times} <NA> <NA> {_word(event.name)} {event.peak:.4f} <NA>\n")


def _words(text: str) -> str:
    return " ".join(text.split())


def _word(text: str) -> str:
    return "_".join(text.split()) or "_"
