"""Whether the daemon is well, by what is on the board."""

from dataclasses import replace

import pytest

from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.health import START_NS, TURN_NS, healthy, ready
from perceiverd.daemon.telemetry import Distribution, SourceReading, StreamReading, Telemetry, TelemetryFrame

NOW = 1_000 * NS_PER_S
EMPTY = Distribution((1.0,), (0, 0), 0.0)
SOURCE = SourceReading("up", "", NOW, {"failed": 0}, 0)
STREAM = StreamReading("up", (SOURCE,), NOW, 8, 0, 0, 0, EMPTY, -30.0, {}, 0, {})
SNAPSHOT = TelemetryFrame("1", "tiny", "0", 12 * NS_PER_S, {"door": STREAM}, EMPTY, *(0,) * 5)


def board(snapshot: TelemetryFrame | None = SNAPSHOT, still_s: float = 0, **streams: StreamReading) -> Telemetry:
    """A board as it was left so many seconds before NOW, with these streams if any are given."""
    made = Telemetry(NOW - round(still_s * NS_PER_S))
    made.snapshot = replace(snapshot, streams=streams) if snapshot and streams else snapshot
    return made


def silent_for(seconds: float) -> StreamReading:
    return replace(STREAM, sent_ns=NOW - round(seconds * NS_PER_S))


LOST = replace(STREAM, state="backing off", sources=(SOURCE, replace(SOURCE, state="backing off", detail="no route")))


def test_a_loop_that_turns_is_healthy() -> None:
    """However its streams are."""
    assert healthy(board(door=silent_for(99)), NOW).told == {"healthy": True, "state": "running"}


def test_a_loop_that_is_stuck_is_neither() -> None:
    """It can't know any more whether windows are sent."""
    stuck = board(still_s=TURN_NS / NS_PER_S)
    assert not healthy(stuck, NOW).good
    assert healthy(stuck, NOW).told["why"] == ready(stuck, NOW).told["why"] == "the loop has not turned for 15 s"
    assert not ready(stuck, NOW).good


def test_starting_is_healthy_but_not_ready() -> None:
    """For as long as systemd would wait, too."""
    assert healthy(board(None, 20), NOW).told == {"healthy": True, "state": "starting"}
    assert ready(board(None, 20), NOW).told == {"ready": False, "why": "starting"}
    assert not healthy(board(None, START_NS / NS_PER_S), NOW).good


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (STREAM, ""),
        (silent_for(11.9), ""),
        (silent_for(12), "no window for 12 s"),
        (replace(STREAM, sent_ns=None), "no window yet"),
        (LOST, ""),
        (replace(LOST, sent_ns=NOW - 60 * NS_PER_S), "no window for 60 s; no route"),
        (replace(STREAM, state="ended", sent_ns=None), ""),
    ],
)
def test_ready_means_windows_were_sent_lately(stream: StreamReading, why: str) -> None:
    """Each stream is told with the reason; one that has ended owes nothing, one that was lost just now not yet."""
    verdict = ready(board(door=STREAM, gate=stream), NOW)
    assert verdict.good is not bool(why)
    gate = {"ready": not why, "state": stream.state} | ({"why": why} if why else {})
    assert verdict.told == {"ready": not why, "streams": {"door": {"ready": True, "state": "up"}, "gate": gate}}
