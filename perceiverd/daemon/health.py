"""Is it well? What `/healthz` and `/readyz` answer, from what the loop left on the board. Pure.

`healthy` means that the loop turns: whoever restarts what is broken asks this. `ready` means that every stream that
should give labels gives them: each one that is enabled, and has not come to its end, had a window sent lately.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.telemetry import StreamReading, Telemetry

TURN_NS = 15 * NS_PER_S
"""The longest turn of a loop that lives: longer than any inference worth waiting for, half of the unit's watchdog."""
START_NS = 180 * NS_PER_S
"""The longest start: torch and the weights from a cold, slow disk. The unit's TimeoutStartSec is the same."""
ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes or no, and what there is to say about it, fit for JSON."""

    good: bool
    told: dict[str, Any]


def healthy(board: Telemetry, now_ns: int) -> Verdict:
    """Whether the loop turns, or may still be loading the model."""
    starting = board.snapshot is None
    why = _stuck(board, now_ns)
    told = {"healthy": not why, "state": "starting" if starting else "running"}
    return Verdict(not why, told | ({"why": why} if why else {}))


def ready(board: Telemetry, now_ns: int) -> Verdict:
    """Whether every stream that should give windows had one sent lately."""
    if board.snapshot is None:
        return Verdict(False, {"ready": False, "why": _stuck(board, now_ns) or "starting"})
    streams: dict[str, dict[str, Any]] = {}
    for name, stream in board.snapshot.streams.items():
        why = lacking(stream, board.snapshot.lately_ns, now_ns)
        streams[name] = {"ready": not why, "state": stream.state} | ({"why": why} if why else {})
    stuck = _stuck(board, now_ns)
    good = not stuck and all(each["ready"] for each in streams.values())
    return Verdict(good, {"ready": good} | ({"why": stuck} if stuck else {}) | {"streams": streams})


def lacking(stream: StreamReading, lately_ns: int, now_ns: int) -> str:
    """Why the stream gives no labels, in words; empty where it does, or has come to its end."""
    if stream.state == ENDED or (stream.sent_ns is not None and now_ns - stream.sent_ns < lately_ns):
        return ""
    silence = "no window yet" if stream.sent_ns is None else f"no window for {_seconds(now_ns - stream.sent_ns)}"
    losses = [source.detail for source in stream.sources if source.state not in ("up", ENDED) and source.detail]
    stalls = [stall for source in stream.sources for stall in source.stalls]
    return "; ".join([silence, *losses, *stalls])


def _stuck(board: Telemetry, now_ns: int) -> str:
    still_ns = now_ns - board.turned_ns
    if board.snapshot is None:
        return f"starting for {_seconds(still_ns)}" if still_ns >= START_NS else ""
    return f"the loop has not turned for {_seconds(still_ns)}" if still_ns >= TURN_NS else ""


def _seconds(ns: int) -> str:
    return f"{ns / NS_PER_S:.0f} s"
