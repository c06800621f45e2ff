"""The page is killed at random moments, with browsers that follow. `tests.support.web_kills` does it for longer."""

from __future__ import annotations

import random
import time
from pathlib import Path

from perceiverd.wire import Event, subscribe
from tests.support import messages
from tests.support.pages import DEADLINE_S, Follower, served
from tests.support.running_daemon import RunningDaemon

EVENTS = 40


def test_kills_of_the_page_cost_no_message(tmp_path: Path) -> None:
    """Another subscriber receives every event, in order, while the page is killed and started again."""
    rng = random.Random(1)
    with RunningDaemon() as daemon, subscribe(daemon.endpoint, ("events/", "scores/")) as watcher:
        received: list[str] = []
        sent = 0
        while watcher.receive_message(1) is None:
            pass
        for _ in range(3):
            with served(tmp_path, "--endpoint", daemon.endpoint) as page:  # it is killed at the end
                follower = Follower(page.port)
                follower.next("streams")
                until_s = time.monotonic() + rng.uniform(0.1, 0.5)
                while time.monotonic() < until_s or sent % EVENTS:
                    sent += 1
                    daemon.send(messages.event("begin", sent, "door"), messages.event("end", sent, "door"))
                    time.sleep(0.005)
            follower.close()
        end_s = time.monotonic() + DEADLINE_S
        while len(received) < 2 * sent:
            assert time.monotonic() < end_s
            message = watcher.receive_message(1)
            if isinstance(message, Event):
                received.append(message.id)
        assert received == [str(number) for number in range(1, sent + 1) for _ in range(2)]
        assert watcher.missed == 0
