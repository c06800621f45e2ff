"""When a source's process is started, killed and restarted.

Pure: the caller passes the time and what happened. Knows no processes, sockets or media.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Literal

from perceiverd.core.media import NS_PER_S

Reason = Literal["exited", "stalled", "failed", "frozen"]
"""Why a process was lost: it died, it was killed because it sent nothing, it reported an error, or its video froze."""


class RunState(StrEnum):
    """What a source is doing."""

    STARTING = "starting"
    UP = "up"
    STALLED = "stalled"
    """It sent nothing for too long and was killed. If its driver hangs, the kernel may need a while to end it."""
    BACKING_OFF = "backing off"
    """It was lost; the next try comes after a wait."""
    ENDED = "ended"
    """A file without `loop` is over."""
    DISABLED = "disabled"
    """The configuration switches it off; it has no process."""


class Action(Enum):
    """What the caller must do with the process."""

    LAUNCH = "launch"
    KILL = "kill"


MOST_EXCUSED_NS = 120 * NS_PER_S
"""However long a process waits for a core, it is not silent for longer than its limit and this."""
SAMPLE_NS = NS_PER_S
"""How often we look how long a process has waited for a core. So much of that time is counted twice at most."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a source may be silent, and how long to wait before a restart.

    The time for which its process waits for a core does not count. On a busy machine ten processes that start together
    may need a minute each; one that is killed must start again, and takes the time from the others.
    """

    open_s: float = 10.0
    """From the start to the first data."""
    read_s: float = 3.0
    """From data to data."""
    backoff_first_s: float = 0.25
    """The wait before the first restart; it doubles with each further one."""
    backoff_cap_s: float = 30.0
    """The longest wait."""
    good_s: float = 10.0
    """After data for this long, the wait starts at `backoff_first_s` again."""


class Supervision:
    """The state of one source, from start to end, through any number of restarts."""

    def __init__(self, limits: Timeouts = Timeouts(), jitter: Callable[[], float] = random.random) -> None:
        """`jitter` returns a number from 0 to 1."""
        self.state = RunState.STARTING
        self.detail = ""
        """Why the last process was lost; empty before the first loss."""
        self.kill_reason: Reason = "stalled"
        """Why it is being killed, while it is STALLED."""
        self.losses: Counter[Reason] = Counter()
        self._limits, self._jitter = limits, jitter
        self._alive = False
        self._retry_ns: int | None = None
        self._received_ns = self._up_ns = 0
        self._sampled_ns = self._waited_before_ns = 0
        """When we last looked how long the process had waited for a core until then, and how long that was."""
        self._excused_ns = 0
        """How long it has waited since then, as far as we know."""
        self._tries = self._refused = 0

    def due(self, now_ns: int, waited_ns: Callable[[], int] = lambda: 0) -> Action | None:
        """What the caller must do now. KILL is returned once, and the state is STALLED from then on.

        `waited_ns` returns how long the process has waited for a core since it began; it is called about once a second.
        """
        if not self._alive:
            waiting = self._retry_ns is not None and now_ns < self._retry_ns
            return None if waiting or self.state is RunState.ENDED else Action.LAUNCH
        if self.state not in (RunState.STARTING, RunState.UP):
            return None
        if self._received_ns > self._sampled_ns and now_ns - self._sampled_ns >= SAMPLE_NS:
            self._sampled_ns, self._waited_before_ns, self._excused_ns = now_ns, waited_ns(), 0
        if now_ns < self._deadline_ns:
            return None
        self._excused_ns = min(max(0, waited_ns() - self._waited_before_ns), MOST_EXCUSED_NS)
        if now_ns < self._deadline_ns:
            return None
        silent_s = (now_ns - self._received_ns) / NS_PER_S
        self.detail = f"no data for {silent_s:.1f} s while {self.state}"
        self.state, self.kill_reason = RunState.STALLED, "stalled"
        return Action.KILL

    def next_ns(self) -> int | None:
        """When `due` may return something next, if nothing happens until then; None if it never will."""
        if not self._alive:
            return None if self.state is RunState.ENDED else self._retry_ns or 0
        return self._deadline_ns if self.state in (RunState.STARTING, RunState.UP) else None

    def launched(self, now_ns: int) -> None:
        """The caller has started a process."""
        self._alive, self.state, self._received_ns, self._sampled_ns = True, RunState.STARTING, now_ns, now_ns
        self._waited_before_ns = self._excused_ns = 0

    def received(self, now_ns: int, *, data: bool) -> None:
        """A message came; `data` is False for a sign of life without media."""
        self._received_ns = now_ns
        if data and self.state is RunState.STARTING:
            self.state, self._up_ns, self._refused = RunState.UP, now_ns, 0

    def condemn(self, reason: Reason, detail: str) -> bool:
        """The source delivers useless data: stop it for this reason. True if it is up, so the caller must kill it."""
        if not self._alive or self.state is not RunState.UP:
            return False
        self.state, self.kill_reason, self.detail = RunState.STALLED, reason, detail
        return True

    def ended(self) -> None:
        """The source is over for good."""
        self._alive, self.state = False, RunState.ENDED

    def lost(self, now_ns: int, reason: Reason, detail: str, refused_cap_s: float | None = None) -> float:
        """The process is gone and should not be; returns the seconds until the next try.

        The wait doubles from try to try, up to the cap. Half of it is random, so that sources that were lost together
        do not all come back at once. If the device refused the request, `refused_cap_s` replaces the cap. Such tries
        have a count of their own, because a device may also refuse while it starts, and then a short wait is right.
        """
        if self._up_ns and self._received_ns - self._up_ns >= self._limits.good_s * NS_PER_S:
            self._tries = 0
        self._refused = 0 if refused_cap_s is None else self._refused + 1
        cap_s = self._limits.backoff_cap_s if refused_cap_s is None else refused_cap_s
        tries = self._refused - 1 if self._refused else self._tries
        # The exponent is bounded: after months of failures the power would overflow.
        wait_s = min(cap_s, self._limits.backoff_first_s * 2.0 ** min(tries, 30))
        wait_s *= 0.5 + 0.5 * self._jitter()
        self._tries += 1
        self._alive, self._up_ns = False, 0
        self._retry_ns = now_ns + round(wait_s * NS_PER_S)
        self.state, self.detail = RunState.BACKING_OFF, detail
        self.losses[reason] += 1
        return wait_s

    @property
    def _deadline_ns(self) -> int:
        limit_s = self._limits.open_s if self.state is RunState.STARTING else self._limits.read_s
        return self._received_ns + round(limit_s * NS_PER_S) + self._excused_ns
