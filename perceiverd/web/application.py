"""Puts the parts together: operations and pages behind the guard."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from perceiverd.core.logs import LogLimit
from perceiverd.web import openapi, pages
from perceiverd.web.api import Api
from perceiverd.web.guard import Guard, GuardRules, RefusedRequests
from perceiverd.web.operations import ApiRequest, Operation, fault_response


def application(api: Api, rules: GuardRules, refused: RefusedRequests) -> ASGIApp:
    """The ASGI application."""
    operations = api.operations()
    document = openapi.document(operations)

    async def described(request: ApiRequest) -> object:
        return document

    operations = (*operations, Operation("GET", "openapi.json", "This description", described))
    faults = LogLimit()
    routes = [*(each.route(faults) for each in operations), *pages.routes()]
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: _refused}), rules, refused)


async def _refused(request: Request, error: Exception) -> Response:
    """A path or a method that does not exist."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return fault_response(405, "this path does not have this method", error.headers)
    return fault_response(error.status_code, "there is nothing at this path; api/1/openapi.json lists the API")
