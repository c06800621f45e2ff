"""The handlers of the API, and the list of its operations."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from starlette.responses import Response

from perceiverd import __version__
from perceiverd.core.errors import MediaError
from perceiverd.core.logs import log_event
from perceiverd.corrections import Verdict
from perceiverd.history import HistoryReader, Statistics, StoredEvent
from perceiverd.web import reports
from perceiverd.web.answers import (
    AboutAnswer,
    CorrectionsAnswer,
    DayAnswer,
    EventPageAnswer,
    EventsAnswer,
    FoundLabelsAnswer,
    HeatAnswer,
    SessionAnswer,
    StoredCorrectionAnswer,
    StreamsAnswer,
)
from perceiverd.web.converting import ClipConverter
from perceiverd.web.correcting import Correcting, WantedCorrection, wanted_of_event, wanted_of_time
from perceiverd.web.feed import frame, frames
from perceiverd.web.files import ReleasingResponse, bytes_response, file_response
from perceiverd.web.live_events import LiveEvents
from perceiverd.web.media import TYPES, MediaFolders
from perceiverd.web.operations import ApiFault, ApiRequest, Operation
from perceiverd.web.passwords import PasswordHash
from perceiverd.web.pool import ReaderPool
from perceiverd.web.questions import (
    CorrectionBody,
    DayQuestion,
    EventsQuestion,
    HeatQuestion,
    LabelsQuestion,
    LiveQuestion,
    LoginBody,
    StatisticsQuestion,
)
from perceiverd.web.rates import LoginLimit
from perceiverd.web.sessions import TOKEN_LETTERS, Sessions, cookie, new_token
from perceiverd.web.watching import Watcher

NO_EVENT = "there is no event with this number; it may have been removed because it was old"
logger = logging.getLogger("perceiverd.web")

Answer = TypeVar("Answer")
EVENT_STREAM = "text/event-stream"
MOST_LOGINS = 2
"""Passwords that are checked at one time: each takes 128 MB for some tenths of a second."""


@dataclass
class Api:
    """What the handlers use."""

    watcher: Watcher
    pool: ReaderPool
    media: MediaFolders
    sessions: Sessions
    password: PasswordHash | None
    prefix: str
    correcting: Correcting | None
    live_events: LiveEvents
    logins: LoginLimit = field(default_factory=LoginLimit)
    converter: ClipConverter = field(default_factory=ClipConverter)
    wrong_passwords: int = 0
    _checking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_LOGINS))

    def operations(self) -> tuple[Operation, ...]:
        """All of the API but its own description."""
        event, stream = "events/{event:int}", "streams/{machine}/{stream}"
        return (
            Operation("GET", "session", "Whether this browser is signed in", self.session, answer=SessionAnswer),
            Operation(
                "POST", "session", "Sign in", self.sign_in, body=LoginBody, status=204, faults=(400, 401, 403, 429)
            ),
            Operation("DELETE", "session", "Sign out", self.sign_out, status=204, faults=(403,)),
            Operation("GET", "about", "What this server is and has", self.about, answer=AboutAnswer),
            Operation("GET", "streams", "All streams at this moment", self.streams, answer=StreamsAnswer),
            Operation(
                *("GET", f"{stream}/heatmap", "The scores of a stream by minute", self.heat),
                question=HeatQuestion,
                answer=HeatAnswer,
                faults=(400, 401, 404, 503),
            ),
            Operation(
                *("GET", "live", "Server-sent events: streams, stream, machine, event, explain, missed", self.live),
                question=LiveQuestion,
                content=EVENT_STREAM,
                faults=(400, 401, 404, 503),
            ),
            Operation(
                *("GET", "events", "Events, the newest first", self.events),
                question=EventsQuestion,
                answer=EventsAnswer,
                faults=(400, 401, 503),
            ),
            Operation("GET", event, "One event", self.event, answer=EventPageAnswer, faults=(400, 401, 404, 503)),
            Operation(
                *("GET", f"{event}/media/{{kind}}", "Its picture, clip, sound or spectrogram", self.file),
                content="*/*",
                faults=(400, 401, 404, 416, 503),
            ),
            Operation(
                *("GET", "day", "A day of all streams", self.day),
                question=DayQuestion,
                answer=DayAnswer,
                faults=(400, 401, 503),
            ),
            Operation(
                *("GET", "labels", "Labels by a part of their name", self.labels),
                question=LabelsQuestion,
                answer=FoundLabelsAnswer,
            ),
            Operation(
                *("GET", "statistics", "Counts of events by label, stream, hour, weekday and day", self.statistics),
                question=StatisticsQuestion,
                answer=Statistics,
                faults=(400, 401, 503),
            ),
            Operation(
                *("GET", "corrections", "All corrections, the newest first", self.corrections),
                answer=CorrectionsAnswer,
                faults=(401, 404, 503),
            ),
            Operation(
                *("POST", "corrections", "Say that an event is right or wrong, or mark a time", self.correct),
                body=CorrectionBody,
                answer=StoredCorrectionAnswer,
                status=201,
                faults=(400, 401, 403, 404, 503),
            ),
            Operation(
                *("DELETE", "corrections/{correction}", "Remove a correction and its sound", self.withdraw),
                status=204,
                faults=(401, 403, 404, 503),
            ),
        )

    async def session(self, request: ApiRequest) -> object:
        token, answered = request.token, {}
        if not token:  # a token for CSRF before anybody has signed in
            token = new_token()
            answered["Set-Cookie"] = cookie(token, self.prefix, None, request.scheme)
        state = SessionAnswer(request.signed_in, self.password is not None, self.sessions.csrf(token))
        return _json(state, answered)

    async def sign_in(self, request: ApiRequest) -> object:
        if self.password is None:
            raise ApiFault(400, "this page has no password")
        now_s = time.monotonic()
        if wait_s := self.logins.begin(request.address, now_s):
            seconds = math.ceil(wait_s)
            raise ApiFault(429, f"too many attempts; try again in {seconds} s", {"Retry-After": str(seconds)})
        async with self._checking:
            right = await asyncio.to_thread(self.password.matches, request.body.password)
        if not right:
            self.wrong_passwords += 1
            log_event(logger, logging.WARNING, "login-failed", address=request.address)  # few: they are limited
            raise ApiFault(401, "the password is wrong")
        self.logins.succeeded(request.address)
        self.sessions.end(request.token)
        token = self.sessions.begin(now_s)  # a new one: somebody may have planted the old one
        headers = {"Set-Cookie": cookie(token, self.prefix, self.sessions.lasts_s, request.scheme)}
        return Response(status_code=204, headers=headers)

    async def sign_out(self, request: ApiRequest) -> object:
        self.sessions.end(request.token)
        removed = cookie("-" * TOKEN_LETTERS, self.prefix, 0, request.scheme)
        return Response(status_code=204, headers={"Set-Cookie": removed})

    async def about(self, request: ApiRequest) -> object:
        return AboutAnswer(
            version=__version__,
            now=datetime.now(UTC),
            history=await asyncio.to_thread(self.pool.path.is_file),
            media=bool(self.media.folders),
            corrections=self.correcting is not None,
            teach=self.correcting is not None and self.correcting.teaches and self.watcher.keeps_sound(),
            machines=tuple(self.watcher.machines[name].answer() for name in sorted(self.watcher.machines)),
        )

    async def streams(self, request: ApiRequest) -> object:
        return self.watcher.streams()

    async def heat(self, request: ApiRequest) -> object:
        machine, stream = request.path["machine"], request.path["stream"]
        found = await self._ask(lambda reader: reports.heat(reader, machine, stream, request.question))
        if found is None:
            raise ApiFault(404, "the history has no such stream; api/1/streams lists those of now")
        return found

    async def live(self, request: ApiRequest) -> object:
        explain: str | None = request.question.explain
        machine, _, stream = (explain or "").partition("/")
        if explain is not None and not self.watcher.has_stream(machine, stream):
            raise ApiFault(404, "explain: there is no such stream; give machine/stream")
        if (follower := self.watcher.feed.join(explain)) is None:
            raise ApiFault(503, "too many browsers follow at this moment; try again later", {"Retry-After": "30"})
        if explain is not None and not self.watcher.explain(machine, stream):
            self.watcher.feed.leave(follower)
            raise ApiFault(503, "too many streams are explained at this moment", {"Retry-After": "30"})

        def is_allowed() -> bool:
            return self.password is None or self.sessions.has(request.token, time.monotonic())

        def leave() -> None:
            self.watcher.feed.leave(follower)
            if explain is not None:
                self.watcher.stop_explaining(explain)

        first = frame("streams", self.watcher.streams())
        headers = {"X-Accel-Buffering": "no"}  # nginx would hold it back
        return ReleasingResponse(frames(follower, first, is_allowed), leave, headers=headers, media_type=EVENT_STREAM)

    async def events(self, request: ApiRequest) -> object:
        return await self._ask(lambda reader: reports.events(reader, request.question, self.media, self.judge))

    async def event(self, request: ApiRequest) -> object:
        number = request.path["event"]
        found = await self._ask(lambda reader: reports.event_page(reader, number, self.media, self.judge))
        if found is None:
            raise ApiFault(404, NO_EVENT)
        return found

    async def file(self, request: ApiRequest) -> object:
        number, kind = request.path["event"], request.path["kind"]
        if kind not in ("picture", "clip", "sound", "spectrogram"):
            raise ApiFault(404, "there is picture, clip, sound and spectrogram")
        event = await self._ask(lambda reader: reports.stored(reader, number))
        found = None if event is None else await asyncio.to_thread(self.media.open, event, kind)
        if found is None:
            raise ApiFault(404, f"this event has no {kind}; it may have been removed because it was old")
        descriptor, is_clip = found
        content, wanted = TYPES[kind], request.headers.get("range")
        if not is_clip:
            return file_response(descriptor, content, wanted)
        try:
            data = await self.converter.convert(descriptor, kind)
        except MediaError as error:
            raise ApiFault(404, f"this event has no {kind}: {error}") from None
        return await asyncio.to_thread(bytes_response, data, content, wanted)

    async def day(self, request: ApiRequest) -> object:
        return await self._ask(lambda reader: reports.day(reader, request.question))

    async def labels(self, request: ApiRequest) -> object:
        if not await asyncio.to_thread(self.pool.path.is_file):
            return reports.labels(None, request.question)
        return await self._ask(lambda reader: reports.labels(reader, request.question))

    async def statistics(self, request: ApiRequest) -> object:
        return await self._ask(lambda reader: reports.statistics(reader, request.question))

    async def corrections(self, request: ApiRequest) -> object:
        return await asyncio.to_thread(self._correcting().every)

    async def correct(self, request: ApiRequest) -> object:
        correcting, body = self._correcting(), request.body
        wanted: WantedCorrection | None
        if body.event is not None:
            wanted = await self._ask(lambda reader: wanted_of_event(reader, body, self.media))
        else:
            known = await self._ask(lambda reader: reader.labels()) if self.pool.path.is_file() else ()
            wanted = wanted_of_time(body, known, datetime.now(UTC))
            if not self.watcher.has_stream(wanted.machine, wanted.stream):
                raise ApiFault(404, "there is no such stream; api/1/streams lists them")
        if wanted is None:
            raise ApiFault(404, NO_EVENT)
        return await asyncio.to_thread(correcting.add, wanted)

    async def withdraw(self, request: ApiRequest) -> object:
        if not await asyncio.to_thread(self._correcting().corrections.remove, request.path["correction"]):
            raise ApiFault(404, "there is no correction with this id")
        return None

    def judge(self, event: StoredEvent) -> Verdict | None:
        """What the last correction says of an event."""
        return None if self.correcting is None else self.correcting.verdict(event)

    def _correcting(self) -> Correcting:
        if self.correcting is None:
            raise ApiFault(404, "this page takes no corrections; set corrections.directory in its configuration")
        return self.correcting

    async def _ask(self, question: Callable[[HistoryReader], Answer]) -> Answer:
        return await self.pool.ask(question)


def _json(answer: object, headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json", headers=headers)
