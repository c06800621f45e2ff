"""Events for browsers that follow: at once from the daemon's message, and again with what the history knows of them.

The daemon's message has no number of the history, and the history stores it a moment later. So each event is looked up
a moment after its message, and sent again with its number and its media.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from perceiverd.core.errors import PerceiverdError
from perceiverd.history import HistoryReader
from perceiverd.web.answers import EventAnswer
from perceiverd.web.feed import Feed
from perceiverd.web.media import MediaFolders
from perceiverd.web.pool import ReaderPool
from perceiverd.web.reports import Judge, event_answer
from perceiverd.wire import Event

FIRST_S, AGAIN_S = 0.5, 2.0
"""When an event is looked up: so long after its message, and again after this, up to TRIES times."""
TRIES = 3
MOST_PENDING = 1000
"""Events that wait to be looked up; beyond it the oldest are not sent again."""
MOST_KNOWN = 5000
"""Numbers of events that are remembered."""
TURN_S = 0.25

Key = tuple[str, str, str, str]
"""Machine, stream, boot and the event's key."""


@dataclass(slots=True)
class LiveEvents:
    """The events that were sent, and those that are to be sent again."""

    feed: Feed
    pool: ReaderPool
    media: MediaFolders
    judge: Judge
    _pending: OrderedDict[Key, tuple[float, int]] = field(default_factory=OrderedDict)
    """When each is looked up, and how often it was."""
    _known: OrderedDict[Key, EventAnswer] = field(default_factory=OrderedDict)

    def receive(self, machine: str, event: Event) -> EventAnswer | None:
        """What browsers get at once; None if nobody follows."""
        if not self.feed.followers:
            return None
        key = (machine, event.stream, event.boot_id, event.id)
        self._pending[key] = (time.monotonic() + FIRST_S, 0)
        while len(self._pending) > MOST_PENDING:
            self._pending.popitem(last=False)
        known = self._known.get(key)
        return EventAnswer(
            id=known.id if known else None,
            machine=machine,
            stream=event.stream,
            key=event.id,
            mid=event.mid,
            name=event.name,
            start=event.start,
            end=event.end,
            state="ended" if event.kind == "end" else "open",
            peak=event.peak,
            mean=event.mean,
            picture=bool(known and known.picture),
            clip=bool(known and known.clip),
            sound=bool(known and known.sound),
            spectrogram=bool(known and known.spectrogram),
            withheld=event.withheld,
            verdict=known.verdict if known else None,
        )

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(TURN_S)
            now_s = time.monotonic()
            due = [key for key, (due_s, _) in self._pending.items() if due_s <= now_s]
            if not due:
                continue
            found: dict[Key, EventAnswer] = {}
            with contextlib.suppress(PerceiverdError):  # no history, or too many questions: try again
                found = await self.pool.ask(lambda reader: self._look_up(reader, due))  # noqa: B023 - awaited here
            for key in due:
                self._tried(key, found.get(key))

    def _look_up(self, reader: HistoryReader, keys: list[Key]) -> dict[Key, EventAnswer]:
        stored = {key: reader.event_of_message(*key) for key in keys}
        return {key: event_answer(event, self.media, self.judge) for key, event in stored.items() if event}

    def _tried(self, key: Key, answer: EventAnswer | None) -> None:
        _, tries = self._pending.pop(key, (0.0, 0))
        if answer is not None:
            self._known[key] = answer
            self._known.move_to_end(key)
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
            self.feed.event(answer)
        elif tries + 1 < TRIES:
            self._pending[key] = (time.monotonic() + AGAIN_S, tries + 1)
