"""The state of machines and streams from messages, and what waits for a browser."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from perceiverd.web import feed
from perceiverd.web.feed import Feed, Follower
from perceiverd.web.live import Instant, LiveMachine
from perceiverd.wire import Gap, Restarted, Stale
from tests.support import messages

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def at(seconds: float) -> Instant:
    return Instant(NOW + timedelta(seconds=seconds), 1000 + seconds)


def machine(*streams: str) -> LiveMachine:
    made = LiveMachine("house", "ipc:///x")
    made.receive(messages.hello(*streams), at(0))
    return made


def test_a_stream_appears_with_its_daemon_and_leaves_with_a_reload() -> None:
    """Streams are those of the newest `hello`; a late message of a removed one brings it not back."""
    made = machine("door", "yard")
    assert sorted(made.streams) == ["door", "yard"]
    changes = made.receive(messages.hello("door", "attic"), at(1))
    assert (sorted(made.streams), changes.membership) == (["attic", "door"], True)
    made.receive(messages.status("yard"), at(2))
    assert "yard" not in made.streams


def test_silence_marks_everything_old() -> None:
    """And the first message after it marks everything as new."""
    made = machine("door")
    changes = made.receive(Stale(3.0, over=False), at(3))
    assert (changes.machine, changes.streams) == (True, {"door"})
    answer = made.streams["door"].answer("house", made.silent)
    assert answer.stale and answer.problem == "its machine is silent: nothing is received from the daemon"
    made.receive(messages.status("door"), at(4))
    assert not made.answer().silent


def test_problems_are_words() -> None:
    """A failing source, frozen video and windows that were dropped lately."""
    made = machine("door")
    failing = msgspec.structs.replace(messages.status("door", "backing off"), data_age_s=200.0)
    made.receive(failing, at(1))
    answer = made.streams["door"].answer("house", False)
    assert answer.problem == "the source fails; it is tried again (last data 3 min ago)"
    frozen = msgspec.structs.replace(messages.source_status(), stalls=("frozen picture",))
    made.receive(msgspec.structs.replace(messages.status("door"), sources=(frozen,)), at(2))
    answer = made.streams["door"].answer("house", False)
    assert (answer.problem, answer.since) == ("frozen picture, which counts as missing", at(2).utc)
    made.receive(msgspec.structs.replace(messages.status("door"), dropped=7), at(3))
    assert "7 windows were dropped in the last minute" in str(made.streams["door"].answer("house", False).problem)
    made.receive(msgspec.structs.replace(messages.status("door"), dropped=7), at(70))
    assert made.streams["door"].answer("house", False).problem is None


def test_open_events_follow_their_messages() -> None:
    """They are listed from beginning to end, and a restart of the daemon ends them."""
    made = machine("door")
    made.receive(messages.label_event("begin", "Dog"), at(1))
    assert [each.name for each in made.streams["door"].answer("house", False).open_events] == ["Dog"]
    made.receive(messages.label_event("end", "Dog"), at(2))
    assert made.streams["door"].answer("house", False).open_events == ()
    made.receive(messages.label_event("begin", "Cat"), at(3))
    made.receive(Restarted("b", "a"), at(4))
    assert made.streams["door"].answer("house", False).open_events == ()


def test_losses_are_counted() -> None:
    """Messages that were published and not received belong to the machine."""
    made = machine("door")
    made.receive(Gap("scores/door/", 5, "a"), at(1))
    assert made.answer().missed == 5


def frames(data: bytes) -> list[tuple[str, Any]]:
    """The kinds and the data of server-sent events."""
    found = []
    for part in data.decode().split("\n\n"):
        if part.startswith("event: "):
            kind, _, rest = part.removeprefix("event: ").partition("\ndata: ")
            found.append((kind, json.loads(rest)))
    return found


def test_only_the_newest_state_waits() -> None:
    """A slow browser gets the last state of each stream, and all events in order."""
    made = Feed()
    follower = made.join()
    assert follower
    for number in range(5):
        made.latest("a", "stream", {"n": number})
        made.event({"e": number})
    assert frames(follower.take()) == [("stream", {"n": 4}), *(("event", {"e": n}) for n in range(5))]
    assert follower.take() == b""


def test_events_beyond_the_bound_are_counted_and_told() -> None:
    """Memory for one browser is bounded."""
    made = Feed()
    follower = made.join()
    assert follower
    for number in range(feed.MOST_EVENTS + 7):
        made.event(number)
    got = frames(follower.take())
    assert (len(got), got[-1]) == (feed.MOST_EVENTS + 1, ("missed", {"events": 7}))
    assert made.dropped == 7


def test_reasons_go_to_those_who_want_them() -> None:
    """And the bound of followers holds until one leaves."""
    made = Feed()
    wants, other = made.join("house/door"), made.join()
    assert wants and other
    made.explained("house/door", 1)
    assert (frames(wants.take()), other.take()) == ([("explain", 1)], b"")
    for _ in range(feed.MOST_CLIENTS - 2):
        assert made.join()
    assert (made.join(), made.refused) == (None, 1)
    made.leave(wants)
    assert made.join()


def test_a_follower_ends_when_it_is_no_longer_allowed() -> None:
    """After signing out nothing more is sent."""

    async def collected() -> list[bytes]:
        follower = Follower()
        found: list[bytes] = []
        async for data in feed.frames(follower, b"first", lambda: len(found) < 2):
            found.append(data)
            follower.put_event(b"x")
        return found

    with ThreadPoolExecutor(1) as pool:  # in this thread a browser of other tests may have an event loop
        assert pool.submit(lambda: asyncio.run(collected())).result() == [b"retry: 3000\n\nfirst", b"x"]
