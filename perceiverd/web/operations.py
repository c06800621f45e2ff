"""The form of one operation of the API: its route is made of it, and its part of the OpenAPI document."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perceiverd.core.errors import CorrectionError, HistoryError
from perceiverd.core.logs import LogLimit, log_event
from perceiverd.web.answers import FaultAnswer
from perceiverd.web.pool import BusyError
from perceiverd.web.questions import NoQuestion, QuestionError, read_body, read_query

logger = logging.getLogger("perceiverd.web")

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request that was checked."""

    path: Mapping[str, Any]
    """The parts of the path."""
    question: Any
    """The query, as the operation's struct."""
    body: Any
    """The body, as the operation's struct; None if it has none."""
    token: str
    signed_in: bool
    address: str
    """The client's IP address; empty if unknown."""
    scheme: str
    headers: Mapping[str, str]


Handler = Callable[[ApiRequest], Awaitable[object]]
"""Returns a struct, which is answered as JSON, a Response, or None for an answer without a body."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation."""

    method: str
    path: str
    """Below `api/1/`, with Starlette's placeholders."""
    summary: str
    handler: Handler
    question: type = NoQuestion
    body: type | None = None
    answer: type | None = None
    content: str = JSON
    """The content type of its answer."""
    status: int = 200
    faults: tuple[int, ...] = (400, 401)
    """Statuses with a FaultAnswer that it may have, beside those that every request may have."""

    def route(self, faults: LogLimit) -> Route:
        """Starlette's route for it."""

        async def endpoint(request: Request) -> Response:
            try:
                return self._response(await self.handler(self._read(request)))
            except ApiFault as fault:
                return fault_response(fault.status, str(fault), fault.headers)
            except QuestionError as error:
                return fault_response(400, str(error))
            except BusyError as error:
                return fault_response(503, str(error), {"Retry-After": "5"})
            except (HistoryError, CorrectionError) as error:
                return fault_response(503, str(error))
            except Exception as error:
                # A fault in one handler. The next request may succeed.
                if faults.admit(time.monotonic_ns()) is not None:
                    log_event(logger, logging.ERROR, "request-failed", error, path=self.path)
                return fault_response(500, "the server failed at this request; its log says why")

        return Route(f"/api/1/{self.path}", endpoint, methods=[self.method])

    def _read(self, request: Request) -> ApiRequest:
        state = request.scope["state"]
        return ApiRequest(
            path=request.path_params,
            question=read_query(request.query_params.multi_items(), self.question),
            body=None if self.body is None else read_body(state["body"], self.body),
            token=state["token"],
            signed_in=state["signed_in"],
            address=request.scope["client_address"],
            scheme=request.scope["scheme"],
            headers=state["headers"],
        )

    def _response(self, found: object) -> Response:
        if isinstance(found, Response):
            return found
        if found is None:
            return Response(status_code=204)
        return Response(msgspec.json.encode(found), self.status, media_type=JSON)


class ApiFault(Exception):  # noqa: N818 - an answer, no error of the program
    """An answer with a status of 400 or above."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.headers = status, headers


def fault_response(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that cannot be done."""
    return Response(msgspec.json.encode(FaultAnswer(sentence)), status, headers, JSON)
