"""systemd's notification protocol, sd_notify(3): one datagram each for "ready", "alive", "stopping" and a status line.

Written by hand, because the packages that speak it are abandoned. Knows nothing of the daemon.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

from perceiverd.core.logs import log_event

logger = logging.getLogger("perceiverd.core")


class Notifier:
    """Notifies systemd. Outside a unit of Type=notify it sends nothing."""

    def __init__(self, address: str | None) -> None:
        # systemd writes an abstract address with @ for its leading zero byte.
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._failing = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """A notifier for the socket that systemd names in NOTIFY_SOCKET."""
        return cls(environment.get("NOTIFY_SOCKET"))

    def ready(self) -> None:
        """The start is over; the unit counts as started."""
        self._send("READY=1")

    def extend(self, seconds: float) -> None:
        """The start, or the end, may take this much longer from now: systemd extends its time-out."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def status(self, line: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + " ".join(line.split()))

    def alive(self) -> None:
        """Feed the watchdog. Call this only after progress, never from a timer."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is being read again. `ready` reports the end of that, with or without success."""
        # One datagram: systemd takes the time for that of the reload which it requested.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The shutdown has begun."""
        self._send("STOPPING=1")

    def _send(self, assignment: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A full queue must not stop the loop: the next notification has the same content.
                sender.setblocking(False)
                sender.sendto(assignment.encode(), self._address)
        except OSError as error:
            if not self._failing:  # once, not each second for months
                log_event(logger, logging.WARNING, "notify-failed", assignment=assignment, error=error)
            self._failing = True
        else:
            self._failing = False


def watchdog_ns(environment: Mapping[str, str] = os.environ) -> int | None:
    """The time without `alive` after which systemd would kill this process; None if it has no watchdog for it."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or not int(usec) or (pid and pid != str(os.getpid())):
        return None
    return int(usec) * 1000
