"""Gathers what the page of a file shows, while the file is tagged. Memory is bounded for any length of media."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.labels import Label
from perceiverd.offline.timeline.score_grid import FULL, ScoreGrid
from perceiverd.offline.timeline.sound_picture import SoundPainter, SoundPicture
from perceiverd.offline.timeline.thumbnails import Thumbnail, Thumbnails
from perceiverd.pipeline.windower import Window
from perceiverd.wire.records import FileEvent

MOST_EVENTS = 5_000
"""Events of a page. Of more, those with the highest peaks are kept, and the page says how many are left out."""
LEAST_PEAK = 0.1
"""A label without events is shown from this score on."""
MOST_LABELS, FEWEST_LABELS = 160, 12
"""How many labels without events are shown, if there are any. All labels with events are shown."""


@dataclass(frozen=True, slots=True)
class LabelTotals:
    """What a file has of one label."""

    label: Label
    peak: float
    """The highest score in any window, 0..1."""
    first_s: float
    """The start of its first event; without one, the time of its highest score."""
    events: int
    total_s: float
    """The sum of its events' durations."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What the page of a file shows."""

    duration_s: float
    """The end of the last window."""
    windows: int
    labels: tuple[LabelTotals, ...]
    """The labels of the page: those with events first, then by their peaks."""
    columns_start_s: float
    columns_span_s: float
    """When the first column of `scores` begins, and how long each lasts."""
    scores: NDArray[np.uint8] = field(repr=False)
    """(labels, columns): scores of 0..1 as 0..255."""
    heard: NDArray[np.bool_] = field(repr=False)
    """(columns,): whether a window stands for the column."""
    events: tuple[FileEvent, ...]
    """In the order of their starts."""
    omitted: int
    """Events that are left out."""
    sound: SoundPicture | None
    thumbnails: tuple[Thumbnail, ...]


class TimelineGatherer:
    """Takes the windows and events of one file."""

    def __init__(self, labels: Sequence[Label], hop_ns: int, rate_hz: int | None) -> None:
        """`labels` are the model's; `rate_hz` is that of its audio, None if it hears nothing."""
        self._labels = labels
        self._grid = ScoreGrid(len(labels), hop_ns)
        self._painter = SoundPainter(rate_hz) if rate_hz else None
        self._thumbnails: Thumbnails | None = None
        self._events: list[tuple[float, int, FileEvent]] = []
        """A heap: peak, number, event."""
        self._totals: dict[int, LabelTotals] = {}
        self._windows = self._event_count = 0
        self._end_ns = 0

    def window(self, window: Window, scores: NDArray[np.floating]) -> None:
        """Add a window with its scores (classes,), in order of start."""
        self._windows += 1
        self._end_ns = max(self._end_ns, window.end_ns)
        self._grid.add(window.start_ns, window.end_ns, scores)
        if self._painter and window.audio is not None:
            self._painter.add(window.start_ns, window.end_ns, window.audio)
        if window.video is not None:
            self._thumbnails = self._thumbnails or Thumbnails()
            self._thumbnails.add(window.start_ns, window.video[0])

    def event(self, event: FileEvent) -> None:
        """Add an event, in any order."""
        self._event_count += 1
        entry = (event.peak, -self._event_count, event)
        if len(self._events) < MOST_EVENTS:
            heapq.heappush(self._events, entry)
        else:
            heapq.heappushpop(self._events, entry)
        label = self._labels[event.index]
        before = self._totals.get(event.index, LabelTotals(label, 0.0, event.start_s, 0, 0.0))
        self._totals[event.index] = LabelTotals(
            label,
            max(before.peak, event.peak),
            min(before.first_s, event.start_s),
            before.events + 1,
            before.total_s + event.duration_s,
        )

    def timeline(self) -> Timeline:
        """What was gathered."""
        shown = self._shown()
        events = sorted((event for _, _, event in self._events), key=lambda each: (each.start_s, each.index))
        return Timeline(
            duration_s=self._end_ns / 1e9,
            windows=self._windows,
            labels=tuple(shown),
            columns_start_s=self._grid.origin_ns / 1e9,
            columns_span_s=self._grid.span_ns / 1e9,
            scores=np.ascontiguousarray(self._grid.cells[:, [each.label.index for each in shown]].T),
            heard=self._grid.heard,
            events=tuple(events),
            omitted=self._event_count - len(events),
            sound=self._painter.picture() if self._painter else None,
            thumbnails=self._thumbnails.kept if self._thumbnails else (),
        )

    def _shown(self) -> list[LabelTotals]:
        peaks = self._grid.cells.max(axis=0, initial=0)  # (classes,)
        with_events = sorted(self._totals.values(), key=lambda each: (-each.peak, each.label.index))
        others = [int(index) for index in (-peaks.astype(np.int16)).argsort(kind="stable") if index not in self._totals]
        fewest = max(0, FEWEST_LABELS - len(with_events))
        strong = sum(1 for index in others if peaks[index] >= LEAST_PEAK * FULL)
        return with_events + [self._eventless(index) for index in others[: min(MOST_LABELS, max(fewest, strong))]]

    def _eventless(self, index: int) -> LabelTotals:
        cells = self._grid.cells[:, index]
        first_ns = self._grid.origin_ns + int(cells.argmax()) * self._grid.span_ns if len(cells) else 0
        return LabelTotals(self._labels[index], int(cells.max(initial=0)) / FULL, first_ns / 1e9, 0, 0.0)
