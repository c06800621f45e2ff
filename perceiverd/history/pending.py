"""What waits to be written. Pure: it knows no database and no clock."""

from __future__ import annotations

from collections import deque

from perceiverd.history.operations import AddMissed, Operation, StoreEvent

WAITING = 20_000
"""Operations that wait while nothing can be written. Beyond this, the oldest are dropped and counted."""


class Pending:
    """Operations that wait to be written, the oldest first. Bounded; the oldest are dropped and counted."""

    def __init__(self, most: int = WAITING) -> None:
        self._most = most
        self._waiting: deque[Operation] = deque()
        self.lost: dict[str, int] = {}
        """Messages of events that were dropped since the last `recovered`, by machine."""
        self.since_ms = 0
        """When the first of them was dropped."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, operations: list[Operation], now_ms: int) -> int:
        """Add these at the end; returns how many messages of events had to be dropped for them."""
        self._waiting.extend(operations)
        before = sum(self.lost.values())
        while len(self._waiting) > self._most:
            oldest = self._waiting.popleft()
            if isinstance(oldest, StoreEvent):
                self.since_ms = self.since_ms or now_ms
                self.lost[oldest.machine] = self.lost.get(oldest.machine, 0) + 1
        return sum(self.lost.values()) - before

    def all(self) -> tuple[Operation, ...]:
        return tuple(self._waiting)

    def written(self, why: str, now_ms: int) -> list[Operation]:
        """All have been written. Returns what is to be stored about those that were dropped before."""
        self._waiting.clear()
        lost: list[Operation] = [
            AddMissed(machine, None, "not stored", self.since_ms, now_ms, count, why)
            for machine, count in self.lost.items()
        ]
        self.lost, self.since_ms = {}, 0
        return lost
