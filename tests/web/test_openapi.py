"""The OpenAPI document, compared with what a real server answers."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest

from perceiverd.web.connections import MOST_CONNECTIONS
from tests.support.pages import Follower, PageProcess, until

SPAN = "start=2026-01-31T12:00:00Z&end=2026-01-31T12:02:00Z"
REQUESTS = {
    "session": "session",
    "about": "about",
    "streams": "streams",
    "streams/{machine}/{stream}/heatmap": f"streams/house/door/heatmap?{SPAN}",
    "events": "events",
    "events/{event}": "events/3",
    "day": "day?date=2026-01-31",
    "labels": "labels?q=dog",
    "statistics": "statistics",
    "corrections": "corrections",
}
"""A request for each operation that answers JSON to GET, by its path."""


@pytest.fixture(scope="module")
def document(page: PageProcess) -> dict[str, Any]:
    found: dict[str, Any] = page.browser().get("/api/1/openapi.json").json
    return found


def check(value: object, document: dict[str, Any], schema: dict[str, Any]) -> None:
    """Whether the value is as the schema says, with no key that it does not name."""
    jsonschema.Draft202012Validator({**closed(schema), "components": closed(document["components"])}).validate(value)


def closed(schema: Any) -> Any:
    """The schema with no keys beside those that it names."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    return {**found, "additionalProperties": False} if "properties" in schema else found


def answer_schema(document: dict[str, Any], path: str, method: str, status: str) -> dict[str, Any]:
    content = document["paths"][f"/api/1/{path}"][method]["responses"][status]["content"]
    found: dict[str, Any] = content["application/json"]["schema"]
    return found


@pytest.mark.parametrize("path", REQUESTS)
def test_answers_are_as_described(page: PageProcess, document: dict[str, Any], path: str) -> None:
    """Each operation answers what its schema says."""
    answer = page.browser().get(f"/api/1/{REQUESTS[path]}")
    assert answer.status == 200, answer.body
    check(answer.json, document, answer_schema(document, path, "get", "200"))


def test_corrections_and_faults_are_as_described(page: PageProcess, document: dict[str, Any]) -> None:
    """The same for what is stored, and for refusals."""
    browser = page.browser()
    browser.fetch_session()
    answer = browser.post("/api/1/corrections", {"event": 3, "verdict": "right"})
    check(answer.json, document, answer_schema(document, "corrections", "post", "201"))
    check(browser.get("/api/1/corrections").json, document, answer_schema(document, "corrections", "get", "200"))
    assert browser.delete(f"/api/1/corrections/{answer.json['id']}").status == 204
    for query, status in (("events?limit=x", "400"), ("events/999", "404")):
        path = re.sub(r"/\d+", "/{event}", query.partition("?")[0])
        check(browser.get(f"/api/1/{query}").json, document, answer_schema(document, path, "get", status))


def test_live_messages_are_as_described(page: PageProcess, document: dict[str, Any]) -> None:
    """What is followed has the same forms as what is asked for."""
    follower = Follower(page.port)
    check(follower.next("streams"), document, {"$ref": "#/components/schemas/StreamsAnswer"})
    check(follower.next("stream"), document, {"$ref": "#/components/schemas/StreamAnswer"})
    follower.close()


def test_every_operation_is_described(page: PageProcess, document: dict[str, Any]) -> None:
    """Each path has a summary, its parameters, and its faults; every operation was tested here or has no JSON."""
    json_paths = {
        path.removeprefix("/api/1/")
        for path, methods in document["paths"].items()
        if "application/json" in str(methods.get("get", {}).get("responses", {}).get("200", {}))
    }
    assert json_paths == REQUESTS.keys()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"]
            named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))


def test_the_server_keeps_no_connection(page: PageProcess) -> None:
    """After more requests than connections are allowed, the next one is answered."""
    for _ in range(MOST_CONNECTIONS + 50):
        assert page.browser().get("/api/1/session").status == 200
    until(lambda: page.browser().get("/api/1/about").status == 200)
