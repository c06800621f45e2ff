"""What the configuration decides about one stream, in the units that the stream computes with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perceiverd.config import Config
from perceiverd.core.media import NS_PER_S
from perceiverd.pipeline.stalls import StallLimits
from perceiverd.pipeline.windower import Tolerance
from perceiverd.sources.snapshots.requests import RecentOptions, SnapshotOptions
from perceiverd.sources.specs import File


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The options of one stream. A reload replaces them."""

    hop_ns: int
    tolerance: Tolerance
    limits: StallLimits
    top: int
    """Labels in a message."""
    still_levels: float
    """How much a frame may differ from an earlier one and count as unchanged, of 255."""
    av_offset_ns: int
    """Added to the times of frames."""
    replayed: frozenset[int]
    """Positions of the sources that are files. Their media may stand still."""
    snapshots: SnapshotOptions | None
    """How snapshots of events are kept; None if they are not."""
    speech_limit: float | None
    """Keep none while a label of speech has this score or more; None if speech may be kept."""
    recent: RecentOptions | None = None
    """How recent sound is kept; None if it is not."""

    @classmethod
    def of(cls, config: Config, name: str, snapshots: SnapshotOptions | None) -> StreamSettings:
        """The settings of the stream of this name. Raises KeyError if the configuration has none."""
        stream = config.streams[name]
        offset_ns = round(stream.av_offset_ms * 1e6)
        tolerance = config.window.tolerance
        return cls(
            hop_ns=round(config.window.hop_s * NS_PER_S),
            # The offset moves the times of frames, so they are later or earlier than the audio by as much.
            tolerance=replace(tolerance, wait_ns=tolerance.wait_ns + abs(offset_ns)),
            limits=config.stalls.limits,
            top=config.publish.top,
            still_levels=config.window.still_levels,
            av_offset_ns=offset_ns,
            replayed=frozenset(i for i, source in enumerate(stream.sources) if isinstance(source, File)),
            snapshots=snapshots if snapshots is not None and snapshots.on_event else None,
            speech_limit=None if config.snapshots.keep_speech or snapshots is None else config.snapshots.speech_score,
            recent=None if snapshots is None else snapshots.recent,
        )
