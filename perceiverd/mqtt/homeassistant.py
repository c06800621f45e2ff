"""The daemon's streams and labels as MQTT topics, with Home Assistant's discovery.

Pure: it turns messages of the wire into MQTT messages, and knows no socket, no broker and no clock.

| topic | payload | retained |
|---|---|---|
| `PREFIX/availability` | `online` or `offline`: the bridge, also by its last will | yes |
| `PREFIX/losses` | JSON: events `dropped` by the bridge, and messages `missed` from the daemon | yes |
| `PREFIX/STREAM/availability` | `online` while at least one source of the stream delivers | yes |
| `PREFIX/STREAM/LABEL/state` | `ON` while the label, or one below it in the ontology, has an open event | yes |
| `PREFIX/STREAM/LABEL/attributes` | JSON: the event with its label, start and scores | yes |
| `PREFIX/STREAM/events` | each message of an event, JSON as on the wire | no |
| `DISCOVERY/binary_sensor/PREFIX-STREAM/LABEL/config` | JSON: the description of the sensor for Home Assistant | yes |

Requested labels exist for every stream from the start; other labels are added at their first event. Only changes are
sent, so each sensor is announced once. The bridge reads what the broker has retained from an earlier run. Otherwise a
label would stay on for ever if its event ended while the bridge was not running.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import msgspec

from perceiverd.core.labels import Label, ontology
from perceiverd.wire import Event, Hello, Message, Status

ONLINE, OFFLINE = b"online", b"offline"
REPLACED = ("subsumed", "maximum duration")
"""Reasons for which an event ends because another one replaces it. The message of that one follows directly."""
CONFIRMING_STATUSES = 2
"""After this many statuses, an unconfirmed event that was not repeated is over. The first status may precede the
repeated events."""


@dataclass(frozen=True, slots=True)
class MqttMessage:
    """One message for the broker."""

    topic: str
    payload: bytes
    retain: bool
    """Whether the broker keeps it for later subscribers, in place of the one before."""


@dataclass(slots=True)
class _StreamTopics:
    """What is known of one stream."""

    labels: dict[str, str] = field(default_factory=dict)
    """Names of the labels that have topics, by mid."""
    open: dict[str, Event] = field(default_factory=dict)
    """The last message of each open event, by id."""
    replaced: set[str] = field(default_factory=set)
    """Ids of open events that have ended and whose replacement is still to come."""
    unconfirmed: set[str] = field(default_factory=set)
    """Ids of open events that may have ended unnoticed."""
    statuses: int = 0
    """Statuses received since events became unconfirmed."""


class TopicState:
    """What the broker should hold. Each method returns the MQTT messages that bring the broker up to date."""

    def __init__(self, prefix: str, discovery: str, labels: Sequence[Label] = ()) -> None:
        """`discovery` is Home Assistant's prefix, "" to disable discovery. `labels` exist from the start."""
        self.retained: dict[str, bytes] = {}
        """The payloads that the broker should retain, by topic, in the order in which they should be sent."""
        self.availability = f"{prefix}/availability"
        self.restored_topics = (f"{prefix}/+/availability", f"{prefix}/+/+/state")
        """Topics whose retained messages belong to `restore`."""
        self._prefix, self._discovery, self._labels = prefix, discovery, labels
        self._hello: Hello | None = None
        self._boot_id = ""
        self._streams: dict[str, _StreamTopics] = {}
        self._restored: dict[str, dict[str, str]] = {}
        """Labels of an earlier run, by stream. They are added when the open events are confirmed."""
        self._changes: list[MqttMessage] = []

    def update(self, message: Message) -> list[MqttMessage]:
        """Apply a message of the daemon."""
        if message.boot_id != self._boot_id:
            self._boot_id = message.boot_id
            self._mark_unconfirmed()
        match message:
            case Hello():
                self._update_hello(message)
            case Status():
                self._update_status(message)
            case Event():
                self._update_event(message)
            case _:
                pass  # scores and explanations are not forwarded
        return self._take_changes()

    def resubscribed(self) -> list[MqttMessage]:
        """Messages were lost, and a new subscription was made. Events that are not repeated now are over."""
        self._mark_unconfirmed()
        return self._take_changes()

    def set_losses(self, dropped: int, missed: int) -> list[MqttMessage]:
        """Publish how many events the bridge dropped, and how many messages it missed."""
        self._retain(f"{self._prefix}/losses", msgspec.json.encode({"dropped": dropped, "missed": missed}))
        return self._take_changes()

    def daemon_stale(self) -> list[MqttMessage]:
        """Nothing is received from the daemon: the state of its labels is unknown."""
        for name in self._streams:
            self._retain(f"{self._prefix}/{name}/availability", OFFLINE)
        return self._take_changes()

    def restore(self, topic: str) -> list[MqttMessage]:
        """The broker has retained a message of an earlier run under this topic."""
        match topic.removeprefix(f"{self._prefix}/").split("/"):
            case [name, "availability"] if name not in self._streams:
                self._retain(topic, OFFLINE)  # until a status of the stream arrives
            case [name, label, "state"] if found := _by_slug().get(label):
                restored = self._restored.setdefault(name, {})
                restored[found.mid] = found.name
            case _:
                pass
        return self._take_changes()

    def _update_hello(self, message: Hello) -> None:
        self._hello = message
        for name in message.streams:
            self._stream(name)
        for name in self._streams:
            if name not in message.streams:
                self._retain(f"{self._prefix}/{name}/availability", OFFLINE)
            self._announce(name)

    def _update_status(self, message: Status) -> None:
        stream = self._stream(message.stream)
        stream.statuses += 1
        self._close(message.stream, set(stream.replaced))
        if stream.statuses >= CONFIRMING_STATUSES:
            self._close(message.stream, set(stream.unconfirmed))
            if restored := self._restored.pop(message.stream, None):
                stream.labels |= restored
                self._retain_states(message.stream)
                self._announce(message.stream)
        up = any(source.state == "up" for source in message.sources)
        self._retain(f"{self._prefix}/{message.stream}/availability", ONLINE if up else OFFLINE)

    def _update_event(self, message: Event) -> None:
        stream = self._stream(message.stream)
        stream.unconfirmed.discard(message.id)
        if not message.repeated:
            topic = f"{self._prefix}/{message.stream}/events"
            self._changes.append(MqttMessage(topic, msgspec.json.encode(message), retain=False))
        if message.mid not in stream.labels:
            stream.labels[message.mid] = message.name
            self._announce(message.stream)
        if message.kind != "end":
            # This event may be the replacement of others; the next status closes those without one.
            closed = {each for each in stream.replaced if _is_replaced(stream.open[each], by=message)}
            stream.open[message.id] = message
            self._close(message.stream, closed)
        elif message.id in stream.open and message.explanation.reason in REPLACED:
            stream.replaced.add(message.id)
        else:
            self._close(message.stream, {message.id})
        self._retain_states(message.stream)

    def _mark_unconfirmed(self) -> None:
        for stream in self._streams.values():
            stream.unconfirmed, stream.statuses = set(stream.open), 0

    def _close(self, name: str, ids: set[str]) -> None:
        """These events are over."""
        stream = self._streams[name]
        for each in ids:
            stream.open.pop(each, None)
            stream.replaced.discard(each)
            stream.unconfirmed.discard(each)
        if ids:
            self._retain_states(name)

    def _stream(self, name: str) -> _StreamTopics:
        if name not in self._streams:
            self._streams[name] = _StreamTopics({label.mid: label.name for label in self._labels})
            self._retain(f"{self._prefix}/{name}/availability", OFFLINE)
            self._retain_states(name)
            self._announce(name)
        return self._streams[name]

    def _retain_states(self, name: str) -> None:
        """The state of each label, after the attributes that explain it."""
        stream = self._streams[name]
        for mid, label in stream.labels.items():
            events = [event for event in stream.open.values() if event.mid == mid or mid in _above(event.mid)]
            base = f"{self._prefix}/{name}/{slug(label)}"
            if events:
                best = max(events, key=lambda event: event.peak)
                self._retain(f"{base}/attributes", msgspec.json.encode(_attributes(best)))
            self._retain(f"{base}/state", b"ON" if events else b"OFF")

    def _announce(self, name: str) -> None:
        """Describe the stream's sensors to Home Assistant, once the hello has described the daemon."""
        if not (self._discovery and self._hello):
            return
        for label in self._streams[name].labels.values():
            node = f"{self._prefix.replace('/', '-')}-{name}"
            topic = f"{self._discovery}/binary_sensor/{node}/{slug(label)}/config"
            self._retain(topic, msgspec.json.encode(self._sensor(name, label, self._hello)))

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

    def _retain(self, topic: str, payload: bytes) -> None:
        if self.retained.get(topic) != payload:
            self.retained[topic] = payload
            self._changes.append(MqttMessage(topic, payload, retain=True))

    def _take_changes(self) -> list[MqttMessage]:
        changes, self._changes = self._changes, []
        return changes


def slug(label: str) -> str:
    """A label's name as part of a topic: `Chicken, rooster` is `chicken_rooster`. AudioSet's names stay distinct."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


@cache
def _by_slug() -> dict[str, Label]:
    return {slug(label.name): label for label in ontology().labels}


@cache
def _above(mid: str) -> frozenset[str]:
    """The mids of the labels above this one; none if the label is not one of AudioSet's."""
    return ontology().ancestors(mid)


def _is_replaced(event: Event, by: Event) -> bool:
    return by.continues == event.id or event.mid in _above(by.mid)


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
