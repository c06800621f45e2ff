"""Messages of the wire with plausible values, a publisher with subscribers: for tests of all that uses the wire."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from perceiverd.core.labels import ontology
from perceiverd.wire.client import Subscription
from perceiverd.wire.messages import Event, Explanation, Hello, Model, Scores, SourceStatus, Status, Tag
from perceiverd.wire.publisher import Publisher

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
MODEL = Model("tiny", "0" * 64)
LOOPBACK = "tcp://127.0.0.1:*"
DEADLINE_S = 60
BOOT_ID = "a"
"""The daemon that published these messages; a publisher replaces it by its own."""


def hello(*streams: str, boot_id: str = BOOT_ID, status_interval_s: float = 1) -> Hello:
    return Hello(
        version="1",
        streams=streams or ("a",),
        model=MODEL,
        hop_s=1,
        status_interval_s=status_interval_s,
        up_since=NOW,
        boot_id=boot_id,
    )


def scores(stream: str = "a", padding: int = 0, *, boot_id: str = BOOT_ID, seq: int = 0) -> Scores:
    """One label, whose name is `padding` bytes longer than usual."""
    return Scores(
        stream=stream,
        start=NOW,
        end=NOW,
        start_s=0,
        end_s=1,
        latency_ms=1,
        modalities=("audio",),
        model=MODEL,
        labels=(Tag("/m/0bt9lr", 74, "Dog" + "-" * padding, 0.5),),
        dropped=0,
        boot_id=boot_id,
        seq=seq,
    )


def source_status(state: str = "up") -> SourceStatus:
    return SourceStatus(source="cam", state=state, data_age_s=0.1, restarts={}, dropped=0)


def status(stream: str = "a", *states: str, boot_id: str = BOOT_ID) -> Status:
    """The status of a stream with one source for each of these states; one that is up if none is given."""
    sources = tuple(source_status(state) for state in states or ("up",))
    return Status(
        stream=stream,
        time=NOW,
        state=sources[0].state,
        sources=sources,
        data_age_s=0.1,
        windows=1,
        dropped=0,
        late=0,
        gaps=0,
        subscriptions=0,
        up_since=NOW,
        model=MODEL,
        boot_id=boot_id,
    )


def event(kind: Literal["begin", "update", "end"], number: int, stream: str = "a") -> Event:
    """A message of the event of Dog with this number as its id."""
    return label_event(kind, "Dog", stream=stream, id_=str(number))


def label_event(
    kind: Literal["begin", "update", "end"],
    name: str,
    *,
    stream: str = "door",
    id_: str = "",
    reason: str = "confirmed",
    continues: str | None = None,
    boot_id: str = BOOT_ID,
    peak: float = 0.75,
) -> Event:
    """A message of an event of this label, whose id depends on the label unless it is given."""
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
        latency_ms=1,
        model=MODEL,
        boot_id=boot_id,
    )


def until(publisher: Publisher, done: Callable[[], bool]) -> None:
    """Attend to the publisher's socket, as the daemon's loop does, until `done`."""
    end_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < end_s, f"not done within {DEADLINE_S} s"
        publisher.handle_subscribers()
        time.sleep(0.01)


def subscribed(publisher: Publisher, *topics: str) -> Subscription:
    """A subscriber that the publisher knows of."""
    before = publisher.subscriptions
    subscription = Subscription(publisher.endpoint, topics or ("",))
    until(publisher, lambda: publisher.subscriptions > before)
    return subscription
