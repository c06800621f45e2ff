"""What the recorder of a daemon asks the writer to store. Values only, so that they can wait while the disk is full.

Each may be carried out twice without harm, except `AddMinutes`, `AddSpan` and `AddMissed`, which add.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perceiverd.history.minutes import MinuteScores
from perceiverd.history.traces import Window
from perceiverd.wire import Event


@dataclass(frozen=True, slots=True)
class BeginRecording:
    """The history has started: what was open when it stopped is over, and the time between was not recorded."""

    machine: str
    endpoint: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class EndRecording:
    """The history stops: nothing is known of the streams from here on."""

    machine: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class SeeMachine:
    """A message was received from this daemon."""

    machine: str
    at_ms: int
    offset_ms: int | None


@dataclass(frozen=True, slots=True)
class SeeRun:
    """A message of this run of the daemon was received. If it is a new one, the events of the others are over."""

    machine: str
    boot_id: str
    version: str
    model: str
    sha256: str
    up_since_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """A message of an event."""

    machine: str
    message: Event


@dataclass(frozen=True, slots=True)
class EndUnseenEvents:
    """Events of this run that are open in the store, and not in this list, are over: their end was not received."""

    machine: str
    boot_id: str
    open: frozenset[tuple[str, str]]
    """Stream and key of the events that are open."""
    begun_before_ms: int
    """Events that began later are left alone."""


@dataclass(frozen=True, slots=True)
class StoreTrace:
    """Windows near an event. They are added to those that are stored."""

    machine: str
    stream: str
    boot_id: str
    key: str
    windows: tuple[Window, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChangeState:
    """A stream has this state from now on."""

    machine: str
    stream: str
    kind: str
    what: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class OpenSpan:
    """Something that concerns all streams of a machine begins."""

    machine: str
    kind: str
    start_ms: int
    what: str


@dataclass(frozen=True, slots=True)
class CloseSpan:
    """Something that concerns all streams of a machine ends."""

    machine: str
    kind: str
    end_ms: int


@dataclass(frozen=True, slots=True)
class AddMissed:
    """Messages or events were lost. Added to the last such span if that ended less than a minute before."""

    machine: str
    stream: str | None
    kind: str
    start_ms: int
    end_ms: int
    missed: int
    what: str


@dataclass(frozen=True, slots=True)
class AddMinutes:
    """Scores by stream and minute since 1970, with the names of their labels."""

    machine: str
    minutes: Mapping[tuple[str, int], MinuteScores] = field(repr=False)


@dataclass(frozen=True, slots=True)
class NameLabels:
    """The names of labels, by mid."""

    names: Mapping[str, str]


Operation = (
    BeginRecording
    | EndRecording
    | SeeMachine
    | SeeRun
    | StoreEvent
    | EndUnseenEvents
    | StoreTrace
    | ChangeState
    | OpenSpan
    | CloseSpan
    | AddMissed
    | AddMinutes
    | NameLabels
)
