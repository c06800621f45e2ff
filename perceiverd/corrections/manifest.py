"""The file `corrections.jsonl`: one correction a line. Pure: text in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal, get_args

import msgspec

from perceiverd.core.errors import CorrectionError

Verdict = Literal["right", "wrong", "missed", "example"]
"""`right`, `wrong`: of a published event. `missed`: there was no event. `example`: a sound to be learnt."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ID = re.compile(r"[0-9a-f]{16}")
SOUND = re.compile(r"([0-9a-f]{16})\.(flac|mkv)")
NAME_LETTERS = 100
"""Longest name of a machine, stream or label, mid or event."""
LONGEST = timedelta(hours=25)
"""Longer than any event."""


class Correction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that the operator said."""

    id: str
    """16 hexadecimal digits."""
    at: datetime
    """When the operator said it."""
    verdict: Verdict
    machine: str
    stream: str
    mid: str
    """Of the label: AudioSet's, or `user/...`."""
    name: str
    """Of the label."""
    start: datetime
    end: datetime
    """The time of the event, or the time that the operator marked."""
    event: str | None = None
    """The event's id in the daemon's messages; None for `missed` and `example`."""
    sound: str | None = None
    """The file in the folder with the sound, or with pictures and sound; None if there is none."""
    sound_start: datetime | None = None
    """UTC of the file's first sample; None if that is not known exactly."""
    why: str | None = None
    """Why there is no sound; None if there is some."""

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.id):
            raise ValueError(f"id must be 16 hexadecimal digits, not {self.id!r}")
        if self.sound is not None and ((found := SOUND.fullmatch(self.sound)) is None or found[1] != self.id):
            raise ValueError(f"sound must be {self.id}.flac or {self.id}.mkv, not {self.sound!r}")
        for what, text in (("machine", self.machine), ("stream", self.stream), ("mid", self.mid), ("name", self.name)):
            check_name(what, text)
        if self.event is not None:
            check_name("event", self.event)
        for time in (self.at, self.start, self.end, self.sound_start):
            if time is not None and time.tzinfo is None:
                raise ValueError("each time needs a time zone")
        if not timedelta(0) < self.end - self.start <= LONGEST:
            raise ValueError(f"end must be after start, at most {LONGEST / timedelta(hours=1):g} hours")


def check_name(what: str, text: str) -> None:
    """Raises ValueError if a name is empty, too long, or has signs that cannot be printed."""
    if not 0 < len(text) <= NAME_LETTERS or not text.isprintable():
        raise ValueError(f"{what} must have 1 to {NAME_LETTERS} printable characters, not {text[:NAME_LETTERS]!r}")


def encoded(corrections: Iterable[Correction]) -> bytes:
    """The file with these corrections."""
    return b"".join(msgspec.json.encode(each) + b"\n" for each in corrections)


def decoded(data: bytes, place: str) -> tuple[Correction, ...]:
    """The corrections of a file. Raises CorrectionError that names the line; `place` is the file's path."""
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=Correction))
        except (msgspec.MsgspecError, ValueError) as error:
            raise CorrectionError(f"{place}: line {number}: {error}; correct or delete the line") from None
    return tuple(found)
