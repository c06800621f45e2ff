"""Which media of a stream's events are kept: asks a source for them, at once or when no speech was found.

It knows no source and no file: the caller passes how to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perceiverd.core.clock import utc
from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon import snapshots
from perceiverd.daemon.settings import StreamSettings
from perceiverd.daemon.speech import SpeechMemory
from perceiverd.pipeline.tracker import EventChange
from perceiverd.pipeline.windower import Window
from perceiverd.sources.snapshots.requests import SnapshotOptions, SnapshotRequest


@dataclass(frozen=True, slots=True)
class EventMedia:
    """What the messages of an event say about its media."""

    snapshot: str | None = None
    """The file of the picture; None if none is kept."""
    clip: str | None = None
    """The file of the clip; None if none is kept."""
    withheld: str | None = None
    """Why none is kept although they are wanted: `speech` or `unjudged`; None if nothing is withheld."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that waits for the windows of its whole time."""

    request: SnapshotRequest
    begin_ns: int
    end_ns: int
    ids: tuple[str, ...]


class EventMediaKeeper:
    """The media of one stream's events."""

    def __init__(self, stream: str, labels: Sequence[Label], request: Callable[[SnapshotRequest], bool]) -> None:
        """`request` has a source write a snapshot; it returns False if none can."""
        self._stream, self._labels, self._request = stream, labels, request
        self._speech: SpeechMemory | None = None
        self._waiting: list[_Waiting] = []
        self.media: dict[str, EventMedia] = {}
        """By the id of each open event that has or lacks some."""

    def tagged(
        self, window: Window, row: NDArray[np.float32], changes: Sequence[EventChange], settings: StreamSettings
    ) -> None:
        """Record a window with its scores (labels,), and ask for the media of the events that begin with it."""
        if settings.speech_limit is not None:
            self._speech = self._speech or SpeechMemory(self._labels)
            self._speech.add(window, row)
        begun = [change for change in changes if change.kind == "begin" and change.continues is None]
        if begun and settings.snapshots is not None:
            self._begin(window, begun, settings, settings.snapshots)
        self._judge(settings.speech_limit)

    def ended(self, event_id: str) -> None:
        """The last message of this event was made."""
        self.media.pop(event_id, None)

    def stop(self) -> None:
        """No more windows come for now: what waits for them cannot be judged."""
        for each in self._waiting:
            self._withhold(each.ids, "unjudged")
        self._waiting.clear()

    def _begin(
        self, window: Window, begun: Sequence[EventChange], settings: StreamSettings, options: SnapshotOptions
    ) -> None:
        """One request for all events that begin with this window, named after the one with the highest peak."""
        sound = "video" not in window.modalities
        if sound and not options.has_clips:
            return  # a stream that only hears has no picture
        label = self._labels[max(begun, key=lambda change: change.peak).index]
        middle_ns = (window.start_ns + window.end_ns) // 2
        # The source's own clock does not have the offset, which belongs to frames.
        source_ns = middle_ns if sound else middle_ns - settings.av_offset_ns
        request = snapshots.request(self._stream, label.name, source_ns, utc(middle_ns), sound=sound)
        ids = tuple(change.id for change in begun)
        before_ns, after_ns = round(options.before_s * NS_PER_S), round(options.after_s * NS_PER_S)
        if settings.speech_limit is None:
            if not self._request(request):
                return
        else:
            self._waiting.append(_Waiting(request, middle_ns - before_ns, middle_ns + after_ns, ids))
        self.media |= dict.fromkeys(ids, media_of(options, request))

    def _judge(self, limit: float | None) -> None:
        """Ask for what waits if it is clear, and give it up if somebody speaks."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            verdict = (
                "clear"
                if limit is None or self._speech is None
                else self._speech.verdict(each.begin_ns, each.end_ns, limit)
            )
            if verdict == "wait":
                self._waiting.append(each)
            elif verdict != "clear":
                self._withhold(each.ids, verdict)
            elif not self._request(each.request):
                for event_id in each.ids:
                    self.media.pop(event_id, None)

    def _withhold(self, ids: Sequence[str], why: str) -> None:
        for event_id in ids:
            if event_id in self.media:
                self.media[event_id] = EventMedia(withheld=why)


def media_of(options: SnapshotOptions, request: SnapshotRequest) -> EventMedia:
    """The files that this request will write."""
    clip = snapshots.path(options, request, "flac" if request.sound else "mkv") if options.has_clips else None
    return EventMedia(snapshots.path(options, request, "jpg"), clip)
