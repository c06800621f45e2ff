"""Events as captions: WebVTT for browsers, SubRip for players. Each event is one caption; captions may overlap."""

from __future__ import annotations

import html
from typing import IO

from perceiverd.offline.writers.writer import FileFacts, Writer
from perceiverd.wire.records import FileEvent


class WebVtt(Writer):
    """WebVTT (https://www.w3.org/TR/webvtt1/): cues in order of start. The identifier of a cue is the event's id."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        out.write("WEBVTT\n")

    def begin(self, facts: FileFacts) -> None:
        self._out.write(f"\nNOTE\nperceiverd {facts.header.version}, model {_plain(facts.header.model.name)}\n")

    def event(self, event: FileEvent) -> None:
        span = f"{_time(event.start_s, '.')} --> {_time(event.end_s, '.')}"
        self._out.write(f"\n{event.id}\n{span}\n[{_plain(event.name)}]\n")


class SubRip(Writer):
    """SubRip (.srt): captions with numbers from 1, in order of start."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._number = out, 0

    def event(self, event: FileEvent) -> None:
        self._number += 1
        span = f"{_time(event.start_s, ',')} --> {_time(event.end_s, ',')}"
        self._out.write(f"{self._number}\n{span}\n[{event.name.translate(_ONE_LINE | _NO_TAGS)}]\n\n")


_ONE_LINE = {ord(sign): " " for sign in "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"}
_NO_TAGS = {ord("<"): "‹", ord(">"): "›"}
"""SubRip has tags, and no way to write what looks like one."""


def _plain(name: str) -> str:
    """The name on one line, without what WebVTT takes for markup."""
    return html.escape(name.translate(_ONE_LINE), quote=False)


def _time(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds. Both formats want at least two digits of hours."""
    milliseconds = round(seconds * 1000)
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{rest:03}"
