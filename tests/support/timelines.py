"""Timelines of files that do not exist: windows of a given length, with sounds and events at known times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perceiverd.core.labels import Label, ontology
from perceiverd.core.media import NS_PER_S
from perceiverd.offline.timeline.page import PageMedia, summary_of, write_page
from perceiverd.offline.timeline.timeline import Timeline, TimelineGatherer
from perceiverd.pipeline.windower import Window
from perceiverd.wire.messages import Model
from perceiverd.wire.records import FileEvent, FileExplanation

HOP_NS, WINDOW_NS, RATE_HZ = NS_PER_S // 2, 128 * NS_PER_S // 100, 16_000
Sound = tuple[str, float, float, float]
"""Label, start and end in seconds, score."""


def event_of(label: Label, start_s: float, end_s: float, peak: float) -> FileEvent:
    """An event of a file."""
    return FileEvent(
        file="film.mp4",
        id=f"{label.index}-{start_s}",
        mid=label.mid,
        index=label.index,
        name=label.name,
        start_s=start_s,
        end_s=end_s,
        duration_s=end_s - start_s,
        peak=peak,
        mean=peak / 2,
        modalities=("audio", "video"),
        continues=None,
        explanation=FileExplanation(score=0.1, on=0.5, off=0.25, windows=3, reason="faded"),
        model=Model("tiny", "00"),
    )


def timeline_of(length_s: float, sounds: Sequence[Sound], *, pictures: bool = True) -> Timeline:
    """A timeline with these sounds as tones, each of them one event."""
    labels, rng = ontology().labels, np.random.default_rng(3)
    gatherer = TimelineGatherer(labels, HOP_NS, RATE_HZ)
    samples = round(WINDOW_NS * RATE_HZ / NS_PER_S)
    found = [(ontology().find(name), start_s, end_s, score) for name, start_s, end_s, score in sounds]
    for start_ns in range(0, round(length_s * NS_PER_S) - WINDOW_NS + 1, HOP_NS):
        end_ns = start_ns + WINDOW_NS
        middle_s = (start_ns + end_ns) / 2 / NS_PER_S
        scores = rng.random(len(labels)) * 0.02
        audio = rng.normal(0, 0.002, samples)
        for label, start_s, end_s, score in found:
            if start_s <= middle_s < end_s:
                scores[label.index] = score
                audio += 0.2 * np.sin(np.arange(samples) * (200 + 10 * label.index) / RATE_HZ * 2 * np.pi)
        video = None
        if pictures:
            shade = np.linspace(0, 255, 48 * 64, dtype=np.uint8).reshape(1, 48, 64, 1).repeat(3, axis=3)
            video = np.roll(shade, start_ns // HOP_NS, axis=2)
        gatherer.window(Window(start_ns, end_ns, audio.astype(np.float32), video), scores)
    for label, start_s, end_s, score in found:
        gatherer.event(event_of(label, start_s, end_s, score))
    return gatherer.timeline()


def page_of(
    path: Path, timeline: Timeline, file: str = "film.mp4", media: PageMedia | None = None, embedded: Path | None = None
) -> Path:
    """Write the page of a timeline."""
    summary = summary_of(timeline, file, "tiny", media or PageMedia(None))
    with path.open("w", encoding="utf-8") as out:
        write_page(out, timeline, summary, embedded)
    return path
