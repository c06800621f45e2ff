"""What is wrong with a stream, and what its sources do, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from perceiverd.wire import Scores, SourceStatus, Status, holes

DOWN = {
    "stalled": "no data arrives",
    "backing off": "the source fails; it is tried again",
    "ended": "the stream has ended",
}


def problem_of(status: Status | None, scores: Scores | None, silent: bool, dropped_lately: int) -> str | None:
    """What is wrong; None if nothing is."""
    if silent:
        return "its machine is silent: nothing is received from the daemon"
    if status is None:
        return None
    found = [*_of_state(status), *(stall for source in status.sources for stall in _stalls(source))]
    if status.state == "up" and scores is not None and (lacks := holes.described({}, scores.missing)):
        found.append(lacks)
    if dropped_lately:
        windows = "1 window was" if dropped_lately == 1 else f"{dropped_lately} windows were"
        found.append(f"{windows} dropped in the last minute: the machine is too busy")
    return "; ".join(found) or None


def detail_of(status: Status | None) -> str:
    """Each source with its state."""
    if status is None:
        return "no status yet"
    return "; ".join(_source(each) for each in status.sources) or status.state


def _of_state(status: Status) -> Iterator[str]:
    if words := DOWN.get(status.state):
        age = "" if status.data_age_s is None else f" (last data {_age(status.data_age_s)} ago)"
        yield f"{words}{age}"


def _stalls(source: SourceStatus) -> Iterator[str]:
    for stall in source.stalls:
        yield f"{stall}, which counts as missing"


def _source(source: SourceStatus) -> str:
    words = [source.state]
    if source.waiting_for:
        words.append(f"waits for {source.waiting_for}")
    elif source.state != "disabled":
        words.append("no data yet" if source.data_age_s is None else f"data {_age(source.data_age_s)} ago")
    if source.restarts:
        words.append("restarted: " + ", ".join(f"{reason} {count}x" for reason, count in source.restarts.items()))
    return f"{source.source}: {', '.join(words)}"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
