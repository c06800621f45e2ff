"""How a subscriber reports to the publisher that it is there and how many messages it has missed.

ZeroMQ drops what a slow subscriber cannot take, and reports the loss to nobody. Only the subscriber notices it, by the
gaps in `seq`. All it can send on its socket is a subscription. So it subscribes to `missed/BOOT_ID/NAME/COUNT/`, where
nothing is ever published, and to a new such topic when COUNT has grown. ZeroMQ repeats the latest one after each
reconnection. A subscriber in any language may do the same, or leave it.

Pure: it knows no socket.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

ROOT = "missed/"
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REPORT = re.compile(rf"{ROOT}([0-9a-f]{{32}})/({NAME.pattern})/(\d{{1,15}})/".encode())


@dataclass(frozen=True, slots=True)
class LossReport:
    """What one subscriber reports."""

    boot_id: str
    """The daemon whose messages were missed."""
    name: str
    """The subscriber's unique name: its program, its process id and a random part."""
    missed: int
    """Messages missed since this subscriber first received one from this daemon."""

    @property
    def subscription(self) -> str:
        return f"{ROOT}{self.boot_id}/{self.name}/{self.missed}/"

    @classmethod
    def parse(cls, subscription: bytes) -> Self | None:
        """None if the subscription is one to messages."""
        found = _REPORT.fullmatch(subscription)
        return cls(found[1].decode(), found[2].decode(), int(found[3])) if found else None


class SubscriberRegistry:
    """The subscribers that report, and how many messages they have missed."""

    def __init__(self, boot_id: str, remembered: int = 10_000) -> None:
        """`remembered` bounds the names kept after their subscribers left: if one returns, its losses count once."""
        self.missed = 0
        """Messages missed since boot, summed over all subscribers that ever reported."""
        self._boot_id, self._remembered = boot_id, remembered
        self._counts: dict[str, int] = {}
        self._present: dict[str, int] = {}
        """How many reports of each present subscriber are in force."""

    def __len__(self) -> int:
        """Subscribers that report and are connected."""
        return len(self._present)

    @property
    def losing(self) -> dict[str, int]:
        """Messages missed by each connected subscriber that missed any, the largest count first."""
        counts = {name: self._counts[name] for name in self._present if self._counts[name]}
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def add(self, report: LossReport) -> None:
        """Count a report, unless it is about a previous daemon."""
        if report.boot_id != self._boot_id:
            return
        before = self._counts.pop(report.name, 0)
        self._counts[report.name] = max(before, report.missed)  # at the end: the oldest reports are forgotten first
        self.missed += self._counts[report.name] - before
        self._present[report.name] = self._present.get(report.name, 0) + 1
        if len(self._counts) > self._remembered + len(self._present):
            del self._counts[next(name for name in self._counts if name not in self._present)]

    def withdraw(self, report: LossReport) -> None:
        """The subscriber has withdrawn this report: it sent a newer one before, or it left."""
        if report.boot_id == self._boot_id and report.name in self._present:
            self._present[report.name] -= 1
            if not self._present[report.name]:
                del self._present[report.name]

    def disconnect_all(self) -> None:
        """All subscribers were disconnected. Those that return will report again."""
        self._present.clear()
