"""The mirror: what a broker should hold, from what the daemon says."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.labels import ontology
from perceiverd.mqtt.homeassistant import MqttMessage, TopicState, slug
from perceiverd.wire.messages import Event, Explanation, Hello, Message, Model, Status
from tests.support import messages

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
MODEL = Model("tiny", "0" * 64)
DOG, BARK, ROOSTER = (ontology().find(name) for name in ("Dog", "Bark", "Chicken, rooster"))


def hello(*streams: str, boot_id: str = "a") -> Hello:
    return Hello(
        version="9.9",
        streams=streams,
        model=MODEL,
        hop_s=0.5,
        status_interval_s=1.0,
        up_since=NOW,
        boot_id=boot_id,
    )


def status(stream: str, *states: str, boot_id: str = "a") -> Status:
    return messages.status(stream, *states, boot_id=boot_id)


def event(
    kind: Literal["begin", "update", "end"],
    name: str,
    *,
    stream: str = "door",
    id_: str = "",
    reason: str = "",
    continues: str | None = None,
    boot_id: str = "a",
    peak: float = 0.75,
) -> Event:
    label = ontology().find(name)
    return Event(
        stream=stream,
        kind=kind,
        id=id_ or f"{label.index}-1",
        mid=label.mid,
        index=label.index,
        name=name,
        start=NOW,
        end=NOW,
        start_s=0,
        end_s=1,
        duration_s=1,
        peak=peak,
        mean=0.5,
        modalities=("audio",),
        continues=continues,
        explanation=Explanation(score=0.7, on=0.6, off=0.4, windows=2, since=NOW, reason=reason),
        latency_ms=9,
        model=MODEL,
        boot_id=boot_id,
    )


def told(mirror: TopicState, messages: Iterable[Message]) -> list[MqttMessage]:
    return [note for message in messages for note in mirror.take(message)]


def states(notes: Sequence[MqttMessage]) -> list[tuple[str, str]]:
    """The states that are told, in order, by `STREAM/LABEL`."""
    return [
        (note.topic.removeprefix("perceiverd/").removesuffix("/state"), note.payload.decode())
        for note in notes
        if note.topic.endswith("/state")
    ]


def mirror(*labels: str) -> TopicState:
    """One that has been greeted, and whose stream is up."""
    made = TopicState("perceiverd", "homeassistant", [ontology().find(name) for name in labels])
    told(made, [hello("door"), status("door"), status("door")])
    return made


def body(mirror: TopicState, topic: str) -> Any:
    return json.loads(mirror.kept[topic])


def test_labels_that_were_asked_for_are_there_from_the_start() -> None:
    """Off, announced to Home Assistant, and available once the stream is up."""
    made = TopicState("perceiverd", "homeassistant", [ROOSTER])
    told(made, [hello("door", "gate"), status("door"), status("gate", "backing off")])
    assert {topic: made.kept[topic] for topic in made.kept if not topic.endswith("/config")} == {
        "perceiverd/door/availability": b"online",
        "perceiverd/door/chicken_rooster/state": b"OFF",
        "perceiverd/gate/availability": b"offline",
        "perceiverd/gate/chicken_rooster/state": b"OFF",
    }
    sensor = body(made, "homeassistant/binary_sensor/perceiverd-gate/chicken_rooster/config")
    assert sensor["name"] == "Chicken, rooster"
    assert sensor["unique_id"] == "perceiverd/gate/chicken_rooster"
    assert sensor["state_topic"] in made.kept
    assert sensor["availability"] == [{"topic": made.availability}, {"topic": "perceiverd/gate/availability"}]
    assert sensor["device"]["identifiers"] == ["perceiverd/gate"]


def test_an_event_turns_its_label_on_and_off() -> None:
    """A label that nobody asked for is announced with its first event, once, and says what was heard."""
    made = mirror()
    notes = told(made, [event("begin", "Dog"), event("update", "Dog", peak=0.9), event("end", "Dog", reason="faded")])
    assert states(notes) == [("door/dog", "ON"), ("door/dog", "OFF")]
    assert sum(note.topic.endswith("/config") for note in notes) == 1
    attributes = body(made, "perceiverd/door/dog/attributes")
    assert attributes["peak"] == 0.9
    assert attributes["since"] == "2026-01-31T12:00:00Z"
    passing = [json.loads(note.payload) for note in notes if not note.kept]
    assert [each["kind"] for each in passing] == ["begin", "update", "end"]
    assert {note.topic for note in notes if not note.kept} == {"perceiverd/door/events"}


def test_a_label_is_on_while_one_below_it_is() -> None:
    """Who barks is a dog, although the event of the label below took the place of its own; nothing flickers."""
    made = mirror("Dog")
    notes = told(
        made,
        [
            event("begin", "Dog"),
            event("end", "Dog", reason="subsumed"),
            event("begin", "Bark"),
            status("door"),
        ],
    )
    assert states(notes) == [("door/dog", "ON"), ("door/bark", "ON")]
    assert body(made, "perceiverd/door/dog/attributes")["label"] == "Bark"
    assert states(told(made, [event("end", "Bark", reason="faded")])) == [("door/dog", "OFF"), ("door/bark", "OFF")]


def test_an_event_that_goes_on_in_another_does_not_flicker() -> None:
    """One that had lasted as long as one may ends and begins anew: the label stays on."""
    made = mirror()
    notes = told(
        made,
        [
            event("begin", "Dog", id_="1"),
            event("end", "Dog", id_="1", reason="maximum duration"),
            event("begin", "Dog", id_="2", reason="split", continues="1"),
            status("door"),
        ],
    )
    assert states(notes) == [("door/dog", "ON")]
    assert states(told(made, [event("end", "Dog", id_="2", reason="faded")])) == [("door/dog", "OFF")]


@pytest.mark.parametrize("reason", ["subsumed", "maximum duration"])
def test_what_nothing_follows_ends_with_the_next_status(reason: str) -> None:
    """An event that gave way to one that never came is over all the same."""
    made = mirror()
    assert states(told(made, [event("begin", "Dog"), event("end", "Dog", reason=reason)])) == [("door/dog", "ON")]
    assert states(told(made, [status("door")])) == [("door/dog", "OFF")]


def test_a_daemon_that_was_killed_leaves_nothing_on() -> None:
    """Of the one that comes after it two statuses are awaited, lest an open event that is told late flickers."""
    made = mirror()
    told(made, [event("begin", "Dog"), event("begin", "Speech")])
    notes = told(made, [hello("door", boot_id="b"), status("door", boot_id="b"), event("begin", "Dog", boot_id="b")])
    assert states(notes) == []
    assert states(told(made, [status("door", boot_id="b")])) == [("door/speech", "OFF")]


def test_messages_that_were_lost_leave_nothing_on() -> None:
    """After a hole in what was heard, only what is told of again stays on."""
    made = mirror()
    told(made, [event("begin", "Dog"), event("begin", "Speech")])
    assert made.doubt() == []
    again = msgspec.structs.replace(event("begin", "Dog"), repeated=True)
    notes = told(made, [again, status("door"), status("door")])
    assert states(notes) == [("door/speech", "OFF")]
    assert not [note for note in notes if not note.kept]  # a repetition is no news


def test_a_silent_daemon_makes_its_streams_unavailable() -> None:
    """Until it is heard again; told once."""
    made = mirror("Dog")
    assert made.silence() == [MqttMessage("perceiverd/door/availability", b"offline", True)]
    assert made.silence() == []
    assert told(made, [status("door")]) == [MqttMessage("perceiverd/door/availability", b"online", True)]


def test_a_stream_is_there_while_any_of_its_sources_is() -> None:
    """A broken camera does not silence the microphone beside it."""
    made = mirror()
    told(made, [status("door", "backing off", "up")])
    assert made.kept["perceiverd/door/availability"] == b"online"
    told(made, [hello("gate")])  # after a reload
    assert made.kept["perceiverd/door/availability"] == b"offline"


def test_what_the_broker_kept_is_taken_up_again() -> None:
    """A label of an earlier life is set right once it is certain what is open; a stream of then is unavailable."""
    made = TopicState("perceiverd", "homeassistant")
    kept = ["door/availability", "door/dog/state", "door/bark/state", "cellar/availability", "door/no_label/state"]
    notes = [note for topic in kept for note in made.recall(f"perceiverd/{topic}")]
    assert {note.topic for note in notes} == {"perceiverd/door/availability", "perceiverd/cellar/availability"}
    notes = told(made, [hello("door"), event("begin", "Dog"), status("door")])
    assert states(notes) == [("door/dog", "ON")]
    notes = told(made, [status("door")])
    assert states(notes) == [("door/bark", "OFF")]
    assert "homeassistant/binary_sensor/perceiverd-door/bark/config" in {note.topic for note in notes}
    assert made.kept["perceiverd/cellar/availability"] == b"offline"


def test_scores_are_not_for_a_home() -> None:
    """They come several times a second."""
    assert mirror().take(messages.scores("door", boot_id="a")) == []


def test_discovery_can_be_left_out() -> None:
    """For those who have no Home Assistant."""
    made = TopicState("perceiverd", "", [DOG])
    told(made, [hello("door")])
    assert not [topic for topic in made.kept if topic.endswith("/config")]


def test_losses_are_told() -> None:
    """When they change."""
    made = mirror()
    assert made.lose(0, 3) == [MqttMessage("perceiverd/losses", b'{"dropped":0,"missed":3}', True)]
    assert made.lose(0, 3) == []


def test_no_two_labels_share_a_topic() -> None:
    """The names of AudioSet's labels stay different in topics, and hold nothing that a topic may not."""
    slugs = [slug(label.name) for label in ontology().labels]
    assert len(set(slugs)) == len(slugs)
    assert all(part.isascii() and part.replace("_", "").isalnum() for part in slugs)
    assert BARK.mid in ontology().parents


NAMES = ("Dog", "Bark", "Speech")


@given(st.lists(st.tuples(st.sampled_from(["begin", "update", "end", "status", "reboot"]), st.sampled_from(NAMES))))
def test_what_is_kept_is_what_is_open(steps: list[tuple[Any, str]]) -> None:
    """Whatever happens: in the end a label is on just where it, or one below it, has an open event."""
    made, boot = mirror(), 0
    open_: set[str] = set()
    for what, name in steps:
        match what:
            case "status":
                told(made, [status("door", boot_id=str(boot))])
            case "reboot":
                boot += 1
                open_.clear()
                told(made, [hello("door", boot_id=str(boot))])
            case _:
                told(made, [event(what, name, boot_id=str(boot), reason="faded")])
                open_ = open_ - {name} if what == "end" else open_ | {name}
    told(made, [status("door", boot_id=str(boot))] * 2)
    for name in NAMES:
        if (state := made.kept.get(f"perceiverd/door/{slug(name)}/state")) is not None:
            assert (state == b"ON") is bool(open_ & ({"Dog", "Bark"} if name == "Dog" else {name}))
