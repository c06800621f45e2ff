"""What the supervisor hands to its caller: media, changes of state and gaps in time, each with its source.

Knows no processes and no sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from perceiverd.core.media import Media, Timing
from perceiverd.sources.process.restart import Reason, RunState

Modality = Literal["audio", "video"]
Key = tuple[str, int]
"""Name of the stream, position of the source in it."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """A source entered another state."""

    state: RunState
    detail: str
    """Why it was lost; empty if it was not."""


@dataclass(frozen=True, slots=True)
class Discontinuity:
    """Time was lost, or it jumped: media after this do not continue the media before it."""

    modalities: tuple[Modality, ...]
    """What the source has delivered since it was last lost."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One item of one source."""

    stream: str
    position: int
    what: Media | StateChange | Discontinuity


@dataclass(frozen=True, slots=True)
class SourceState:
    """The condition of a source, for status messages."""

    stream: str
    position: int
    source: str
    """Path, URL without its password, or kind."""
    state: RunState
    detail: str
    """Why it was last lost; empty if it never was."""
    pid: int | None
    data_age_s: float | None
    """Seconds since the last frame or chunk; None before the first."""
    losses: Mapping[Reason, int]
    """How often it was lost and restarted, by reason."""
    dropped: int
    """Items that its processes dropped because the daemon was behind."""
    stale: int
    """Items of a lost process that came after its end and were discarded."""
    snapshots: int = 0
    """Snapshots that it wrote to disk."""
    snapshots_failed: int = 0
    """Requests for a snapshot, or for recent sound, that failed."""
    recent_s: float = 0.0
    """Seconds of recent sound that it wrote to disk."""
    waiting_for: str = ""
    """What it waits for, if it waits and this is no fault."""
    timing: Timing | None = None
    """What its processes know of the device's clock, with the steps of all of them; None if it has no such clock."""
