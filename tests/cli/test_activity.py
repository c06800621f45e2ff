"""The latest state of each stream, and a line for each change."""

from datetime import timedelta

import msgspec
import pytest

from perceiverd.cli.activity import RECENT, Activity, duration
from perceiverd.wire.messages import Message
from tests.support.watched import BEGIN, HELLO, NOW, SCORES, SOURCE, STATUS, end, status


def lines(activity: Activity, *messages: Message) -> list[str]:
    """The texts of the entries that these messages make."""
    entries = [activity.update(message, NOW) for message in messages]
    return [entry.text for entry in entries if entry]


def test_the_daemon_is_reported_once() -> None:
    """The first `hello`, other streams after a reload and a new daemon are entries; a repeated `hello` is not."""
    activity = Activity("ipc://x")
    fewer = msgspec.structs.replace(HELLO, streams=("door",))
    assert lines(activity, HELLO, HELLO, fewer) == [
        "perceiverd 9.9, model tiny, streams: door, gate",
        "reloaded, streams: door",
    ]
    assert list(activity.streams) == ["door"]
    assert activity.restarted(NOW).is_loss
    assert lines(activity, HELLO) == ["perceiverd 9.9, model tiny, streams: door, gate"]


def test_a_state_is_reported_when_it_changes() -> None:
    """A lost stream gives one entry, however often its source restarts without success, and one when it is back."""
    activity = Activity("ipc://x")
    tries = [status("stalled"), status("backing off", stalled=1), status("starting", stalled=1), status("stalled")]
    assert lines(activity, status("starting"), status("up"), status("up"), *tries, status("up", stalled=1)) == [
        "door: starting",
        "door: up",
        "door: stalled",
        "door: up (stalled 1x)",
    ]
    assert [entry.is_loss for entry in activity.recent] == [False, False, True, False]


def test_drops_are_reported_at_most_once_a_minute() -> None:
    """Drops before this program started do not count; an entry has the number since the last entry."""
    activity = Activity("ipc://x")
    drops = [status("up", dropped, at_s) for dropped, at_s in ((5, 0), (6, 1), (7, 30), (9, 62), (9, 200))]
    assert lines(activity, *drops) == [
        "door: up",
        "door: dropped 1 window, too busy to tag them",
        "door: dropped 3 windows, too busy to tag them",
    ]


def test_an_event_begins_and_ends() -> None:
    """The begin and the end are entries, an update is not; an end has its reason unless the event faded."""
    activity = Activity("ipc://x")
    update = msgspec.structs.replace(BEGIN, kind="update", peak=0.95)
    assert lines(activity, BEGIN, update) == ["door: Dog began, 0.90 (threshold 0.60)"]
    assert activity.streams["door"].events == {"74-0": update}
    assert lines(activity, end("faded")) == ["door: Dog ended after 14 s, peak 0.97"]
    assert activity.streams["door"].events == {}
    assert lines(activity, BEGIN, end("stream lost"))[1] == "door: Dog ended after 14 s, peak 0.97 (stream lost)"


def test_an_event_that_began_earlier_is_reported() -> None:
    """A repeated message of an open event is an entry at the time when the event began."""
    late = msgspec.structs.replace(BEGIN, kind="update", repeated=True)
    assert lines(Activity("ipc://x"), late) == ["door: Dog is on since then, peak 0.93"]


def test_scores_are_not_entries() -> None:
    """Scores only become the latest of their stream; a removed stream leaves nothing."""
    activity = Activity("ipc://x")
    assert lines(activity, SCORES) == []
    assert activity.streams["door"].scores == SCORES
    last_word = msgspec.structs.replace(STATUS, stream="gone", state="ended")
    assert lines(activity, HELLO, last_word) == ["perceiverd 9.9, model tiny, streams: door, gate"]
    assert set(activity.streams) == {"door", "gate"}


def test_losses_and_silence_are_entries() -> None:
    """Missed messages are counted and reported; so are the begin and the end of a silence."""
    activity = Activity("ipc://x")
    assert activity.missed_messages("scores/door/", 1, NOW).text == "missed 1 message of scores/door/"
    assert activity.missed_messages("scores/door/", 3, NOW).text == "missed 3 messages of scores/door/"
    assert activity.missed == 4
    assert activity.silence_began(NOW, NOW, "nothing received").is_loss
    assert activity.silent_since == NOW
    assert activity.silence_ended(NOW + timedelta(seconds=75)).text == "messages arrive again after 75 s"
    assert activity.silent_since is None


def test_old_entries_are_dropped() -> None:
    """The number of entries that are kept is bounded."""
    activity = Activity("ipc://x")
    for _ in range(3 * RECENT):
        activity.missed_messages("scores/door/", 1, NOW)
    assert len(activity.recent) == RECENT


TIMES = [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119, "119 s"), (125, "2 min"), (3599, "59 min")]
LONGER = [(7500, "2 h 5 min"), (172_799, "47 h 59 min"), (183_600, "2 d 3 h")]


@pytest.mark.parametrize(("seconds", "text"), [*TIMES, *LONGER])
def test_durations_are_for_people(seconds: float, text: str) -> None:
    """The longer a duration, the coarser its text."""
    assert duration(seconds) == text


def test_stalls_and_their_end_are_reported() -> None:
    """The begin and the end of frozen video are one entry each; so is a stream that is switched off."""
    frozen = msgspec.structs.replace(STATUS, sources=(msgspec.structs.replace(SOURCE, stalls=("frozen picture",)),))
    activity = Activity("ipc://x")
    lines(activity, HELLO, STATUS)
    assert lines(activity, frozen, frozen, STATUS, STATUS) == [
        "door: frozen picture; counts as missing",
        "door: frozen picture ended",
    ]
    hello = msgspec.structs.replace(HELLO, disabled=("shed",))
    off = msgspec.structs.replace(STATUS, stream="shed", state="disabled")
    assert lines(activity, off) == []  # `hello` has not named it
    assert lines(activity, hello, off, off) == ["shed: disabled"]
