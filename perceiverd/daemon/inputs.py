"""The sources of one stream: which one is active in each modality, and which ones are stalled.

If two sources give the same modality, only the first one that delivers is active: a window cannot mix two cameras. It
knows no processes and no messages.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from perceiverd.core.logs import LogLimit, log_event
from perceiverd.core.media import Chunk, Frame, Media
from perceiverd.daemon.settings import StreamSettings
from perceiverd.pipeline.stalls import DeadAudioDetector, FrozenVideoDetector, RestartSchedule
from perceiverd.pipeline.still import StillFilter
from perceiverd.pipeline.windower import Window, Windower
from perceiverd.sources.process.arrivals import Modality, SourceState
from perceiverd.sources.process.restart import RunState

logger = logging.getLogger("perceiverd.daemon")

Input = tuple[int, Modality]
"""The position of a source, and one of its modalities."""


class Inputs:
    """Passes media of the active sources to the windower."""

    def __init__(self, stream: str, windower: Windower, settings: StreamSettings) -> None:
        self._stream, self._windower, self._settings = stream, windower, settings
        self._delivering: dict[Modality, set[int]] = {}
        """The positions of the sources that deliver each modality."""
        self._last: dict[Modality, int] = {}
        """The position of the source whose media the windower received last."""
        self._stalled: set[Input] = set()
        self._detectors: dict[Input, FrozenVideoDetector | DeadAudioDetector] = {}
        self._schedules: dict[int, RestartSchedule] = {}
        self._overlaps: set[tuple[Modality, str]] = set()
        """Sources of the same modality that the log has named."""
        self._log_limit = LogLimit()
        self._still = StillFilter(settings.still_levels)

    def configure(self, settings: StreamSettings) -> None:
        """Use these settings from now on. Another offset is a gap in the video."""
        if settings.av_offset_ns != self._settings.av_offset_ns:
            self._windower.gap("video")
        self._settings = settings
        self._still.levels = settings.still_levels

    def receive(self, position: int, item: Media) -> list[Window]:
        """Pass on a frame or chunk, unless its source is stalled or not active; the windows that are due with it."""
        modality: Modality = "video" if isinstance(item, Frame) else "audio"
        active = self._add(modality, position)
        # We watch a stalled source even while another is active: otherwise we would never see that it is well again.
        if not active and (position, modality) not in self._stalled:
            self._detectors.pop((position, modality), None)  # from here on we do not see whether it moves
            return []
        if self._is_stalled(modality, position, item) or position != self._active(modality):
            return []
        if self._last.setdefault(modality, position) != position:
            self._windower.gap(modality)
            self._last[modality] = position
        if isinstance(item, Frame):
            item = self._still.settle(replace(item, start_ns=item.start_ns + self._settings.av_offset_ns))
        return self._windower.push(item)

    def gap(self, modality: Modality, position: int) -> None:
        """The next media of this source does not follow on its last. This changes nothing if another is active."""
        if self._last.get(modality) == position:
            self._windower.gap(modality)

    def lost(self, position: int) -> None:
        """This source delivers nothing any more. Others that give the same modality take its place."""
        for positions in self._delivering.values():
            positions.discard(position)

    def exchanged(self, position: int) -> None:
        """Another source has taken this position. Its media does not follow on the media before."""
        for modality in self._delivering:
            self.gap(modality, position)
        self.lost(position)
        self._overlaps.clear()
        for key in [key for key in self._detectors if key[0] == position]:
            del self._detectors[key]
        self._stalled = {key for key in self._stalled if key[0] != position}
        self._schedules.pop(position, None)

    @property
    def is_active_stalled(self) -> bool:
        """Whether an active source is stalled."""
        return any(
            positions and (self._active(modality), modality) in self._stalled
            for modality, positions in self._delivering.items()
        )

    def stalls_of(self, position: int) -> tuple[str, ...]:
        """What is stalled of this source: `frozen picture`, `dead silence`."""
        return tuple(sorted(self._detectors[key].name for key in self._stalled if key[0] == position))

    def delivers(self, source: SourceState) -> bool:
        """Whether the source is up and at least one of its modalities is not stalled."""
        if source.state is not RunState.UP:
            return False
        delivered = {modality for modality, positions in self._delivering.items() if source.position in positions}
        return not delivered or any((source.position, modality) not in self._stalled for modality in delivered)

    def restart_due(self, position: int, now_ns: int) -> bool:
        """Whether to restart this source now because its video is frozen. Call it in every turn."""
        schedule = self._schedules.setdefault(position, RestartSchedule())
        return schedule.due(now_ns, self._settings.limits, frozen=(position, "video") in self._stalled)

    def _add(self, modality: Modality, position: int) -> bool:
        """This source delivers the modality; whether it is active."""
        positions = self._delivering.setdefault(modality, set())
        if position not in positions:
            positions.add(position)
            self._log_overlap(modality, ",".join(map(str, sorted(positions))))
        return position == self._active(modality)

    def _active(self, modality: Modality) -> int:
        """The first source that delivers the modality and is not stalled; the first of all if all are stalled."""
        positions = self._delivering[modality]
        return min(positions - {position for position, each in self._stalled if each == modality} or positions)

    def _log_overlap(self, modality: Modality, sources: str) -> None:
        # Once: a source that comes and goes for a year must not fill a disk.
        if "," in sources and (modality, sources) not in self._overlaps:
            self._overlaps.add((modality, sources))
            log_event(
                logger,
                logging.WARNING,
                "sources-overlap",
                stream=self._stream,
                modality=modality,
                sources=sources,
                active=self._active(modality),
            )

    def _is_stalled(self, modality: Modality, position: int, item: Media) -> bool:
        """Check the next media of a source. A source that becomes stalled leaves a gap."""
        if position in self._settings.replayed:
            return False
        key = position, modality
        if key not in self._detectors:
            self._detectors[key] = FrozenVideoDetector() if modality == "video" else DeadAudioDetector()
        match self._detectors[key], item:
            case (FrozenVideoDetector() as video, Frame()):
                stalled = video.stalls(item, self._settings.limits)
            case (DeadAudioDetector() as audio, Chunk()):
                stalled = audio.stalls(item, self._settings.limits)
            case _:
                raise AssertionError(f"{modality} is no {type(item).__name__}")
        if stalled != (key in self._stalled):
            self._turn(key, stalled, item.start_ns)
        return stalled

    def _turn(self, key: Input, stalled: bool, at_ns: int) -> None:
        """A source becomes stalled, or is well again."""
        position, modality = key
        what = self._detectors[key].name
        if stalled:
            self._stalled.add(key)
            self.gap(modality, position)
        else:
            self._stalled.discard(key)
        if (suppressed := self._log_limit.admit(at_ns)) is None:
            return
        if stalled:
            log_event(
                logger,
                logging.WARNING,
                "media-stalled",
                stream=self._stream,
                source=position,
                what=what,
                suppressed=suppressed,
            )
        else:
            log_event(
                logger,
                logging.INFO,
                "media-recovered",
                stream=self._stream,
                source=position,
                what=what,
                suppressed=suppressed,
            )
