"""The page of a file: the blocks of data that `page/timeline_main.js` and its modules read."""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

import msgspec
import numpy as np

from perceiverd import __version__
from perceiverd.offline.timeline.assembly import assembled, json_text, text, write_bytes, write_json, write_packed
from perceiverd.offline.timeline.timeline import Timeline

FORMAT = 1
"""The version of the data in a page."""
PIECE_BYTES = 3 << 18
"""How much of an embedded file is read at once; a multiple of 3, as base64 needs."""
MEBIBYTE = 1 << 20


class PageMedia(msgspec.Struct, frozen=True):
    """How the page plays the file."""

    kind: Literal["audio", "video"] | None
    """The element that plays it; None if nothing can."""
    href: str | None = None
    """The file's address relative to the page's folder, if it is not in the page."""
    type: str | None = None
    """The media type of the file that is in the page."""


class LabelSummary(msgspec.Struct, frozen=True):
    """What a file has of one label that has events."""

    name: str
    mid: str
    events: int
    total_s: float
    first_s: float
    peak: float


class PageSummary(msgspec.Struct, frozen=True):
    """What the index of a folder reads from each page."""

    format: int
    file: str
    """The file's name as it was given."""
    media: PageMedia
    duration_s: float
    windows: int
    model: str
    version: str
    labels: tuple[LabelSummary, ...]
    """Those with events, the highest peak first."""
    omitted: int
    """Events that are left out of the page."""
    pictures: int
    """Thumbnails of the page."""
    error: str | None = None
    """Why the file could not be read to its end."""


def summary_of(timeline: Timeline, file: str, model: str, media: PageMedia, error: str | None = None) -> PageSummary:
    """The summary of a page. `file` is shown; `model` is the model's name."""
    return PageSummary(
        format=FORMAT,
        file=file,
        media=media,
        duration_s=round(timeline.duration_s, 3),
        windows=timeline.windows,
        model=model,
        version=__version__,
        labels=tuple(
            LabelSummary(
                each.label.name, each.label.mid, each.events, round(each.total_s, 2), each.first_s, round(each.peak, 3)
            )
            for each in timeline.labels
            if each.events
        ),
        omitted=timeline.omitted,
        pictures=len(timeline.thumbnails),
        error=error,
    )


def media_of(address: str, folder: Path | None, *, has_video: bool, embed_bytes: int) -> tuple[PageMedia, Path | None]:
    """How a page in `folder` plays the file, and the file whose bytes must be in the page.

    `address` is the path that was tagged. Files of at most `embed_bytes` are embedded; others are linked, if the page
    lies in a folder. Pipes and URLs are neither: the data of a pipe is gone, and a page must not load from the network.
    """
    path = Path(address)
    try:
        is_file = address != "-" and "://" not in address and path.is_file()
        size = path.stat().st_size if is_file else 0
    except (OSError, ValueError):
        is_file = False
    if not is_file:
        return PageMedia(None), None
    kind: Literal["audio", "video"] = "video" if has_video else "audio"
    if size <= embed_bytes:
        return PageMedia(kind, type=_media_type(path, kind)), path
    return (PageMedia(kind, href=_href(path, folder)) if folder else PageMedia(None)), None


def write_page(out: IO[str], timeline: Timeline, summary: PageSummary, embedded: Path | None = None) -> None:
    """Write the page. Raises OSError if the embedded file cannot be read."""
    name = summary.file.rstrip("/").rpartition("/")[2] or summary.file

    def data(out: IO[str]) -> None:
        _write_timeline(out, timeline)
        if embedded:
            write_bytes(out, "media", _pieces(embedded))

    texts = {
        "version": __version__,
        "title": text(f"{name} - labels").removeprefix("<bdi>").removesuffix("</bdi>"),  # a title has no elements
        "name": text(name),
        "summary": json_text(summary),
    }
    assembled("timeline").write(out, texts, data)


def _write_timeline(out: IO[str], timeline: Timeline) -> None:
    sound, events = timeline.sound, timeline.events
    rows = {each.label.index: row for row, each in enumerate(timeline.labels)}
    write_json(
        out,
        "timeline",
        {
            "labels": [
                {"name": each.label.name, "mid": each.label.mid, "peak": round(each.peak, 3), "first_s": each.first_s}
                for each in timeline.labels
            ],
            "columns": {
                "start_s": timeline.columns_start_s,
                "span_s": timeline.columns_span_s,
                "count": len(timeline.heard),
            },
            "events": {
                "label": [rows[event.index] for event in events],
                "start_s": [event.start_s for event in events],
                "end_s": [event.end_s for event in events],
                "peak": [round(event.peak, 3) for event in events],
                "modalities": ["".join(each[0] for each in event.modalities) for event in events],
            },
            "sound": sound
            and {
                "start_s": sound.start_ns / 1e9,
                "span_s": sound.span_ns / 1e9,
                "count": len(sound.peaks),
                "bands": sound.bands.shape[1],
            },
        },
    )
    write_packed(out, "scores", timeline.heard.astype(np.uint8).tobytes(), timeline.scores.tobytes())
    if sound:
        write_packed(out, "sound", np.ascontiguousarray(sound.bands.T).tobytes(), sound.peaks.tobytes())
    if timeline.thumbnails:
        jpeg = [base64.b64encode(each.jpeg).decode() for each in timeline.thumbnails]
        write_json(out, "thumbnails", {"start_s": [each.start_ns / 1e9 for each in timeline.thumbnails], "jpeg": jpeg})


def _href(path: Path, folder: Path) -> str:
    """The path from the folder, as a relative address. Its bytes are percent-encoded, so any name works."""
    return quote(os.fsencode(os.path.relpath(path.absolute(), folder.absolute())))


def _media_type(path: Path, kind: str) -> str:
    guessed = mimetypes.guess_type(path.name)[0] or ""
    return guessed if guessed.startswith(("audio/", "video/")) else f"{kind}/mp4"


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
