"""The store: what the recorder and the writer make of messages, read back by the reader."""

import sqlite3
from pathlib import Path

import pytest

from perceiverd.history.operations import SeeMachine, StoreEvent
from perceiverd.wire import Gap, Restarted, Stale
from tests.support.history import START, Store, at, event, scores, status
from tests.support.messages import hello


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    made.begin(0)
    made.receive(0, hello("door", boot_id="boot"), status(0))
    return made


def test_an_event_has_what_its_messages_say(store: Store) -> None:
    """The begin says why it began, the end why it ended, and the latest message its scores."""
    store.receive(2, event("begin", "Dog", 1, 2), event("update", "Dog", 1, 12, peak=0.875))
    store.receive(14, event("end", "Dog", 1, 13, peak=0.9))
    with store.reader() as reader:
        (found,) = reader.events().events
        assert reader.event(found.id) == found
        assert reader.event_of_message("house", "door", "boot", "Dog-1") == found
    assert (found.machine, found.stream, found.name, found.mid) == ("house", "door", "Dog", "/m/0bt9lr")
    assert (found.start, found.end, found.duration_s, found.state) == (at(1), at(13), 12, "ended")
    assert (found.peak, found.mean) == (0.9, 0.5)
    assert (found.details.began, found.details.begin_score, found.details.ended) == ("confirmed", 0.7, "faded")


def test_a_message_after_the_end_changes_nothing(store: Store) -> None:
    """A repetition that comes late does not open the event again."""
    store.receive(5, event("begin", "Dog", 1, 2), event("end", "Dog", 1, 4), event("update", "Dog", 1, 3))
    with store.reader() as reader:
        (found,) = reader.events().events
    assert (found.state, found.end) == ("ended", at(4))


def test_an_event_whose_begin_was_lost_is_stored(store: Store) -> None:
    """Its begin has no reason then."""
    store.receive(5, event("end", "Dog", 1, 4))
    with store.reader() as reader:
        (found,) = reader.events().events
    assert (found.state, found.details.began, found.details.ended) == ("ended", "", "faded")


def test_minutes_have_the_highest_and_the_mean_score(store: Store) -> None:
    """The mean is over all windows of the minute; labels below the floor are left out, minutes add up."""
    store.receive(10, scores(10, ("Dog", 0.5), ("Cat", 0.04)), scores(11, ("Dog", 0.7)), scores(12))
    store.turn(13)  # the first turn writes what there is
    store.receive(20, scores(20, ("Dog", 0.2)))
    store.end(70)
    with store.reader() as reader:
        found = reader.heat_map("house", "door", START, at(180))
    assert list(found.windows) == [4, 0, 0]
    assert list(found.names) == ["Dog"]
    assert list(map(list, found.best)) == [[0.7, 0, 0]]
    assert list(map(list, found.mean)) == [[0.35, 0, 0]]


def test_a_trace_has_the_scores_around_both_ends(store: Store) -> None:
    """Windows from 10 s before the begin until 10 s after it, and from 10 s before the end until 10 s after it."""
    for second in range(1, 160):
        if second == 41:
            store.receive(41, event("begin", "Dog", 40, 41))
        if second == 121:
            store.receive(121, event("end", "Dog", 40, 120))
        store.receive(second, scores(second, ("Dog", second / 1000)))
    with store.reader() as reader:
        (found,) = reader.events().events
        trace = reader.trace(found.id)
    assert [round((window.end - START).total_seconds()) for window in trace] == [*range(30, 51), *range(110, 131)]
    assert trace[0].scores == {"/m/0bt9lr": 0.03}


def test_a_trace_survives_the_end_of_the_history(store: Store) -> None:
    """What was known of an open event is stored, and a later part is added to it."""
    store.receive(5, scores(5, ("Dog", 0.5)), event("begin", "Dog", 4, 5))
    store.end(6)
    again = Store(store.path.parent)
    again.begin(7)
    again.receive(8, hello("door", boot_id="boot"), event("update", "Dog", 4, 8), scores(8, ("Dog", 0.25)))
    again.end(9)
    with again.reader() as reader:
        trace = reader.trace(reader.events().events[0].id)
    assert [window.scores["/m/0bt9lr"] for window in trace] == [0.5, 0.25]


def test_states_of_a_stream_are_spans(store: Store) -> None:
    """A state lasts until the next one; equal heartbeats make no row."""
    store.receive(1, status(1))
    store.receive(5, status(5, "stalled"))
    store.receive(9, status(9))
    assert store.kinds() == [("door", "up", 0, 5), ("door", "stalled", 5, 9), ("door", "up", 9, None)]


def test_a_silent_daemon_is_a_span(store: Store) -> None:
    """It begins with the last message, ends with the next one, and ends the states of the streams."""
    store.receive(10, Stale(4, over=False))
    store.receive(20, Stale(14, over=True), status(20))
    assert store.kinds() == [("door", "up", 0, 6), (None, "daemon silent", 6, 20), ("door", "up", 20, None)]


def test_a_stop_of_the_history_is_a_span(store: Store) -> None:
    """Nothing was recorded from the last message before it to its new start."""
    store.end(30)
    again = Store(store.path.parent)
    again.begin(100)
    again.receive(101, hello("door", boot_id="boot"), status(101))
    assert again.kinds() == [("door", "up", 0, 30), (None, "history off", 30, 100), ("door", "up", 101, None)]


def test_a_restart_of_the_daemon_ends_its_events(store: Store) -> None:
    """Their end was not received; the restart is a row."""
    store.receive(5, event("begin", "Dog", 4, 5))
    store.receive(9, Restarted("new", "boot"), hello("door", boot_id="new"), status(9, boot_id="new"))
    with store.reader() as reader:
        assert [each.state for each in reader.events().events] == ["end not received"]
        assert [run.boot_id for run in reader.runs(at(-1), at(100))] == ["boot", "new"]
    assert (None, "daemon restarted", 0, 9) in store.kinds()


def test_the_same_key_in_another_run_is_another_event(store: Store) -> None:
    """Keys are made of the monotonic clock, which a reboot sets back."""
    store.receive(5, event("end", "Dog", 4, 5, key="1-1"))
    store.receive(9, hello("door", boot_id="new"), event("end", "Dog", 8, 9, key="1-1", boot_id="new"))
    with store.reader() as reader:
        assert reader.count() == 2


def test_an_open_event_that_the_daemon_does_not_repeat_is_over(store: Store) -> None:
    """After a new start of the history the daemon repeats what is open; the rest has ended meanwhile."""
    store.receive(5, event("begin", "Dog", 4, 5), event("begin", "Cat", 3, 5))
    again = Store(store.path.parent)
    again.begin(100)
    again.receive(100, hello("door", boot_id="boot"), event("update", "Cat", 3, 99))
    again.receive(102, event("begin", "Pig", 101, 102))
    again.turn(106)
    with again.reader() as reader:
        states = {each.name: each.state for each in reader.events().events}
    assert states == {"Dog": "end not received", "Cat": "open", "Pig": "open"}


def test_missed_messages_are_rows(store: Store) -> None:
    """Losses that follow each other are one row with their sum."""
    store.receive(10, event("end", "Dog", 4, 5))
    store.receive(20, Gap("events/door/", 3, "boot"))
    store.receive(22, Gap("events/door/", 2, "boot"))
    with store.reader() as reader:
        (found,) = reader.spans(START, at(100), kinds=["messages missed"])
    assert (found.stream, found.what, found.missed, found.start, found.end) == ("door", "events", 5, at(10), at(22))


def test_a_clock_that_is_off_is_marked(store: Store) -> None:
    """A span begins when the machine's clock is off, and ends when it is right again."""
    for second in range(1, 60):
        store.receive(second, status(second + 7 if second < 20 else second - 0.3))
    (found,) = [row for row in store.kinds() if row[1] == "clock off"]
    assert found == (None, "clock off", 2, 50)


def test_a_failed_batch_leaves_nothing(store: Store) -> None:
    """An operation that fails takes the whole transaction with it, and the next one succeeds."""
    good = StoreEvent("house", event("begin", "Dog", 4, 5))
    with pytest.raises(OverflowError):
        store.writer.apply([good, SeeMachine("house", 1 << 70, None)])
    with store.reader() as reader:
        assert reader.count() == 0
    store.writer.apply([good])
    with store.reader() as reader:
        assert reader.count() == 1


def test_the_database_is_consistent(store: Store) -> None:
    """Foreign keys hold, and SQLite finds no fault."""
    store.receive(5, event("end", "Dog", 4, 5), scores(5, ("Dog", 0.5)), status(5, "stalled"))
    store.end(6)
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
