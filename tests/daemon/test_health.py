"""Whether the daemon is well, by its telemetry; and that the limits agree with the systemd unit."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from perceiverd.core.media import NS_PER_S
from perceiverd.daemon.health import START_S, TURN_NS, WATCHDOG_S, healthy, ready
from perceiverd.daemon.telemetry import Counters, Distribution, StreamTelemetry, Telemetry, TelemetryFrame
from tests.support.messages import status

UNIT = (Path(__file__).parents[2] / "systemd/perceiverd.service").read_text(encoding="utf-8")
NOW = 1_000 * NS_PER_S
EMPTY = Distribution((1.0,), (0, 0), 0.0)
STREAM = StreamTelemetry(status("door"), Counters(NOW, EMPTY, {}, 0, {}, ("",)))
FRAME = TelemetryFrame(
    at_ns=NOW,
    version="1",
    model="tiny",
    sha256="0",
    recent_ns=12 * NS_PER_S,
    streams={"door": STREAM},
    inference=EMPTY,
    inference_cpu_s=0,
    subscriptions=0,
    subscribers=0,
    missed=0,
    overflows=0,
    refused=0,
    suspends=0,
)


def left(frame: TelemetryFrame | None = FRAME, still_s: float = 0, **streams: StreamTelemetry) -> Telemetry:
    """Telemetry that the loop left so many seconds before NOW, with these streams if any are given."""
    made = Telemetry(NOW - round(still_s * NS_PER_S))
    made.frame = replace(frame, streams=streams) if frame and streams else frame
    return made


def sent(ago_s: float | None, stream: StreamTelemetry = STREAM) -> StreamTelemetry:
    """The stream, whose last window was sent so long ago; never if None."""
    sent_ns = None if ago_s is None else NOW - round(ago_s * NS_PER_S)
    return replace(stream, counters=replace(stream.counters, sent_ns=sent_ns))


LOST = StreamTelemetry(
    msgspec.structs.replace(status("door", "up", "backing off"), state="backing off"),
    replace(STREAM.counters, losses=("once lost", "no route")),
)


def test_a_loop_that_turns_is_healthy() -> None:
    """The condition of its streams does not matter."""
    assert healthy(left(door=sent(99)), NOW).details == {"healthy": True, "state": "running"}


def test_a_loop_that_is_stuck_is_neither_healthy_nor_ready() -> None:
    """The HTTP thread can no longer know whether windows are sent."""
    stuck = left(still_s=TURN_NS / NS_PER_S)
    assert not healthy(stuck, NOW).good
    assert healthy(stuck, NOW).details["why"] == ready(stuck, NOW).details["why"] == "the loop has not turned for 15 s"
    assert not ready(stuck, NOW).good


def test_a_starting_daemon_is_healthy_but_not_ready() -> None:
    """It is healthy for as long as systemd waits for it."""
    assert healthy(left(None, START_S - 1), NOW).details == {"healthy": True, "state": "starting"}
    assert ready(left(None, 20), NOW).details == {"ready": False, "why": "starting"}
    assert not healthy(left(None, START_S), NOW).good


def test_the_limits_are_those_of_the_unit() -> None:
    """The watchdog is the unit's; the start may take longer than the unit allows, so the daemon extends that time."""
    (watchdog_s,) = re.findall(r"^WatchdogSec=(\d+)$", UNIT, re.MULTILINE)
    (start_s,) = re.findall(r"^TimeoutStartSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(watchdog_s) == WATCHDOG_S
    assert int(start_s) < START_S


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (STREAM, ""),
        (sent(11.9), ""),
        (sent(12), "no window for 12 s"),
        (sent(None), "no window yet"),
        (LOST, ""),
        (sent(60, LOST), "no window for 60 s; no route"),
        (replace(sent(None), status=status("door", "ended")), ""),
        (
            replace(
                sent(60),
                status=msgspec.structs.replace(
                    status("door"),
                    sources=(msgspec.structs.replace(status("door").sources[0], stalls=("frozen picture",)),),
                ),
            ),
            "no window for 60 s; frozen picture",
        ),
    ],
)
def test_ready_means_recent_windows(stream: StreamTelemetry, why: str) -> None:
    """Each stream has its reason. A stream that has ended owes no window, one that was lost just now not yet."""
    verdict = ready(left(door=STREAM, gate=stream), NOW)
    assert verdict.good is not bool(why)
    gate = {"ready": not why, "state": stream.status.state} | ({"why": why} if why else {})
    assert verdict.details == {"ready": not why, "streams": {"door": {"ready": True, "state": "up"}, "gate": gate}}
