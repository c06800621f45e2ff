"""What `/healthz` and `/readyz` answer, from what the loop left in `Telemetry`. Pure.

`healthy`: the loop turns. A program that restarts broken services asks this. `ready`: every stream that should give
labels gives them. These are the enabled streams that have not ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.telemetry import StreamTelemetry, Telemetry

WATCHDOG_S = 30
"""The unit's WatchdogSec."""
TURN_NS = WATCHDOG_S * NS_PER_S // 2
"""The longest turn of a loop that is well: longer than any useful inference, half of the unit's watchdog."""
START_S = 600
"""The longest start: torch and the weights from a small board's memory card, while other programs run. The daemon
extends the unit's TimeoutStartSec, which is shorter, to this."""
UP, ENDED = "up", "ended"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes or no, and the reasons."""

    good: bool
    details: dict[str, Any]
    """The answer's JSON."""


def healthy(telemetry: Telemetry, now_ns: int) -> Verdict:
    """Whether the loop turns, or may still be loading the model."""
    why = _stuck(telemetry, now_ns)
    details = {"healthy": not why, "state": "starting" if telemetry.frame is None else "running"}
    return Verdict(not why, details | ({"why": why} if why else {}))


def ready(telemetry: Telemetry, now_ns: int) -> Verdict:
    """Whether every stream that should give windows had one sent recently."""
    if telemetry.frame is None:
        return Verdict(False, {"ready": False, "why": _stuck(telemetry, now_ns) or "starting"})
    streams: dict[str, dict[str, Any]] = {}
    for name, stream in telemetry.frame.streams.items():
        why = why_not_ready(stream, telemetry.frame.recent_ns, now_ns)
        streams[name] = {"ready": not why, "state": stream.status.state} | ({"why": why} if why else {})
    stuck = _stuck(telemetry, now_ns)
    good = not stuck and all(each["ready"] for each in streams.values())
    return Verdict(good, {"ready": good} | ({"why": stuck} if stuck else {}) | {"streams": streams})


def why_not_ready(stream: StreamTelemetry, recent_ns: int, now_ns: int) -> str:
    """Why the stream gives no labels; empty if it gives some, or has ended."""
    status, sent_ns = stream.status, stream.counters.sent_ns
    if status.state == ENDED or (sent_ns is not None and now_ns - sent_ns < recent_ns):
        return ""
    since = "no window yet" if sent_ns is None else f"no window for {_seconds(now_ns - sent_ns)}"
    sources = zip(status.sources, stream.counters.losses, strict=True)
    losses = [loss for source, loss in sources if source.state not in (UP, ENDED) and loss]
    stalls = [stall for source in status.sources for stall in source.stalls]
    return "; ".join([since, *losses, *stalls])


def _stuck(telemetry: Telemetry, now_ns: int) -> str:
    still_ns = now_ns - telemetry.turned_ns
    if telemetry.frame is None:
        return f"starting for {_seconds(still_ns)}" if still_ns >= START_S * NS_PER_S else ""
    return f"the loop has not turned for {_seconds(still_ns)}" if still_ns >= TURN_NS else ""


def _seconds(ns: int) -> str:
    return f"{ns / NS_PER_S:.0f} s"
