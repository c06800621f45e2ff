"""What the daemon knows of one stream: the windows that wait for the network, its counts, and what is said of it.

It takes what it is given and says what is so; it owns no socket, process or loop.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from perceiverd.core.clock import now_ns, utc
from perceiverd.core.labels import Label
from perceiverd.core.logs import LogLimit
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media
from perceiverd.daemon.telemetry import Histogram, SourceReading, StreamReading, latencies, level_dbfs
from perceiverd.pipeline import stalls
from perceiverd.pipeline.rules import Rules
from perceiverd.pipeline.tracker import EventChange, EventTracker
from perceiverd.pipeline.windower import Skew, Window, Windower
from perceiverd.sources.process.arrivals import Arrival, Modality, SourceState
from perceiverd.sources.process.restart import Reason, RunState
from perceiverd.wire import messages
from perceiverd.wire.messages import Event, Explain, Explanation, Scores, SourceStatus, Status, best

logger = logging.getLogger(__name__)

DROPS_LOGGED_EVERY_NS = 60 * NS_PER_S
LATELY = 20
"""Windows over which is told how far the hop is stretched."""
WORST_FIRST = (RunState.BACKING_OFF, RunState.STALLED, RunState.STARTING, RunState.UP)


def state_of(sources: Sequence[SourceState]) -> RunState:
    """A stream's state: the worst of its sources'; those that have ended count only when all have."""
    there = {source.state for source in sources}
    return next((state for state in WORST_FIRST if state in there), RunState.ENDED)


def known_down(sources: Sequence[SourceState]) -> bool:
    """Whether each of its sources has been lost already, or is over: no window can be hoped for soon."""
    return all(source.losses or source.state in (RunState.STALLED, RunState.ENDED) for source in sources)


@dataclass(slots=True)
class StreamState:
    """One stream, as long as the daemon watches it."""

    name: str
    windower: Windower
    tracker: EventTracker
    givers: dict[Modality, set[int]] = field(default_factory=dict)
    """The sources that give each modality now, by their positions; the first that does not stand still is heeded."""
    av_offset_ns: int = 0
    """Is added to the times of pictures."""
    replayed: frozenset[int] = frozenset()
    """The positions of files, which may hold still as they like."""
    limits: stalls.StallLimits = field(default_factory=lambda: stalls.StallLimits(0, 0))
    stalled: set[tuple[int, Modality]] = field(default_factory=set)
    """Sources, by their positions, of which that comes and yet is nothing."""
    due: list[Window] = field(default_factory=list)
    """Cut and not yet tagged, oldest first."""
    begin_ns: int | None = None
    """Where stream time begins: the start of the first window."""
    flushed: bool = False
    tagged: int = 0
    dropped: int = 0
    untold: int = 0
    """Windows dropped since the last scores."""
    overtaken: deque[int] = field(default_factory=lambda: deque(maxlen=LATELY))
    """How many windows were dropped before each of those tagged lately."""
    logged_dropped: int = 0
    logged_ns: int = -DROPS_LOGGED_EVERY_NS
    up_ns: int | None = None
    """Since when all its sources are up."""
    excused_ns: int = -(1 << 62)
    """When it last had a reason to give no window: a gap, or a stall that still delivers."""
    sent_ns: int | None = None
    """When its last scores were sent."""
    lag_s: float | None = None
    """Seconds from the capture of the last window's end to the publishing of its scores."""
    latency: Histogram = field(default_factory=latencies)
    """Seconds from the capture of a window's end to the publishing of its scores."""
    sound_dbfs: float | None = None
    """Level of the last window's sound; None where it had none."""
    skew: Skew | None = None
    """Of the last window; None where it lacked sound or pictures."""
    begun: Counter[str] = field(default_factory=Counter)
    """Events that began, by the mids of their labels; one that goes on from another is not another."""
    open_since: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    """Start and `since` of each open event, as they were told with its begin; the wall clock may be set meanwhile."""
    snapshots: dict[str, str] = field(default_factory=dict)
    """The file with a picture of each open event that has one, by its id."""
    _line: dict[Modality, int] = field(default_factory=dict)
    """The source whose sound or pictures the windower had last."""
    _twice: set[tuple[Modality, str]] = field(default_factory=set)
    """What the log has said of sources that give the same."""
    _watches: dict[tuple[int, Modality], stalls.FrozenVideoDetector | stalls.DeadAudioDetector] = field(
        default_factory=dict
    )
    _remedies: dict[int, stalls.RestartSchedule] = field(default_factory=dict)
    _log_limit: LogLimit = field(default_factory=LogLimit)
    _gaps: int = 0

    def heeds(self, modality: Modality, arrival: Arrival) -> bool:
        """Whether this source's sound or pictures count: two cameras' pictures would make no window."""
        givers = self.givers.setdefault(modality, set())
        if arrival.position not in givers:
            givers.add(arrival.position)
            told = ",".join(map(str, sorted(givers)))
            # Once: a source that comes and goes for a year must not fill a disk.
            if len(givers) > 1 and (modality, told) not in self._twice:
                self._twice.add((modality, told))
                logger.warning(
                    "given-twice stream=%s modality=%s sources=%s heeded=%d",
                    *(arrival.stream, modality, told, self._heeded(modality)),
                )
        return arrival.position == self._heeded(modality)

    def _heeded(self, modality: Modality) -> int:
        """The first of those that give something; where all stand still, the first."""
        givers = self.givers[modality]
        return min(givers - {position for position, stands in self.stalled if stands == modality} or givers)

    def lost(self, position: int) -> None:
        """The source at this position gives nothing any more: others that give the same are heeded meanwhile."""
        for givers in self.givers.values():
            givers.discard(position)

    def torn(self, modality: Modality, position: int) -> None:
        """What this source gives next does not follow on what came before; of no concern where another is heeded."""
        if self._line.get(modality) == position:
            self.windower.gap(modality)

    def exchanged(self, position: int) -> None:
        """The source at this position is another now: what it gives does not follow on what came before."""
        for modality in self.givers:
            self.torn(modality, position)
        self.lost(position)
        self._twice.clear()
        self.flushed = False
        for known in (self._watches, self.stalled):
            for key in [key for key in known if key[0] == position]:
                known.pop(key) if isinstance(known, dict) else known.discard(key)
        self._remedies.pop(position, None)

    def hear(self, modality: Modality, arrival: Arrival, item: Media) -> None:
        """A frame or chunk of a source came: take the windows that it completes, unless it stands still."""
        position = arrival.position
        # One that stands still is watched though another is heeded meanwhile, or it would never be known to be well.
        if not self.heeds(modality, arrival) and (position, modality) not in self.stalled:
            self._watches.pop((position, modality), None)  # it may move unseen from here on
            return
        if self._stands(modality, position, item) or not self.heeds(modality, arrival):
            return
        if self._line.setdefault(modality, position) != position:
            self.windower.gap(modality)
            self._line[modality] = position
        if isinstance(item, Frame) and self.av_offset_ns:
            item = replace(item, start_ns=item.start_ns + self.av_offset_ns)
        self.take(self.windower.push(item))

    def _stands(self, modality: Modality, position: int, item: Media) -> bool:
        """Whether this source's picture is frozen, or its sound is dead. What tells so tears the line."""
        if position in self.replayed:
            return False
        key = position, modality
        if key not in self._watches:
            self._watches[key] = stalls.FrozenVideoDetector() if modality == "video" else stalls.DeadAudioDetector()
        match self._watches[key], item:
            case (stalls.FrozenVideoDetector() as picture, Frame()):
                stands = picture.stalls(item, self.limits)
            case (stalls.DeadAudioDetector() as sound, Chunk()):
                stands = sound.stalls(item, self.limits)
            case _:
                raise AssertionError(f"{modality} is no {type(item).__name__}")
        if stands != (key in self.stalled):
            self._turned(key, stands, item.start_ns)
        return stands

    def _turned(self, key: tuple[int, Modality], stands: bool, at_ns: int) -> None:
        position, modality = key
        if stands:
            self.stalled.add(key)
            self.torn(modality, position)
        else:
            self.stalled.discard(key)
        if (suppressed := self._log_limit.admit(at_ns)) is not None:
            logger.log(
                logging.WARNING if stands else logging.INFO,
                "%s stream=%s source=%d counts_as_missing=%s suppressed=%d",
                self._watches[key].name.replace(" ", "-"),
                *(self.name, position, str(stands).lower(), suppressed),
            )

    def frozen_due(self, position: int, now: int) -> bool:
        """Whether this source, whose picture is frozen, is to be started again now; to be asked in every turn."""
        remedy = self._remedies.setdefault(position, stalls.RestartSchedule())
        return remedy.due(now, self.limits, frozen=(position, "video") in self.stalled)

    def _gives(self, source: SourceState) -> bool:
        """Whether something comes of it that isn't nothing."""
        if source.state is not RunState.UP:
            return False
        given = {modality for modality, givers in self.givers.items() if source.position in givers}
        return not given or any((source.position, modality) not in self.stalled for modality in given)

    def stalls_of(self, position: int) -> tuple[str, ...]:
        """What of this source comes and yet is nothing, in words."""
        return tuple(sorted(self._watches[key].name for key in self.stalled if key[0] == position))

    def take(self, windows: list[Window]) -> None:
        if windows and self.begin_ns is None:
            self.begin_ns = windows[0].start_ns
        self.due += windows

    def drop_overtaken(self) -> None:
        """Keep only the newest window that is due; all of them, once nothing new can come."""
        if not self.flushed and len(self.due) > 1:
            self.dropped += len(self.due) - 1
            self.untold += len(self.due) - 1
            del self.due[:-1]

    def sent(self, window: Window, now: int) -> None:
        """The scores of this window went out."""
        self.overtaken.append(self.untold)
        self.tagged, self.untold, self.sent_ns = self.tagged + 1, 0, now
        self.lag_s = (now - window.end_ns) / NS_PER_S
        self.latency.add(self.lag_s)
        self.sound_dbfs = None if window.audio is None else level_dbfs(window.audio)
        self.skew = window.skew

    @property
    def hop_s(self) -> float | None:
        """From one tagged window to the next lately, where the hop is stretched by those dropped; None before any."""
        if not self.overtaken:
            return None
        return self.windower.hop_ns / NS_PER_S * (1 + sum(self.overtaken) / len(self.overtaken))

    def note(self, state: RunState, now: int) -> None:
        """Hear how its sources are, in every turn."""
        stalls = any(givers and (self._heeded(each), each) in self.stalled for each, givers in self.givers.items())
        if stalls or self.windower.counts.gaps != self._gaps:
            self._gaps, self.excused_ns = self.windower.counts.gaps, now
        if state is not RunState.UP:
            self.up_ns = None
        elif self.up_ns is None:
            self.up_ns = now

    def progressing(self, now: int, lately_ns: int) -> bool:
        """False where it is up, and has shown that it can give windows, and yet none was sent lately.

        A camera that gives less than a picture a second at night, each a gap, has an excuse.
        """
        if self.up_ns is None or self.sent_ns is None:
            return True
        return now - max(self.up_ns, self.sent_ns, self.excused_ns) < lately_ns

    def log_drops(self, now: int) -> None:
        new = self.dropped - self.logged_dropped
        if new and now - self.logged_ns >= DROPS_LOGGED_EVERY_NS:
            logger.warning(
                "windows-dropped stream=%s count=%d tagged=%d hop_s=%.2f", self.name, new, self.tagged, self.hop_s or 0
            )
            self.logged_dropped, self.logged_ns = self.dropped, now

    def stream_s(self, time_ns: int) -> float:
        """A time in seconds of stream time."""
        return (time_ns - (self.begin_ns or 0)) / NS_PER_S

    # What is said of it.

    def events(self, window: Window, row: NDArray[np.float32], model: messages.Model) -> list[Event]:
        """What events begin, go on or end with the scores of this window."""
        changes = self.tracker.track(row, window.start_ns, window.end_ns, window.modalities)
        return self._events(changes, model)

    def events_over(self, sources: Sequence[SourceState], model: messages.Model) -> list[Event]:
        """The ends of all events, where the stream is lost or has ended, and its last window is out."""
        if self.due or not self.tracker.tracking or any(self._gives(source) for source in sources):
            return []
        return self.end_events("stream ended" if state_of(sources) is RunState.ENDED else "stream lost", model)

    def end_events(self, reason: str, model: messages.Model) -> list[Event]:
        return self._events(self.tracker.end(reason), model)

    def slept(self, slept_ns: int, model: messages.Model) -> list[Event]:
        """The machine was suspended: the ends of the open events, told by the wall clock as it went until then.

        What was seen and heard before can't be told its time any more, and what comes next does not follow on it.
        """
        self.windower.gap("audio")
        self.windower.gap("video")
        self.dropped, self.untold = self.dropped + len(self.due), self.untold + len(self.due)
        self.due.clear()
        late = timedelta(microseconds=slept_ns // 1000)
        return [msgspec.structs.replace(event, end=event.end - late) for event in self.end_events("gap", model)]

    def change_rules(self, rules: Rules, model: messages.Model) -> list[Event]:
        """Go by other rules from now on; the ends of the events that were open by the old ones."""
        return self._events(self.tracker.change(rules), model)

    def _events(self, changes: Iterable[EventChange], model: messages.Model) -> list[Event]:
        return [self._event(change, model) for change in changes]

    def _event(self, change: EventChange, model: messages.Model) -> Event:
        label = self.tracker.labels[change.index]
        if change.kind == "begin":
            self.begun[label.mid] += change.continues is None
            self.open_since[change.id] = utc(change.start_ns), utc(change.since_ns)
        start, since = self.open_since[change.id]
        snapshot = self.snapshots.get(change.id)
        if change.kind == "end":
            del self.open_since[change.id]
            self.snapshots.pop(change.id, None)
        return Event(
            stream=self.name,
            kind=change.kind,
            id=change.id,
            mid=label.mid,
            index=label.index,
            name=label.name,
            start=start,
            end=utc(change.end_ns),
            start_s=self.stream_s(change.start_ns),
            end_s=self.stream_s(change.end_ns),
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
            latency_ms=round((now_ns() - change.told_ns) / 1e6, 1),
            model=model,
            snapshot=snapshot,
        )

    def explain(self, window: Window, top: int, model: messages.Model) -> Explain:
        """What the labels lack for an event, after this window's scores were tracked."""
        return Explain(
            stream=self.name,
            start=utc(window.start_ns),
            end=utc(window.end_ns),
            start_s=self.stream_s(window.start_ns),
            end_s=self.stream_s(window.end_ns),
            candidates=tuple(self.tracker.candidates(top)),
            smoothed=tuple(self.tracker.smoothed.round(6).tolist()),
            on=tuple(self.tracker.on.round(6).tolist()),
            suppressed=dict(self.tracker.suppressed),
            model=model,
        )

    def scores(
        self, window: Window, row: NDArray[np.float32], labels: Sequence[Label], top: int, model: messages.Model
    ) -> Scores:
        return Scores(
            stream=self.name,
            start=utc(window.start_ns),
            end=utc(window.end_ns),
            start_s=self.stream_s(window.start_ns),
            end_s=self.stream_s(window.end_ns),
            latency_ms=round((now_ns() - window.end_ns) / 1e6, 1),
            modalities=window.modalities,
            model=model,
            labels=best(row, labels, top),
            dropped=self.untold,
            skew_ms=_ms(window.skew.mean_ns) if window.skew else None,
            skew_most_ms=_ms(window.skew.most_ns) if window.skew else None,
        )

    def status(
        self, sources: Sequence[SourceState], now: int, subscriptions: int, up_since: datetime, model: messages.Model
    ) -> Status:
        counts = self.windower.counts
        return Status(
            stream=self.name,
            time=utc(now),
            state=state_of(sources),
            sources=tuple(
                SourceStatus(
                    source=each.source,
                    state=each.state,
                    data_age_s=each.data_age_s,
                    restarts={str(reason): count for reason, count in each.losses.items()},
                    dropped=each.dropped,
                    stalls=self.stalls_of(each.position),
                    drift_ppm=None if each.timing is None else each.timing.drift_ppm,
                    jitter_ms=None if each.timing is None else round(each.timing.jitter_ms, 3),
                    steps=0 if each.timing is None else each.timing.steps,
                    snapshots=each.snapshots,
                    snapshots_failed=each.snapshots_failed,
                    overflows=0 if each.timing is None else each.timing.overflows,
                )
                for each in sources
            ),
            data_age_s=min((each.data_age_s for each in sources if each.data_age_s is not None), default=None),
            windows=self.tagged,
            dropped=self.dropped,
            late=counts.late,
            gaps=counts.gaps,
            subscriptions=subscriptions,
            up_since=up_since,
            model=model,
            hop_s=self.hop_s,
            skew_ms=_ms(self.skew.mean_ns) if self.skew else None,
            skew_most_ms=_ms(self.skew.most_ns) if self.skew else None,
            level_dbfs=None if self.sound_dbfs is None else round(self.sound_dbfs, 1),
        )

    def reading(self, sources: Sequence[SourceState], now: int) -> StreamReading:
        counts = self.windower.counts
        return StreamReading(
            state=state_of(sources),
            sources=tuple(
                SourceReading(
                    each.state,
                    each.detail,
                    None if each.data_age_s is None else now - round(each.data_age_s * NS_PER_S),
                    {reason: each.losses.get(reason, 0) for reason in get_args(Reason)},
                    each.dropped,
                    self.stalls_of(each.position),
                    None if each.timing is None else each.timing.drift_ppm,
                    None if each.timing is None else each.timing.jitter_ms / 1000,
                    0 if each.timing is None else each.timing.steps,
                    0 if each.timing is None else each.timing.overflows,
                )
                for each in sources
            ),
            sent_ns=self.sent_ns,
            tagged=self.tagged,
            dropped=self.dropped,
            late=counts.late,
            gaps=counts.gaps,
            latency=self.latency.frozen(),
            sound_dbfs=self.sound_dbfs,
            events={label.name: self.begun[label.mid] for label in self.tracker.labels if label.mid in self.begun},
            open=len(self.open_since),
            suppressed=dict(self.tracker.suppressed),
            hop_s=self.hop_s,
            skew_s=None if self.skew is None else self.skew.mean_ns / NS_PER_S,
            skew_most_s=None if self.skew is None else self.skew.most_ns / NS_PER_S,
        )


def disabled(name: str, sources: Sequence[str], now: int, up_since: datetime, model: messages.Model) -> Status:
    """The status of a stream that is configured and switched off."""
    return Status(
        stream=name,
        time=utc(now),
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
        up_since=up_since,
        model=model,
    )


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
