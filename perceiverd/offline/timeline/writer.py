"""Writes the timeline of a file as one HTML page. What was found is gathered; the page is written at the end."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from perceiverd.core.media import NS_PER_S
from perceiverd.offline.timeline.page import media_of, summary_of, write_page
from perceiverd.offline.timeline.timeline import TimelineGatherer
from perceiverd.offline.writers.writer import FileFacts, TaggedWindow, Writer
from perceiverd.wire.records import FileEvent, FileSummary


class TimelineWriter(Writer):
    """The page of one file."""

    def __init__(self, out: IO[str], folder: Path | None, embed_bytes: int = 0) -> None:
        """`folder` is where the page will be, for its links; None if it is no file.

        Media of up to `embed_bytes` is put into the page; larger media is linked.
        """
        self._out, self._folder, self._embed_bytes = out, folder, embed_bytes
        self._facts: FileFacts | None = None
        self._gathered: TimelineGatherer | None = None

    def begin(self, facts: FileFacts) -> None:
        audio = facts.card.geometry.audio
        self._facts = facts
        self._gathered = TimelineGatherer(
            facts.card.labels, round(facts.header.hop_s * NS_PER_S), audio.rate_hz if audio else None
        )

    def window(self, tagged: TaggedWindow) -> None:
        assert self._gathered
        self._gathered.window(tagged.window, tagged.scores)

    def event(self, event: FileEvent) -> None:
        assert self._gathered
        self._gathered.event(event)

    def end(self, summary: FileSummary) -> None:
        assert self._gathered and self._facts
        facts, timeline = self._facts, self._gathered.timeline()
        media, embedded = media_of(
            facts.address,
            self._folder,
            has_video="video" in facts.header.modalities,
            embed_bytes=self._embed_bytes,
        )
        write_page(
            self._out, timeline, summary_of(timeline, summary.file, summary.model.name, media, summary.error), embedded
        )
