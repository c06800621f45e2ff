"""What the daemon publishes of a stream and of itself: messages, values for metrics, the line of `systemctl status`.

It turns values into messages. When they are sent, and to whom, is decided in `daemon`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from perceiverd import __version__
from perceiverd.config import Config
from perceiverd.core.clock import now_ns, utc
from perceiverd.core.labels import Label
from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.event_media import EventMedia, EventMediaKeeper
from perceiverd.daemon.inputs import Inputs
from perceiverd.daemon.progress import Progress
from perceiverd.daemon.telemetry import Counters, LoopCounts, StreamTelemetry, TelemetryFrame
from perceiverd.model.engine import DeviceHealth
from perceiverd.pipeline.tracker import EventChange, EventTracker
from perceiverd.pipeline.windower import Counts, Skew, Window
from perceiverd.sources.process.arrivals import SourceState
from perceiverd.sources.process.restart import RunState
from perceiverd.sources.snapshots.requests import RecentOptions
from perceiverd.sources.specs import name_of
from perceiverd.wire.messages import Event, Explain, Explanation, Hello, Model, Scores, SourceStatus, Status, best
from perceiverd.wire.publisher import Publisher

WORST_FIRST = (RunState.BACKING_OFF, RunState.STALLED, RunState.STARTING, RunState.UP)


def state_of(sources: Sequence[SourceState]) -> RunState:
    """A stream's state: the worst of its sources' states. Those that have ended count only if all have."""
    states = {source.state for source in sources}
    return next((state for state in WORST_FIRST if state in states), RunState.ENDED)


@dataclass(frozen=True, slots=True)
class Identity:
    """What all messages of one run have in common."""

    model: Model
    up_since: datetime
    """When the daemon started."""


class StreamReports:
    """The messages of one stream. It remembers the open events."""

    def __init__(
        self, stream: str, identity: Identity, labels: Sequence[Label], keeper: EventMediaKeeper | None = None
    ) -> None:
        """`keeper` knows the media of the open events; without one, none is kept."""
        self._stream, self._identity, self._labels = stream, identity, labels
        self.keeper = keeper or EventMediaKeeper(stream, labels, lambda _: False)
        self.begin_ns: int | None = None
        """Where stream time begins: the start of the first window."""
        self.begun: Counter[str] = Counter()
        """Events that began, by label name; one that continues another does not count."""
        self._open_since: dict[str, tuple[datetime, datetime]] = {}
        """`start` and `since` of each open event, as published with its begin: the wall clock may be set later."""

    @property
    def open_count(self) -> int:
        """Events that are open."""
        return len(self._open_since)

    def scores(self, window: Window, row: NDArray[np.float32], *, top: int, dropped: int) -> Scores:
        """`row`: (labels,), 0..1; `dropped`: windows since the last scores."""
        return Scores(
            stream=self._stream,
            start=utc(window.start_ns),
            end=utc(window.end_ns),
            start_s=self._stream_s(window.start_ns),
            end_s=self._stream_s(window.end_ns),
            latency_ms=_age_ms(window.end_ns),
            modalities=window.modalities,
            model=self._identity.model,
            labels=best(row, self._labels, top),
            dropped=dropped,
            skew_ms=_mean_ms(window.skew),
            skew_most_ms=_most_ms(window.skew),
            filled_ms=window.filled_ms,
            missing=dict(window.missing),
        )

    def events(self, changes: Iterable[EventChange]) -> list[Event]:
        """The messages of these changes, in their order."""
        return [self._event(change) for change in changes]

    def explain(self, window: Window, tracker: EventTracker, top: int, reused: int) -> Explain:
        """What each label lacks for an event, after the tracker has received the scores of this window."""
        return Explain(
            stream=self._stream,
            start=utc(window.start_ns),
            end=utc(window.end_ns),
            start_s=self._stream_s(window.start_ns),
            end_s=self._stream_s(window.end_ns),
            candidates=tuple(tracker.candidates(top)),
            smoothed=tuple(tracker.smoothed.round(6).tolist()),
            on=tuple(tracker.on.round(6).tolist()),
            suppressed=dict(tracker.suppressed),
            model=self._identity.model,
            filled_ms=window.filled_ms,
            missing=dict(window.missing),
            reused_frames=reused,
        )

    def status(
        self,
        sources: Sequence[SourceState],
        inputs: Inputs,
        progress: Progress,
        counts: Counts,
        *,
        hop_ns: int,
        subscriptions: int,
        at_ns: int,
        recent: RecentOptions | None = None,
        withheld_s: Mapping[str, float] = MappingProxyType({}),
    ) -> Status:
        """The heartbeat of the stream."""
        return Status(
            stream=self._stream,
            time=utc(at_ns),
            state=state_of(sources),
            sources=tuple(_source_status(source, inputs.stalls_of(source.position)) for source in sources),
            data_age_s=min((each.data_age_s for each in sources if each.data_age_s is not None), default=None),
            windows=progress.tagged,
            dropped=progress.dropped,
            late=counts.late,
            gaps=counts.gaps,
            subscriptions=subscriptions,
            up_since=self._identity.up_since,
            model=self._identity.model,
            hop_s=progress.hop_s(hop_ns),
            skew_ms=_mean_ms(progress.skew),
            skew_most_ms=_most_ms(progress.skew),
            level_dbfs=None if progress.level_dbfs is None else round(progress.level_dbfs, 1),
            filled_s={modality: round(filled_ns / NS_PER_S, 3) for modality, filled_ns in counts.filled_ns.items()},
            missing={
                modality: {str(reason): n for reason, n in each.items()} for modality, each in counts.missing.items()
            },
            recent_sound=None if recent is None else recent.directory,
            recent_s=_recent_s(sources, withheld_s),
        )

    def counters(self, sources: Sequence[SourceState], progress: Progress, suppressed: Mapping[str, int]) -> Counters:
        """What metrics and probes need beside the status."""
        return Counters(
            sent_ns=progress.sent_ns,
            latency=progress.latency.frozen(),
            events=dict(self.begun),
            events_open=self.open_count,
            suppressed=dict(suppressed),
            losses=tuple(f"waits for {each.waiting_for}" if each.waiting_for else each.detail for each in sources),
        )

    def _event(self, change: EventChange) -> Event:
        label = self._labels[change.index]
        if change.kind == "begin":
            self.begun[label.name] += change.continues is None
            self._open_since[change.id] = utc(change.start_ns), utc(change.since_ns)
        start, since = self._open_since[change.id]
        media = self.keeper.media.get(change.id, EventMedia())
        if change.kind == "end":
            del self._open_since[change.id]
            self.keeper.ended(change.id)
        return Event(
            stream=self._stream,
            kind=change.kind,
            id=change.id,
            mid=label.mid,
            index=label.index,
            name=label.name,
            start=start,
            end=utc(change.end_ns),
            start_s=self._stream_s(change.start_ns),
            end_s=self._stream_s(change.end_ns),
            duration_s=(change.end_ns - change.start_ns) / NS_PER_S,
            peak=round(change.peak, 6),
            mean=round(change.mean, 6),
            modalities=change.modalities,
            continues=change.continues,
            explanation=Explanation(
                score=round(change.smoothed, 6),
                on=round(change.on, 6),
                off=round(change.off, 6),
                windows=change.windows,
                since=since,
                reason=change.reason,
            ),
            latency_ms=_age_ms(change.decided_ns),
            model=self._identity.model,
            snapshot=media.snapshot,
            clip=media.clip,
            withheld=media.withheld,
        )

    def _stream_s(self, time_ns: int) -> float:
        """A media time in seconds of stream time."""
        return (time_ns - (self.begin_ns or 0)) / NS_PER_S


def disabled(name: str, sources: Sequence[str], identity: Identity, at_ns: int) -> Status:
    """The status of a stream that the configuration switches off; `sources` are their names."""
    return Status(
        stream=name,
        time=utc(at_ns),
        state=RunState.DISABLED,
        sources=tuple(
            SourceStatus(source=source, state=RunState.DISABLED, data_age_s=None, restarts={}, dropped=0)
            for source in sources
        ),
        data_age_s=None,
        windows=0,
        dropped=0,
        late=0,
        gaps=0,
        subscriptions=0,
        up_since=identity.up_since,
        model=identity.model,
    )


def all_disabled(config: Config, identity: Identity, at_ns: int) -> list[Status]:
    """The statuses of all streams that the configuration switches off."""
    return [
        disabled(name, [name_of(source) for source in stream.sources], identity, at_ns)
        for name, stream in config.streams.items()
        if not stream.enabled
    ]


def hello(config: Config, streams: Iterable[str], identity: Identity) -> Hello:
    """What each new subscriber receives first; `streams` are the enabled ones."""
    return Hello(
        version=__version__,
        streams=tuple(streams),
        model=identity.model,
        hop_s=config.window.hop_s,
        status_interval_s=config.publish.status_interval_s,
        up_since=identity.up_since,
        disabled=tuple(name for name, stream in config.streams.items() if not stream.enabled),
    )


def telemetry_frame(
    streams: Mapping[str, StreamTelemetry],
    identity: Identity,
    counts: LoopCounts,
    publisher: Publisher,
    *,
    recent_ns: int,
    at_ns: int,
    device: DeviceHealth | None = None,
) -> TelemetryFrame:
    """The telemetry for the HTTP thread."""
    return TelemetryFrame(
        at_ns=at_ns,
        version=__version__,
        model=identity.model.name,
        sha256=identity.model.sha256,
        recent_ns=recent_ns,
        streams=streams,
        inference=counts.inference.frozen(),
        inference_cpu_s=counts.inference_cpu_s,
        subscriptions=publisher.subscriptions,
        subscribers=len(publisher.registry),
        missed=publisher.registry.missed,
        overflows=publisher.overflows,
        refused=publisher.refused,
        suspends=counts.suspends,
        device=device,
    )


def summary(streams: Sequence[tuple[RunState, Progress]]) -> str:
    """One line for `systemctl status`."""
    counts = Counter(str(state) for state, _ in streams)
    states = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    lags_s = [each.lag_s for state, each in streams if state is RunState.UP and each.lag_s is not None]
    lag = f"lag {max(lags_s):.2f} s" if lags_s else "no lag known"
    tagged, dropped = sum(each.tagged for _, each in streams), sum(each.dropped for _, each in streams)
    return f"streams: {states}; {lag}; {tagged} windows tagged, {dropped} dropped"


def _recent_s(sources: Sequence[SourceState], withheld_s: Mapping[str, float]) -> dict[str, float]:
    written_s = round(sum(source.recent_s for source in sources), 3)
    return ({"written": written_s} if written_s else {}) | dict(withheld_s)


def _source_status(source: SourceState, stalls: tuple[str, ...]) -> SourceStatus:
    timing = source.timing
    return SourceStatus(
        source=source.source,
        state=source.state,
        data_age_s=source.data_age_s,
        restarts={str(reason): count for reason, count in source.losses.items()},
        dropped=source.dropped,
        stalls=stalls,
        drift_ppm=None if timing is None else timing.drift_ppm,
        jitter_ms=None if timing is None else round(timing.jitter_ms, 3),
        steps=0 if timing is None else timing.steps,
        snapshots=source.snapshots,
        snapshots_failed=source.snapshots_failed,
        overflows=0 if timing is None else timing.overflows,
        waiting_for=source.waiting_for,
    )


def _age_ms(time_ns: int) -> float:
    return round((now_ns() - time_ns) / 1e6, 1)


def _mean_ms(skew: Skew | None) -> float | None:
    return None if skew is None else round(skew.mean_ns / 1e6, 3)


def _most_ms(skew: Skew | None) -> float | None:
    return None if skew is None else round(skew.most_ns / 1e6, 3)
