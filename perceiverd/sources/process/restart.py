"""When a source's process is started, given up and started again. Pure: it is told the time and what happened."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Literal

from perceiverd.core.media import NS_PER_S

Reason = Literal["exited", "stalled", "failed", "frozen"]
"""Why a process was lost: it died, it was killed for its silence, it told what is wrong, or its picture stood still."""


class State(StrEnum):
    """What a source is doing."""

    STARTING = "starting"
    UP = "up"
    STALLED = "stalled"
    """Silent for too long and killed; the kernel may need a while where a driver hangs."""
    BACKING_OFF = "backing off"
    """Lost; waits before the next try."""
    ENDED = "ended"
    """A file that isn't looped is over."""
    DISABLED = "disabled"
    """Configured, and switched off: no process is there for it."""


class Do(Enum):
    """What is to be done to the process."""

    LAUNCH = "launch"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long is too long."""

    open_s: float = 10.0
    """From the start to the first data."""
    read_s: float = 3.0
    """From data to data."""
    backoff_first_s: float = 0.25
    backoff_cap_s: float = 30.0
    good_s: float = 10.0
    """After so much time with data the back-off begins anew."""


class Supervision:
    """The life of one source: starting, up, and over and over again if need be."""

    def __init__(self, limits: Timeouts = Timeouts(), jitter: Callable[[], float] = random.random) -> None:
        self.state = State.STARTING
        self.detail = ""
        """Why the last process was lost; empty before the first loss."""
        self.killed_for: Reason = "stalled"
        """Why, while it is STALLED."""
        self.losses: Counter[Reason] = Counter()
        self._limits, self._jitter = limits, jitter
        self._alive = False
        self._retry_ns: int | None = None
        self._heard_ns = self._up_ns = 0
        self._tries = self._refused = 0

    def due(self, now_ns: int) -> Do | None:
        """What is to be done now. KILL is said once, and the state is STALLED from then on."""
        if not self._alive:
            waiting = self._retry_ns is not None and now_ns < self._retry_ns
            return None if waiting or self.state is State.ENDED else Do.LAUNCH
        if self.state not in (State.STARTING, State.UP) or now_ns < self._deadline_ns:
            return None
        silent_s = (now_ns - self._heard_ns) / NS_PER_S
        self.detail = f"no data for {silent_s:.1f} s while {self.state}"
        self.state, self.killed_for = State.STALLED, "stalled"
        return Do.KILL

    def next_ns(self) -> int | None:
        """When `due` may want something next, if nothing happens until then."""
        if not self._alive:
            return None if self.state is State.ENDED else self._retry_ns or 0
        return self._deadline_ns if self.state in (State.STARTING, State.UP) else None

    def launched(self, now_ns: int) -> None:
        """A process was started."""
        self._alive, self.state, self._heard_ns = True, State.STARTING, now_ns

    def heard(self, now_ns: int, *, data: bool) -> None:
        """A message came; `data` is False for a mere sign of life."""
        self._heard_ns = now_ns
        if data and self.state is State.STARTING:
            self.state, self._up_ns, self._refused = State.UP, now_ns, 0

    def condemned(self, reason: Reason, detail: str) -> bool:
        """What it delivers is worth nothing; True where it is to be killed for that."""
        if not self._alive or self.state is not State.UP:
            return False
        self.state, self.killed_for, self.detail = State.STALLED, reason, detail
        return True

    def ended(self) -> None:
        """The source is over for good."""
        self._alive, self.state = False, State.ENDED

    def lost(self, now_ns: int, reason: Reason, detail: str, refused_cap_s: float | None = None) -> float:
        """The process is no more and was not to end; returns the seconds until the next try.

        The wait doubles from try to try, to the cap; half of it is left to chance, so that sources that were lost
        together don't come back in step. `refused_cap_s` takes the place of the cap where the source was told no: such
        tries are counted by themselves, for one that says no while it starts should not be left alone for long.
        """
        if self._up_ns and self._heard_ns - self._up_ns >= self._limits.good_s * NS_PER_S:
            self._tries = 0
        self._refused = 0 if refused_cap_s is None else self._refused + 1
        cap_s = self._limits.backoff_cap_s if refused_cap_s is None else refused_cap_s
        tries = self._refused - 1 if self._refused else self._tries
        # The exponent is bounded, or months of failures would overflow.
        wait_s = min(cap_s, self._limits.backoff_first_s * 2.0 ** min(tries, 30))
        wait_s *= 0.5 + 0.5 * self._jitter()
        self._tries += 1
        self._alive, self._up_ns = False, 0
        self._retry_ns = now_ns + round(wait_s * NS_PER_S)
        self.state, self.detail = State.BACKING_OFF, detail
        self.losses[reason] += 1
        return wait_s

    @property
    def _deadline_ns(self) -> int:
        limit_s = self._limits.open_s if self.state is State.STARTING else self._limits.read_s
        return self._heard_ns + round(limit_s * NS_PER_S)
