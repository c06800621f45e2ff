"""The daemon's streams and labels as MQTT topics, with Home Assistant's discovery. Pure: messages in, notes out.

| topic | payload | kept by the broker |
|---|---|---|
| `PREFIX/availability` | `online`, `offline`: the bridge, by its last will too | yes |
| `PREFIX/losses` | JSON: passing notes `dropped` here, and messages of the daemon's that were `missed` | yes |
| `PREFIX/STREAM/availability` | `online` while one of the stream's sources delivers | yes |
| `PREFIX/STREAM/LABEL/state` | `ON` while the label, or one below it in the ontology, has an open event | yes |
| `PREFIX/STREAM/LABEL/attributes` | JSON: the event, what was heard or seen, since when, how surely | yes |
| `PREFIX/STREAM/events` | each message of an event, JSON as on the wire | no |
| `DISCOVERY/binary_sensor/PREFIX-STREAM/LABEL/config` | JSON: what Home Assistant makes a sensor of | yes |

A label is there for every stream from the start where it was asked for, and otherwise from its first event on. A note
is made only of what has changed, so a sensor is announced once. What the broker has kept from an earlier life of the
bridge is taken up again, or a label would be on for ever whose event ended while the bridge was away.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import msgspec

from perceiverd.core.labels import Label, ontology
from perceiverd.wire.messages import Event, Hello, Message, Status

ONLINE, OFFLINE = b"online", b"offline"
GIVES_WAY = ("subsumed", "maximum duration")
"""Reasons for which an event ends because another takes its place, which is told just after it."""
CONFIRMED_BY = 2
"""Statuses after which an event that was not heard of again is over: the first may come ahead of the open events."""


@dataclass(frozen=True, slots=True)
class MqttMessage:
    """Something to be told to the broker."""

    topic: str
    payload: bytes
    kept: bool
    """Whether the broker keeps it for those who come later, in place of what it had."""


@dataclass(slots=True)
class _StreamTopics:
    """What is known of a stream."""

    labels: dict[str, str] = field(default_factory=dict)
    """Names of the labels that have topics, by mid."""
    open: dict[str, Event] = field(default_factory=dict)
    """The last message of each open event, by id."""
    leaving: set[str] = field(default_factory=set)
    """Those among them that have ended in favour of one that is yet to be told."""
    doubtful: set[str] = field(default_factory=set)
    """Those among them that may have ended while nobody listened."""
    statuses: int = 0
    """Heard since there is doubt."""


class TopicState:
    """What the broker should hold, and what it must be told to hold it."""

    def __init__(self, prefix: str, discovery: str, labels: Sequence[Label] = ()) -> None:
        """`discovery` is Home Assistant's prefix; "" for none. `labels` are there from the start."""
        self.kept: dict[str, bytes] = {}
        """Everything that the broker should keep, by topic, in an order in which it makes sense."""
        self.availability = f"{prefix}/availability"
        self.recalled_from = (f"{prefix}/+/availability", f"{prefix}/+/+/state")
        """The topics of which `recall` wants to know what the broker has kept."""
        self._prefix, self._discovery, self._labels = prefix, discovery, labels
        self._hello: Hello | None = None
        self._boot_id = ""
        self._streams: dict[str, _StreamTopics] = {}
        self._recalled: dict[str, dict[str, str]] = {}
        """Labels of an earlier life, by stream: they join once it is certain which events are open."""
        self._notes: list[MqttMessage] = []

    def take(self, message: Message) -> list[MqttMessage]:
        """What changes with this message."""
        if message.boot_id != self._boot_id:
            self._boot_id = message.boot_id
            self._doubt()
        match message:
            case Hello():
                self._hello = message
                for name in message.streams:
                    self._stream(name)
                for name in self._streams:
                    if name not in message.streams:
                        self._keep(f"{self._prefix}/{name}/availability", OFFLINE)
                    self._announce(name)
            case Status():
                self._status(message)
            case Event():
                self._event(message)
            case _:
                pass  # scores and what explains them are not for a home
        return self._told()

    def doubt(self) -> list[MqttMessage]:
        """Messages were lost, and a new subscription was made: what it does not tell of again is over."""
        self._doubt()
        return self._told()

    def lose(self, dropped: int, missed: int) -> list[MqttMessage]:
        """How much was lost: notes that found no room, and messages that never came."""
        self._keep(f"{self._prefix}/losses", msgspec.json.encode({"dropped": dropped, "missed": missed}))
        return self._told()

    def silence(self) -> list[MqttMessage]:
        """The daemon says nothing any more: how its labels are nobody knows."""
        for name in self._streams:
            self._keep(f"{self._prefix}/{name}/availability", OFFLINE)
        return self._told()

    def recall(self, topic: str) -> list[MqttMessage]:
        """The broker has kept something under this topic."""
        match topic.removeprefix(f"{self._prefix}/").split("/"):
            case [name, "availability"] if name not in self._streams:
                self._keep(topic, OFFLINE)  # until its status says otherwise
            case [name, label, "state"] if found := _by_slug().get(label):
                recalled = self._recalled.setdefault(name, {})
                recalled[found.mid] = found.name
            case _:
                pass
        return self._told()

    # What the messages mean.

    def _status(self, message: Status) -> None:
        stream = self._stream(message.stream)
        stream.statuses += 1
        self._over(message.stream, set(stream.leaving))
        if stream.statuses >= CONFIRMED_BY:
            self._over(message.stream, set(stream.doubtful))
            if recalled := self._recalled.pop(message.stream, None):
                stream.labels |= recalled
                self._show(message.stream)
                self._announce(message.stream)
        up = any(source.state == "up" for source in message.sources)
        self._keep(f"{self._prefix}/{message.stream}/availability", ONLINE if up else OFFLINE)

    def _event(self, message: Event) -> None:
        stream = self._stream(message.stream)
        stream.doubtful.discard(message.id)
        if not message.repeated:
            self._notes.append(
                MqttMessage(f"{self._prefix}/{message.stream}/events", msgspec.json.encode(message), False)
            )
        if message.mid not in stream.labels:
            stream.labels[message.mid] = message.name
            self._announce(message.stream)
        if message.kind != "end":
            # Whatever gave way, gave way to this, or will be settled by the next status.
            yields = {each for each in stream.leaving if _gives_way(stream.open[each], message)}
            stream.open[message.id] = message
            self._over(message.stream, yields)
        elif message.id in stream.open and message.explanation.reason in GIVES_WAY:
            stream.leaving.add(message.id)
        else:
            self._over(message.stream, {message.id})
        self._show(message.stream)

    def _doubt(self) -> None:
        for stream in self._streams.values():
            stream.doubtful, stream.statuses = set(stream.open), 0

    def _over(self, name: str, ids: set[str]) -> None:
        stream = self._streams[name]
        for each in ids:
            stream.open.pop(each, None)
            stream.leaving.discard(each)
            stream.doubtful.discard(each)
        if ids:
            self._show(name)

    # What is made of it.

    def _stream(self, name: str) -> _StreamTopics:
        if name not in self._streams:
            self._streams[name] = _StreamTopics({label.mid: label.name for label in self._labels})
            self._keep(f"{self._prefix}/{name}/availability", OFFLINE)
            self._show(name)
            self._announce(name)
        return self._streams[name]

    def _show(self, name: str) -> None:
        """The state of each label, after what explains it."""
        stream = self._streams[name]
        for mid, label in stream.labels.items():
            events = [event for event in stream.open.values() if event.mid == mid or mid in _above(event.mid)]
            base = f"{self._prefix}/{name}/{slug(label)}"
            if events:
                surest = max(events, key=lambda event: event.peak)
                self._keep(f"{base}/attributes", msgspec.json.encode(_attributes(surest)))
            self._keep(f"{base}/state", b"ON" if events else b"OFF")

    def _announce(self, name: str) -> None:
        """Tell Home Assistant what sensors there are. Waits for the hello, which says who speaks."""
        if not (self._discovery and self._hello):
            return
        for label in self._streams[name].labels.values():
            node = f"{self._prefix.replace('/', '-')}-{name}"
            topic = f"{self._discovery}/binary_sensor/{node}/{slug(label)}/config"
            self._keep(topic, msgspec.json.encode(self._sensor(name, label, self._hello)))

    def _sensor(self, name: str, label: str, hello: Hello) -> dict[str, object]:
        base = f"{self._prefix}/{name}"
        return {
            "name": label,
            "unique_id": f"{base}/{slug(label)}",
            "device_class": "sound",
            "state_topic": f"{base}/{slug(label)}/state",
            "json_attributes_topic": f"{base}/{slug(label)}/attributes",
            "availability": [{"topic": self.availability}, {"topic": f"{base}/availability"}],
            "availability_mode": "all",
            "device": {
                "identifiers": [base],
                "name": name,
                "manufacturer": "perceiverd",
                "model": hello.model.name,
                "sw_version": hello.version,
            },
            "origin": {"name": "perceiverd", "sw_version": hello.version},
        }

    def _keep(self, topic: str, payload: bytes) -> None:
        if self.kept.get(topic) != payload:
            self.kept[topic] = payload
            self._notes.append(MqttMessage(topic, payload, True))

    def _told(self) -> list[MqttMessage]:
        notes, self._notes = self._notes, []
        return notes


def slug(label: str) -> str:
    """A label's name as part of a topic: `Chicken, rooster` is `chicken_rooster`; no two of AudioSet's are the same."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


@cache
def _by_slug() -> dict[str, Label]:
    return {slug(label.name): label for label in ontology().labels}


@cache
def _above(mid: str) -> frozenset[str]:
    """The labels above this one; none where a model has a label that is not AudioSet's."""
    return ontology().ancestors(mid) if mid in ontology().parents else frozenset()


def _gives_way(event: Event, to: Event) -> bool:
    return to.continues == event.id or event.mid in _above(to.mid)


def _attributes(event: Event) -> dict[str, object]:
    return {
        "event": event.id,
        "label": event.name,
        "since": event.start,
        "peak": event.peak,
        "mean": event.mean,
        "score": event.explanation.score,
        "threshold": event.explanation.on,
        "modalities": event.modalities,
    }
