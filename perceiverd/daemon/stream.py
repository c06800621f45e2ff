"""The state of one stream: from arriving media to due windows, and from a window's scores to messages.

It owns no socket, no process and no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.clock import now_ns
from perceiverd.core.media import Media
from perceiverd.daemon.event_media import EventMediaKeeper
from perceiverd.daemon.inputs import Inputs
from perceiverd.daemon.losses import LossLog
from perceiverd.daemon.progress import Progress
from perceiverd.daemon.recent_sound import RecentSound
from perceiverd.daemon.reports import Identity, StreamReports, state_of
from perceiverd.daemon.settings import StreamSettings
from perceiverd.daemon.telemetry import StreamTelemetry
from perceiverd.model.geometry import Geometry
from perceiverd.pipeline.rules import Rules
from perceiverd.pipeline.tracker import EventTracker
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.sources.process.arrivals import Modality, SourceState
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.snapshots.requests import MediaRequest
from perceiverd.wire.messages import Event, Message, Status


def known_down(sources: Sequence[SourceState]) -> bool:
    """Whether each source was lost, waits for a writer, or has ended: no window is to be expected soon."""
    return all(
        source.losses or source.waiting_for or source.state in (RunState.STALLED, RunState.ENDED) for source in sources
    )


class StreamState:
    """One stream, as long as the daemon watches it."""

    def __init__(
        self,
        name: str,
        geometry: Geometry,
        rules: Rules,
        settings: StreamSettings,
        identity: Identity,
        request_media: Callable[[MediaRequest], bool] = lambda _: False,
    ) -> None:
        """`request_media` has a source write a snapshot or recent sound; it returns False if none can."""
        self.name = name
        self.windower = Windower(geometry, settings.hop_ns, settings.tolerance)
        self.tracker = EventTracker(rules)
        self.inputs = Inputs(name, self.windower, settings)
        self.progress = Progress()
        self._losses = LossLog(name)
        keeper = EventMediaKeeper(name, self.tracker.labels, request_media)
        self._recent = RecentSound(self.tracker.labels, request_media)
        self.reports = StreamReports(name, identity, self.tracker.labels, keeper)
        self.due: list[Window] = []
        """Windows that were cut and not tagged yet, oldest first."""
        self.flushed = False
        """Whether all sources have ended and the last windows were cut."""
        self._settings = settings

    # Media in, windows out.

    def receive(self, position: int, item: Media) -> None:
        """A frame or chunk of the source at this position."""
        self._add(self.inputs.receive(position, item))

    def gap(self, modalities: Sequence[Modality], position: int) -> None:
        """The next media of this source does not follow on its last."""
        for modality in modalities:
            self.inputs.gap(modality, position)

    def flush(self) -> None:
        """All sources have ended: cut the windows that are left. Harmless when repeated."""
        if not self.flushed:
            self._add(self.windower.flush())
            self.flushed = True

    def next_window(self) -> Window | None:
        """The window to tag now; None if none is due. A live stream drops all but the newest, and counts them."""
        if not self.flushed and len(self.due) > 1:
            self.progress.drop(len(self.due) - 1)
            del self.due[:-1]
        return self.due.pop(0) if self.due else None

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended and its last window was tagged."""
        return self.flushed and not self.due

    # Scores in, messages out.

    def tagged(
        self, window: Window, row: NDArray[np.float32], *, explain: bool = False, reused: int = 0
    ) -> list[Message]:
        """The messages that a window brings with its scores (labels,), 0..1, in the order in which to send them.

        Scores first, then events, then `Explain` if it is wanted. `reused` is `Explain.reused_frames`.
        """
        scores = self.reports.scores(window, row, top=self._settings.top, dropped=self.progress.dropped_since)
        changes = self.tracker.track(row, window.start_ns, window.end_ns, window.modalities)
        self.reports.keeper.tagged(window, row, changes, self._settings)
        self._recent.tagged(window, row, self._settings)
        messages: list[Message] = [scores, *self.reports.events(changes)]
        if explain:
            messages.append(self.reports.explain(window, self.tracker, self._settings.top, reused))
        self.progress.sent(window, now_ns())
        return messages

    def events_over(self, sources: Sequence[SourceState]) -> list[Event]:
        """The ends of all events, if no source delivers any more and the last window was tagged."""
        if self.due or not self.tracker.tracking or any(self.inputs.delivers(source) for source in sources):
            return []
        return self.end_events("stream ended" if state_of(sources) is RunState.ENDED else "stream lost")

    def end_events(self, reason: str) -> list[Event]:
        """The ends of all open events."""
        self.reports.keeper.stop()
        self._recent.stop(self._settings)
        return self.reports.events(self.tracker.end(reason))

    def suspended(self, slept_ns: int) -> list[Event]:
        """The machine was suspended: the ends of the open events, by the wall clock of the time before.

        Windows that are due are dropped, because their media times have no UTC time any more. The media that follows
        does not continue the media before.
        """
        self.windower.gap("audio")
        self.windower.gap("video")
        self._recent.forget()
        self.progress.drop(len(self.due))
        self.due.clear()
        late = timedelta(microseconds=slept_ns // 1000)
        return [msgspec.structs.replace(event, end=event.end - late) for event in self.end_events("gap")]

    # In every turn.

    def update(self, sources: Sequence[SourceState], now_ns: int) -> None:
        """Record the condition of the sources."""
        gaps, stalled = self.windower.counts.gaps, self.inputs.is_active_stalled
        self.progress.update(state_of(sources), now_ns, gaps=gaps, stalled=stalled)

    def log_losses(self, now_ns: int) -> None:
        """Log the windows that were dropped since the last line, and what windows lack."""
        self._losses.log(self.windower.counts, now_ns)
        self.progress.log_drops(self.name, self.progress.hop_s(self.windower.hop_ns), now_ns)

    def status(self, sources: Sequence[SourceState], *, subscriptions: int, at_ns: int) -> Status:
        """The heartbeat of the stream."""
        return self.reports.status(
            sources,
            self.inputs,
            self.progress,
            self.windower.counts,
            hop_ns=self.windower.hop_ns,
            subscriptions=subscriptions,
            at_ns=at_ns,
            recent=self._settings.recent,
            withheld_s=self._recent.withheld_s,
        )

    def telemetry(self, sources: Sequence[SourceState], status: Status) -> StreamTelemetry:
        """The same for metrics and probes."""
        return StreamTelemetry(status, self.reports.counters(sources, self.progress, self.tracker.suppressed))

    # What a reload changes.

    def configure(self, settings: StreamSettings) -> None:
        """Use these settings from now on."""
        self._settings = settings
        self.inputs.configure(settings)
        self.windower.tune(settings.hop_ns, settings.tolerance)

    def change_rules(self, rules: Rules) -> list[Event]:
        """Use these rules from now on; the ends of the events that were open."""
        return self.reports.events(self.tracker.change(rules))

    def exchanged(self, position: int) -> None:
        """Another source has taken this position."""
        self.inputs.exchanged(position)
        self.flushed = False

    def _add(self, windows: list[Window]) -> None:
        if windows and self.reports.begin_ns is None:
            self.reports.begin_ns = windows[0].start_ns
        self.due += windows
