"""A publisher for tests of the page: its scores are of now and change, as those of a real daemon do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from perceiverd.core.labels import ontology
from perceiverd.wire import Tag
from perceiverd.wire.publisher import Publisher
from tests.support import messages
from tests.support.running_daemon import RunningDaemon

WINDOW = timedelta(seconds=1)


class LivelyDaemon(RunningDaemon):
    """Each stream hears a Dog and a Cat in turn."""

    def __init__(self, streams: Sequence[str], states: Mapping[str, str] | None = None, label: str = "Dog") -> None:
        """`states`: of streams that are not up. `label`: the name under which the Dog is published."""
        super().__init__(streams)
        self._states = states or {}
        self._label = label
        self._beats = 0

    def _beat(self, publisher: Publisher) -> None:
        self._beats += 1
        now = datetime.now(UTC)
        dog, cat = ontology().find("Dog"), ontology().find("Cat")
        high = 0.25 + 0.5 * (self._beats % 2)
        labels = (Tag(dog.mid, dog.index, self._label, high), Tag(cat.mid, cat.index, "Cat", 1 - high))
        for stream in self.streams:
            state = self._states.get(stream, "up")
            publisher.send(msgspec.structs.replace(messages.status(stream, state), time=now, state=state))
            if state == "up":
                heard = msgspec.structs.replace(messages.scores(stream), start=now - WINDOW, end=now, labels=labels)
                publisher.send(heard)
