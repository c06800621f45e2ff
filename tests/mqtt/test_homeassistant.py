"""The topics of Home Assistant: what a broker should hold after each message, without a broker."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiverd.core.labels import ontology
from perceiverd.mqtt.homeassistant import MqttMessage, TopicState, slug
from perceiverd.wire.messages import Message
from tests.support.messages import hello, scores, status
from tests.support.messages import label_event as event

DOG, BARK, ROOSTER = (ontology().find(name) for name in ("Dog", "Bark", "Chicken, rooster"))


def changes(state: TopicState, received: Iterable[Message]) -> list[MqttMessage]:
    return [change for message in received for change in state.update(message)]


def states(sent: Sequence[MqttMessage]) -> list[tuple[str, str]]:
    """The states that are sent, in order, by `STREAM/LABEL`."""
    return [
        (message.topic.removeprefix("perceiverd/").removesuffix("/state"), message.payload.decode())
        for message in sent
        if message.topic.endswith("/state")
    ]


def up(*labels: str) -> TopicState:
    """The topics after a hello and two statuses of a stream that is up."""
    state = TopicState("perceiverd", "homeassistant", [ontology().find(name) for name in labels])
    changes(state, [hello("door"), status("door"), status("door")])
    return state


def body(state: TopicState, topic: str) -> Any:
    return json.loads(state.retained[topic])


def test_requested_labels_exist_from_the_start() -> None:
    """They are off, announced to Home Assistant, and available once the stream is up."""
    state = TopicState("perceiverd", "homeassistant", [ROOSTER])
    changes(state, [hello("door", "gate"), status("door"), status("gate", "backing off")])
    assert {topic: state.retained[topic] for topic in state.retained if not topic.endswith("/config")} == {
        "perceiverd/door/availability": b"online",
        "perceiverd/door/chicken_rooster/state": b"OFF",
        "perceiverd/gate/availability": b"offline",
        "perceiverd/gate/chicken_rooster/state": b"OFF",
    }
    sensor = body(state, "homeassistant/binary_sensor/perceiverd-gate/chicken_rooster/config")
    assert sensor["name"] == "Chicken, rooster"
    assert sensor["unique_id"] == "perceiverd/gate/chicken_rooster"
    assert sensor["state_topic"] in state.retained
    assert sensor["availability"] == [{"topic": state.availability}, {"topic": "perceiverd/gate/availability"}]
    assert sensor["device"]["identifiers"] == ["perceiverd/gate"]


def test_an_event_turns_its_label_on_and_off() -> None:
    """A label that was not requested is announced once, at its first event, with attributes of that event."""
    state = up()
    sent = changes(
        state, [event("begin", "Dog"), event("update", "Dog", peak=0.9), event("end", "Dog", reason="faded")]
    )
    assert states(sent) == [("door/dog", "ON"), ("door/dog", "OFF")]
    assert sum(message.topic.endswith("/config") for message in sent) == 1
    attributes = body(state, "perceiverd/door/dog/attributes")
    assert attributes["peak"] == 0.9
    assert attributes["since"] == "2026-01-31T12:00:00Z"
    passing = [json.loads(message.payload) for message in sent if not message.retain]
    assert [each["kind"] for each in passing] == ["begin", "update", "end"]
    assert {message.topic for message in sent if not message.retain} == {"perceiverd/door/events"}


def test_a_label_is_on_while_a_label_below_it_is() -> None:
    """An event of Bark replaces the one of Dog, and Dog stays on without interruption."""
    state = up("Dog")
    sent = changes(
        state,
        [
            event("begin", "Dog"),
            event("end", "Dog", reason="subsumed"),
            event("begin", "Bark"),
            status("door"),
        ],
    )
    assert states(sent) == [("door/dog", "ON"), ("door/bark", "ON")]
    assert body(state, "perceiverd/door/dog/attributes")["label"] == "Bark"
    assert states(changes(state, [event("end", "Bark", reason="faded")])) == [("door/dog", "OFF"), ("door/bark", "OFF")]


def test_a_split_event_does_not_flicker() -> None:
    """An event ends at its maximum duration and continues in another: the label stays on."""
    state = up()
    sent = changes(
        state,
        [
            event("begin", "Dog", id_="1"),
            event("end", "Dog", id_="1", reason="maximum duration"),
            event("begin", "Dog", id_="2", reason="split", continues="1"),
            status("door"),
        ],
    )
    assert states(sent) == [("door/dog", "ON")]
    assert states(changes(state, [event("end", "Dog", id_="2", reason="faded")])) == [("door/dog", "OFF")]


@pytest.mark.parametrize("reason", ["subsumed", "maximum duration"])
def test_an_event_without_its_replacement_ends_with_the_next_status(reason: str) -> None:
    """If the replacement of an event never comes, the label turns off."""
    state = up()
    assert states(changes(state, [event("begin", "Dog"), event("end", "Dog", reason=reason)])) == [("door/dog", "ON")]
    assert states(changes(state, [status("door")])) == [("door/dog", "OFF")]


def test_a_killed_daemon_leaves_no_label_on() -> None:
    """Two statuses of the next daemon must pass, so that a late repetition of an open event does not flicker."""
    state = up()
    changes(state, [event("begin", "Dog"), event("begin", "Speech")])
    sent = changes(state, [hello("door", boot_id="b"), status("door", boot_id="b"), event("begin", "Dog", boot_id="b")])
    assert states(sent) == []
    assert states(changes(state, [status("door", boot_id="b")])) == [("door/speech", "OFF")]


def test_lost_messages_leave_no_label_on() -> None:
    """After a gap only events that are repeated stay on."""
    state = up()
    changes(state, [event("begin", "Dog"), event("begin", "Speech")])
    assert state.resubscribed() == []
    again = msgspec.structs.replace(event("begin", "Dog"), repeated=True)
    sent = changes(state, [again, status("door"), status("door")])
    assert states(sent) == [("door/speech", "OFF")]
    assert not [message for message in sent if not message.retain]  # a repetition is not forwarded


def test_a_stale_daemon_makes_its_streams_unavailable() -> None:
    """This is sent once, and lasts until the next status."""
    state = up("Dog")
    assert state.daemon_stale() == [MqttMessage("perceiverd/door/availability", b"offline", True)]
    assert state.daemon_stale() == []
    assert changes(state, [status("door")]) == [MqttMessage("perceiverd/door/availability", b"online", True)]


def test_a_stream_is_available_while_one_of_its_sources_is() -> None:
    """A broken camera does not make the microphone beside it unavailable."""
    state = up()
    changes(state, [status("door", "backing off", "up")])
    assert state.retained["perceiverd/door/availability"] == b"online"
    changes(state, [hello("gate")])  # after a reload
    assert state.retained["perceiverd/door/availability"] == b"offline"


def test_retained_messages_of_an_earlier_run_are_corrected() -> None:
    """A label is corrected once the open events are confirmed, and a removed stream becomes unavailable."""
    state = TopicState("perceiverd", "homeassistant")
    topics = ["door/availability", "door/dog/state", "door/bark/state", "cellar/availability", "door/no_label/state"]
    sent = [message for topic in topics for message in state.restore(f"perceiverd/{topic}")]
    assert {message.topic for message in sent} == {"perceiverd/door/availability", "perceiverd/cellar/availability"}
    sent = changes(state, [hello("door"), event("begin", "Dog"), status("door")])
    assert states(sent) == [("door/dog", "ON")]
    sent = changes(state, [status("door")])
    assert states(sent) == [("door/bark", "OFF")]
    assert "homeassistant/binary_sensor/perceiverd-door/bark/config" in {message.topic for message in sent}
    assert state.retained["perceiverd/cellar/availability"] == b"offline"


def test_scores_are_not_forwarded() -> None:
    """They come several times a second, which Home Assistant does not need."""
    assert up().update(scores("door")) == []


def test_discovery_can_be_disabled() -> None:
    """Without a discovery prefix no sensor is announced."""
    state = TopicState("perceiverd", "", [DOG])
    changes(state, [hello("door")])
    assert not [topic for topic in state.retained if topic.endswith("/config")]


def test_losses_are_published() -> None:
    """They are sent when they change."""
    state = up()
    assert state.set_losses(0, 3) == [MqttMessage("perceiverd/losses", b'{"dropped":0,"missed":3}', True)]
    assert state.set_losses(0, 3) == []


def test_no_two_labels_share_a_topic() -> None:
    """AudioSet's names stay distinct as topics, and have only characters that a topic may have."""
    slugs = [slug(label.name) for label in ontology().labels]
    assert len(set(slugs)) == len(slugs)
    assert all(part.isascii() and part.replace("_", "").isalnum() for part in slugs)
    assert BARK.mid in ontology().parents


NAMES = ("Dog", "Bark", "Speech")


@given(st.lists(st.tuples(st.sampled_from(["begin", "update", "end", "status", "reboot"]), st.sampled_from(NAMES))))
def test_a_label_is_on_exactly_while_it_has_an_open_event(steps: list[tuple[Any, str]]) -> None:
    """After any messages a label is on if, and only if, it or a label below it has an open event."""
    state, boot = up(), 0
    open_: set[str] = set()
    for what, name in steps:
        match what:
            case "status":
                changes(state, [status("door", boot_id=str(boot))])
            case "reboot":
                boot += 1
                open_.clear()
                changes(state, [hello("door", boot_id=str(boot))])
            case _:
                changes(state, [event(what, name, boot_id=str(boot), reason="faded")])
                open_ = open_ - {name} if what == "end" else open_ | {name}
    changes(state, [status("door", boot_id=str(boot))] * 2)
    for name in NAMES:
        if (payload := state.retained.get(f"perceiverd/door/{slug(name)}/state")) is not None:
            assert (payload == b"ON") is bool(open_ & ({"Dog", "Bark"} if name == "Dog" else {name}))
