"""One daemon that the history subscribes to: its messages become operations. It writes nothing."""

from __future__ import annotations

import logging
import time

from perceiverd.core.errors import WireError
from perceiverd.core.logs import LogLimit, log_limited
from perceiverd.history.operations import Operation
from perceiverd.history.recording import DaemonRecorder, Now
from perceiverd.history.settings import DaemonConfig
from perceiverd.wire import Event, Gap, Item, Subscription, messages, subscribe

logger = logging.getLogger("perceiverd.history")

SUBSCRIBED = ("scores/", "events/", "status/", messages.HELLO)
ITEMS_A_TURN = 256
"""Items received from one daemon in one turn, so that a flood from one does not delay the others."""
AUDIT_S = 5.0
"""After messages of events were lost, a second subscription asks the daemon for its open events for this long."""


class DaemonLink:
    """One daemon: its subscription and its recorder."""

    def __init__(self, name: str, daemon: DaemonConfig, floor: float) -> None:
        """Raises ConfigError or WireError if it cannot be subscribed to."""
        self.recorder = DaemonRecorder(name, daemon.endpoint, floor)
        self._daemon, self._curve = daemon, daemon.curve()
        self._subscription = subscribe(daemon.endpoint, SUBSCRIBED, curve=self._curve)
        self._audit: Subscription | None = None
        self._audit_ends_s = 0.0
        self._unreadable_limit = LogLimit()

    def close(self) -> None:
        self._subscription.close()
        self._end_audit()

    def receive(self, most: int = ITEMS_A_TURN, wait_s: float = 0.0) -> list[Operation]:
        """The operations of what has arrived."""
        found: list[Operation] = []
        for _ in range(most):
            if (item := self._next(self._subscription, wait_s)) is None:
                break
            if isinstance(item, Gap) and item.topic.startswith("events/"):
                self._begin_audit()
            found += self.recorder.receive(item, moment())
        if self._audit is not None:
            found += self._repeated(self._audit)
        return found

    def _next(self, subscription: Subscription, wait_s: float) -> Item | None:
        try:
            return subscription.receive(wait_s)
        except WireError as error:  # from a daemon that is newer than this program
            log_limited(
                logger, logging.WARNING, "message-unreadable", self._unreadable_limit, time.monotonic_ns(), error=error
            )
            return None

    def _begin_audit(self) -> None:
        """Ask for the open events: the end of one may have been lost. The daemon repeats them to a new subscriber."""
        self._end_audit()
        self._audit = subscribe(self._daemon.endpoint, ("events/",), curve=self._curve)
        self._audit_ends_s = time.monotonic() + AUDIT_S
        self.recorder.repeat(moment())

    def _repeated(self, audit: Subscription) -> list[Operation]:
        found: list[Operation] = []
        while isinstance(item := self._next(audit, 0), Event):
            if item.repeated:
                found += self.recorder.receive(item, moment())
        if time.monotonic() >= self._audit_ends_s:
            self._end_audit()
        return found

    def _end_audit(self) -> None:
        if self._audit is not None:
            self._audit.close()
            self._audit = None


def moment() -> Now:
    """The present moment on both clocks."""
    return Now(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000)
