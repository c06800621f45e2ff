"""The events of a file, by the tracker that also serves live streams. Pure: windows with scores in, records out."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.media import NS_PER_S
from perceiverd.pipeline.rules import Rules
from perceiverd.pipeline.tracker import EventChange, EventTracker
from perceiverd.pipeline.windower import Window
from perceiverd.wire.messages import Model
from perceiverd.wire.records import FileEvent, FileExplanation


class FileEvents:
    """The events of one file, each given once, when it is over."""

    def __init__(self, file: str, model: Model, rules: Rules, *, sorts: bool = False) -> None:
        """`sorts`: give events in order of start. Each then waits for those that began before it.

        The rules' maximum duration bounds the wait, and so how many events wait.
        """
        self._file, self._model, self._rules, self._sorts = file, model, rules, sorts
        self._tracker = EventTracker(rules)
        self._waiting: list[tuple[int, int, FileEvent]] = []
        """A heap: start in ns, label, event."""

    def track(self, window: Window, scores: NDArray[np.floating]) -> list[FileEvent]:
        """The events that this window, the next of the file, has settled."""
        changes = self._tracker.track(scores, window.start_ns, window.end_ns, window.modalities)
        return self._settled(changes, self._tracker.settled_ns)

    def end(self) -> list[FileEvent]:
        """The events that were still open or waiting. The next window belongs to another file."""
        return self._settled(self._tracker.end("stream ended"), None)

    def _settled(self, changes: Iterable[EventChange], before_ns: int | None) -> list[FileEvent]:
        """The events that start before this time, or all."""
        ended = [change for change in changes if change.kind == "end"]
        if not self._sorts:
            return [self._event(change) for change in ended]
        for change in ended:
            heapq.heappush(self._waiting, (change.start_ns, change.index, self._event(change)))
        found = []
        while self._waiting and (before_ns is None or self._waiting[0][0] < before_ns):
            found.append(heapq.heappop(self._waiting)[2])
        return found

    def _event(self, change: EventChange) -> FileEvent:
        start_s, end_s, label = seconds(change.start_ns), seconds(change.end_ns), self._rules.labels[change.index]
        return FileEvent(
            file=self._file,
            id=change.id,
            mid=label.mid,
            index=label.index,
            name=label.name,
            start_s=start_s,
            end_s=end_s,
            duration_s=round(end_s - start_s, 3),
            peak=round(change.peak, 6),
            mean=round(change.mean, 6),
            modalities=change.modalities,
            continues=change.continues,
            explanation=FileExplanation(
                score=round(change.smoothed, 6),
                on=round(change.on, 6),
                off=round(change.off, 6),
                windows=change.windows,
                reason=change.reason,
            ),
            model=self._model,
        )


def seconds(time_ns: int) -> float:
    """Seconds to the millisecond, because containers round times and codecs start a few samples before zero."""
    return round(time_ns / NS_PER_S, 3) + 0.0  # never -0.0
