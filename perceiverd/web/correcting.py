"""Corrections: a request names an event, or a label and a time; paths and identifiers come from our own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from perceiverd.core.errors import CorrectionError
from perceiverd.core.labels import Label, ontology
from perceiverd.corrections import Correction, Corrections, Verdict
from perceiverd.evaluation.label_lookup import LabelLookup
from perceiverd.history import HistoryReader, StoredEvent
from perceiverd.web import reports
from perceiverd.web.answers import CorrectionAnswer, CorrectionsAnswer, StoredCorrectionAnswer
from perceiverd.web.media import MediaFolders
from perceiverd.web.questions import CorrectionBody, QuestionError, aware
from perceiverd.web.settings import WatchedDaemon

RECENT = "recent"
"""The folder of recent sound in the folder of a daemon's snapshots."""
LEAST = timedelta(seconds=1)
"""An event or a mark that is shorter counts as this long."""
LONGEST_MARK = timedelta(minutes=10)
"""Of a time that a user marks."""


@dataclass(frozen=True, slots=True)
class WantedCorrection:
    """What a request asks to be stored."""

    verdict: Verdict
    machine: str
    stream: str
    mid: str
    name: str
    start: datetime
    end: datetime
    key: str | None = None
    clip: Path | None = None


@dataclass(frozen=True, slots=True)
class Correcting:
    """The folder of corrections. Its methods wait for the disk, so a thread calls them."""

    corrections: Corrections
    teaches: bool
    """Whether a machine's recent sound is at hand, so that examples can be taken from it."""

    @classmethod
    def of(cls, directory: Path, daemons: Mapping[str, WatchedDaemon]) -> Correcting:
        """With the recent sound of the daemons whose media folders are at hand."""
        recent = {name: Path(each.media) / RECENT for name, each in daemons.items() if each.media}
        return cls(Corrections(directory, recent), bool(recent))

    def verdict(self, event: StoredEvent) -> Verdict | None:
        """What the last correction says of this event; None if there is none, or if they cannot be read."""
        try:
            return self.corrections.verdict_of(event.machine, event.stream, event.key, event.start)
        except CorrectionError:
            return None  # asking for the corrections themselves says why

    def add(self, wanted: WantedCorrection) -> StoredCorrectionAnswer:
        """Store it. Raises CorrectionError."""
        made = self.corrections.add(
            *(wanted.verdict, wanted.machine, wanted.stream, wanted.mid, wanted.name, wanted.start, wanted.end),
            event=wanted.key,
            clip=wanted.clip,
        )
        return StoredCorrectionAnswer(made.id, made.sound is not None, made.why)

    def every(self) -> CorrectionsAnswer:
        """All, the newest first. Raises CorrectionError."""
        return CorrectionsAnswer(tuple(_answer(each) for each in reversed(self.corrections.every())))


def wanted_of_event(reader: HistoryReader, body: CorrectionBody, media: MediaFolders) -> WantedCorrection | None:
    """A verdict on a stored event; None if there is no such event. Raises QuestionError."""
    if body.verdict not in ("right", "wrong"):
        raise QuestionError("verdict: an event is right or wrong")
    if any(each is not None for each in (body.machine, body.stream, body.label, body.start, body.end)):
        raise QuestionError("event: give only the event and the verdict; the rest is known")
    event = None if body.event is None else reports.stored(reader, body.event)
    if event is None:
        return None
    return WantedCorrection(
        *(body.verdict, event.machine, event.stream, event.mid, event.name, event.start),
        end=max(event.end, event.start + LEAST),
        key=event.key,
        clip=media.clip_path(event),
    )


def wanted_of_time(body: CorrectionBody, known: tuple[Label, ...], now: datetime) -> WantedCorrection:
    """A time in which a label was missed, or that is an example of it. Raises QuestionError."""
    if body.verdict not in ("missed", "example"):
        raise QuestionError("event: is missing; give the number of the event that is right or wrong")
    if None in (body.machine, body.stream, body.label, body.start, body.end):
        raise QuestionError("give machine, stream, label, start and end")
    assert body.machine and body.stream and body.label and body.start and body.end
    start, end = aware(body.start), aware(body.end)
    if not timedelta(0) <= end - start <= LONGEST_MARK:
        raise QuestionError(f"end: must be after start, at most {LONGEST_MARK.total_seconds() / 60:.0f} minutes")
    if start > now + LEAST:
        raise QuestionError("start: is in the future")
    label = _label(body.label, known, may_add=body.verdict == "example")
    return WantedCorrection(
        *(body.verdict, body.machine, body.stream, label.mid, label.name, start), end=max(end, start + LEAST)
    )


def _label(word: str, known: tuple[Label, ...], *, may_add: bool) -> Label:
    """The label of this name or mid, which may be one of the user's own. Raises QuestionError."""
    lookup = LabelLookup((*ontology().labels, *known))
    try:
        mid = lookup.mid_of(word, may_add=may_add)
    except ValueError as error:
        raise QuestionError(f"label: {error}") from None
    return next(label for label in (*ontology().labels, *known, *lookup.new) if label.mid == mid)


def _answer(correction: Correction) -> CorrectionAnswer:
    return CorrectionAnswer(
        id=correction.id,
        at=correction.at,
        verdict=correction.verdict,
        machine=correction.machine,
        stream=correction.stream,
        mid=correction.mid,
        name=correction.name,
        start=correction.start,
        end=correction.end,
        event=correction.event,
        sound=correction.sound is not None,
        why=correction.why,
    )
