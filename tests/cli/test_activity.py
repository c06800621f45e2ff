"""What a daemon's messages tell: how every stream is, and what happened."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from perceiverd.cli.activity import RECENT, Activity, lasting
from perceiverd.wire.messages import Event, Explanation, Hello, Message, Model, Scores, SourceStatus, Status, Tag

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MODEL = Model("tiny", "0" * 64)
HELLO = Hello(
    version="9.9",
    streams=("door", "gate"),
    model=MODEL,
    hop_s=0.5,
    status_interval_s=1.0,
    up_since=NOW,
    boot_id="b1",
)
SCORES = Scores(
    stream="door",
    start=NOW,
    end=NOW,
    start_s=0,
    end_s=1,
    latency_ms=140,
    modalities=("audio",),
    model=MODEL,
    labels=(Tag("/m/1", 74, "Dog", 0.88), Tag("/m/2", 75, "[b]Bark", 0.5)),
    dropped=3,
)
SOURCE = SourceStatus(source="cam", state="up", data_age_s=0.1, restarts={}, dropped=0)
STATUS = Status(
    stream="door",
    time=NOW,
    state="up",
    sources=(SOURCE,),
    data_age_s=0.1,
    windows=8,
    dropped=0,
    late=0,
    gaps=0,
    subscriptions=1,
    up_since=NOW,
    model=MODEL,
)
WHY = Explanation(score=0.9, on=0.6, off=0.3, windows=4, since=NOW, reason="confirmed")
BEGIN = Event(
    stream="door",
    kind="begin",
    id="74-0",
    mid="/m/1",
    index=74,
    name="Dog",
    start=NOW,
    end=NOW + timedelta(seconds=2),
    start_s=0,
    end_s=2,
    duration_s=2,
    peak=0.93,
    mean=0.8,
    modalities=("audio",),
    continues=None,
    explanation=WHY,
    latency_ms=140.0,
    model=MODEL,
)


def lines(chronicle: Activity, *messages: Message) -> list[str]:
    """What each of these messages tells, those that tell nothing left out."""
    told = [chronicle.take(message, NOW) for message in messages]
    return [happening.text for happening in told if happening]


def status(state: str, dropped: int = 0, at_s: float = 0, **restarts: int) -> Status:
    source = msgspec.structs.replace(SOURCE, restarts=restarts)
    time = NOW + timedelta(seconds=at_s)
    return msgspec.structs.replace(STATUS, state=state, dropped=dropped, sources=(source,), time=time)


def end(reason: str) -> Event:
    why = msgspec.structs.replace(WHY, reason=reason)
    return msgspec.structs.replace(BEGIN, kind="end", duration_s=14.2, peak=0.97, explanation=why)


def test_who_speaks_is_told_once() -> None:
    """The first greeting is news, its repetition is not; other streams after a reload are, and so is a new daemon."""
    chronicle = Activity("ipc://x")
    fewer = msgspec.structs.replace(HELLO, streams=("door",))
    assert lines(chronicle, HELLO, HELLO, fewer) == [
        "perceiverd 9.9, model tiny, streams: door, gate",
        "reloaded, streams: door",
    ]
    assert list(chronicle.streams) == ["door"]
    assert chronicle.restarted(NOW).grave
    assert lines(chronicle, HELLO) == ["perceiverd 9.9, model tiny, streams: door, gate"]


def test_a_state_is_told_when_it_changes() -> None:
    """A stream that is lost is told of once, however often it is tried again in vain, and when it is back."""
    chronicle = Activity("ipc://x")
    tries = [status("stalled"), status("backing off", stalled=1), status("starting", stalled=1), status("stalled")]
    assert lines(chronicle, status("starting"), status("up"), status("up"), *tries, status("up", stalled=1)) == [
        "door: starting",
        "door: up",
        "door: stalled",
        "door: up (stalled 1x)",
    ]
    assert [happening.grave for happening in chronicle.recent] == [False, False, True, False]


def test_drops_are_told_at_most_once_a_minute() -> None:
    """What was dropped before is no news; then the number since last told, and not with every status."""
    chronicle = Activity("ipc://x")
    drops = [status("up", dropped, at_s) for dropped, at_s in ((5, 0), (6, 1), (7, 30), (9, 62), (9, 200))]
    assert lines(chronicle, *drops) == [
        "door: up",
        "door: dropped 1 window, too busy to tag them",
        "door: dropped 3 windows, too busy to tag them",
    ]


def test_an_event_begins_and_ends() -> None:
    """Begin and end are told, with what made them; that it goes on is not; an end says why where it did not fade."""
    chronicle = Activity("ipc://x")
    update = msgspec.structs.replace(BEGIN, kind="update", peak=0.95)
    assert lines(chronicle, BEGIN, update) == ["door: Dog began, 0.90 (from 0.60 on)"]
    assert chronicle.streams["door"].events == {"74-0": update}
    assert lines(chronicle, end("faded")) == ["door: Dog ended after 14 s, peak 0.97"]
    assert chronicle.streams["door"].events == {}
    assert lines(chronicle, BEGIN, end("stream lost"))[1] == "door: Dog ended after 14 s, peak 0.97 (stream lost)"


def test_an_event_that_was_there_before_is_told_as_such() -> None:
    """Who comes late hears that it has been on."""
    late = msgspec.structs.replace(BEGIN, kind="update", repeated=True)
    assert lines(Activity("ipc://x"), late) == ["door: Dog has been on since then, peak 0.93"]


def test_scores_are_no_news() -> None:
    """They are the latest of their stream, and no more; what is watched no more leaves no trace."""
    chronicle = Activity("ipc://x")
    assert lines(chronicle, SCORES) == []
    assert chronicle.streams["door"].scores == SCORES
    last_word = msgspec.structs.replace(STATUS, stream="gone", state="ended")
    assert lines(chronicle, HELLO, last_word) == ["perceiverd 9.9, model tiny, streams: door, gate"]
    assert set(chronicle.streams) == {"door", "gate"}


def test_losses_and_silence_are_happenings() -> None:
    """Missed messages are counted and told; a silence is told with its end."""
    chronicle = Activity("ipc://x")
    assert chronicle.lost("scores/door/", 1, NOW).text == "missed 1 message of scores/door/"
    assert chronicle.lost("scores/door/", 3, NOW).text == "missed 3 messages of scores/door/"
    assert chronicle.missed == 4
    assert chronicle.silent(NOW, NOW, "nothing heard").grave
    assert chronicle.silent_since == NOW
    assert chronicle.heard_again(NOW + timedelta(seconds=75)).text == "heard again after 75 s"
    assert chronicle.silent_since is None


def test_only_so_much_is_kept() -> None:
    """Months of happenings need no more memory than a screenful."""
    chronicle = Activity("ipc://x")
    for _ in range(3 * RECENT):
        chronicle.lost("scores/door/", 1, NOW)
    assert len(chronicle.recent) == RECENT


TIMES = [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119, "119 s"), (125, "2 min"), (3599, "59 min")]
LONGER = [(7500, "2 h 5 min"), (172_799, "47 h 59 min"), (183_600, "2 d 3 h")]


@pytest.mark.parametrize(("seconds", "told"), [*TIMES, *LONGER])
def test_lengths_of_time_are_for_people(seconds: float, told: str) -> None:
    """The longer it lasts, the coarser it is told."""
    assert lasting(seconds) == told


def test_what_stands_still_is_told_and_its_end() -> None:
    """Once each; so is that a stream is switched off."""
    frozen = msgspec.structs.replace(STATUS, sources=(msgspec.structs.replace(SOURCE, stalls=("frozen picture",)),))
    chronicle = Activity("ipc://x")
    lines(chronicle, HELLO, STATUS)
    assert lines(chronicle, frozen, frozen, STATUS, STATUS) == [
        "door: frozen picture; counts as missing",
        "door: frozen picture over",
    ]
    hello = msgspec.structs.replace(HELLO, disabled=("shed",))
    off = msgspec.structs.replace(STATUS, stream="shed", state="disabled")
    assert lines(chronicle, off) == []  # nobody spoke of it
    assert lines(chronicle, hello, off, off) == ["shed: disabled"]
