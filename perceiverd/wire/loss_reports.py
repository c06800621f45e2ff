"""What a subscriber tells the publisher of itself: that it is there, and how many messages it has missed.

ZeroMQ's publishing socket drops what a slow subscriber can't take and tells nobody, not even how often. Only the
subscriber knows, by the holes in `seq`. The one thing it can say on its socket is a subscription; so it subscribes to
a topic under which nothing is ever sent, `missed/BOOT_ID/NAME/COUNT/`, and to another whenever its count has grown.
ZeroMQ says the latest again after every reconnection. A reader of any language may do the same, or leave it.

Pure: bytes and values; it knows no socket.
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
    """One subscriber's word."""

    boot_id: str
    """Of the daemon whose messages were missed."""
    name: str
    """The subscriber's, no other's: a program, a process and something random."""
    missed: int
    """Messages, since this subscriber first heard this daemon."""

    @property
    def subscription(self) -> str:
        return f"{ROOT}{self.boot_id}/{self.name}/{self.missed}/"

    @classmethod
    def read(cls, subscription: bytes) -> Self | None:
        """None where it is a subscription to messages."""
        found = _REPORT.fullmatch(subscription)
        return cls(found[1].decode(), found[2].decode(), int(found[3])) if found else None


class SubscriberRegistry:
    """The subscribers that report, and what they have missed in all."""

    def __init__(self, boot_id: str, remembered: int = 10_000) -> None:
        """`remembered`: names that are kept after they have left; should one come back, its losses count once."""
        self.missed = 0
        """Messages, over all subscribers that ever reported, since boot."""
        self._boot_id, self._remembered = boot_id, remembered
        self._counts: dict[str, int] = {}
        self._here: dict[str, int] = {}

    def __len__(self) -> int:
        """Subscribers that report and are there."""
        return len(self._here)

    @property
    def losing(self) -> dict[str, int]:
        """What those who are there have missed, the most first; without those who have missed nothing."""
        counts = {name: self._counts[name] for name in self._here if self._counts[name]}
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def come(self, report: LossReport) -> None:
        if report.boot_id != self._boot_id:  # told to a daemon before this one
            return
        before = self._counts.pop(report.name, 0)
        self._counts[report.name] = max(before, report.missed)  # at the end: the longest silent are forgotten first
        self.missed += self._counts[report.name] - before
        self._here[report.name] = self._here.get(report.name, 0) + 1
        if len(self._counts) > self._remembered + len(self._here):
            del self._counts[next(name for name in self._counts if name not in self._here)]

    def leave(self, report: LossReport) -> None:
        """It has taken this report back, because there is a newer one or because it has left."""
        if report.boot_id == self._boot_id and report.name in self._here:
            self._here[report.name] -= 1
            if not self._here[report.name]:
                del self._here[report.name]

    def all_leave(self) -> None:
        self._here.clear()
