"""How far a daemon's clock differs from ours, by the times in its heartbeats. Pure: the caller passes the time.

A heartbeat comes late if a machine or a link is slow, never early. So the smallest delay of the last half minute is the
best estimate: the daemon's clock behind ours looks like a delay, its clock ahead like a negative one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

HELD_MS = 30_000
MARKED_MS = 2_000
"""A clock that is off by more than this is marked."""
CLEARED_MS = 1_000
"""A marked clock that is off by less than this is marked no longer."""
LEAST_HEARTBEATS = 3
"""So many heartbeats before a clock is judged."""


@dataclass(slots=True)
class ClockOffset:
    """The clock of one machine."""

    offset_ms: int | None = None
    """How far it is ahead of ours; None before LEAST_HEARTBEATS."""
    is_off: bool = False
    _delays: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=10_000))
    """When a heartbeat was received, on a clock that is never set, and its delay."""

    def heartbeat(self, sent_ms: int, received_ms: int, now_ms: int) -> bool:
        """Record a heartbeat; returns whether `is_off` changed.

        `sent_ms` is its time by their clock, `received_ms` ours, both UTC; `now_ms` is monotonic.
        """
        self._delays.append((now_ms, received_ms - sent_ms))
        while self._delays[0][0] < now_ms - HELD_MS:
            self._delays.popleft()
        if len(self._delays) < LEAST_HEARTBEATS:
            return False
        self.offset_ms = -min(delay for _, delay in self._delays)
        was_off = self.is_off
        self.is_off = abs(self.offset_ms) > (CLEARED_MS if was_off else MARKED_MS)
        return self.is_off != was_off
