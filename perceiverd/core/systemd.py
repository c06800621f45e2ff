"""systemd's notification protocol: "ready", "still at work", "stopping", and one line of status.

Written by hand: the packages that do it are abandoned, and the protocol is one datagram. Knows nothing of the daemon.
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
    """Tells systemd how the service is; silent where nobody asked, that is outside a unit of Type=notify."""

    def __init__(self, address: str | None) -> None:
        # systemd writes an abstract address with @ for its leading zero byte.
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._failing = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """The notifier that systemd's NOTIFY_SOCKET asks for."""
        return cls(environment.get("NOTIFY_SOCKET"))

    def ready(self) -> None:
        """Startup is over; the unit counts as started."""
        self._send("READY=1")

    def extend(self, seconds: float) -> None:
        """What is being done may take this much longer from now; systemd's time-out is put off until then."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def status(self, line: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + " ".join(line.split()))

    def alive(self) -> None:
        """Feed the watchdog. Only progress may call this, never a timer of its own."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` says that it is over, whether it was taken or not."""
        # One datagram: systemd takes the time as that of the reload which it asked for.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Shutdown has begun."""
        self._send("STOPPING=1")

    def _send(self, assignment: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A full queue must not stop the loop: the next notification says the same.
                sender.setblocking(False)
                sender.sendto(assignment.encode(), self._address)
        except OSError as error:
            if not self._failing:  # once, not each second for months
                log_event(logger, logging.WARNING, "notify-failed", assignment=assignment, error=error)
            self._failing = True
        else:
            self._failing = False


def watchdog_ns(environment: Mapping[str, str] = os.environ) -> int | None:
    """The silence after which systemd would kill this process, or None where it does not watch."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or not int(usec) or (pid and pid != str(os.getpid())):
        return None
    return int(usec) * 1000
