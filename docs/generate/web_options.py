"""`web-configuration.md` and `web-api.md`: every option of the page's TOML file, and every operation of its API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from docs.generate.markdown import code, table
from docs.generate.options import described
from perceiverd.config import MetricsConfig
from perceiverd.web import openapi
from perceiverd.web.service import api_of
from perceiverd.web.settings import CorrectionsConfig, HistorySource, ServerConfig, WatchedDaemon, WebConfig

NOTHING: dict[str, Any] = {}
TABLES: dict[str, type] = {
    "server": ServerConfig,
    "history": HistorySource,
    "corrections": CorrectionsConfig,
    "daemons.NAME": WatchedDaemon,
    "metrics": MetricsConfig,
}


def contents() -> dict[str, str]:
    """The parts of the page of options."""
    return {"tables": "\n\n".join(described(name, kind) for name, kind in TABLES.items())}


def api_contents() -> dict[str, str]:
    """The parts of the page of the API."""
    document = openapi.document(api_of(WebConfig()).operations())
    return {
        "operations": table(("request", "query", "answer", "meaning"), _operations(document)),
        "answers": "\n\n".join(_answer(name, form) for name, form in document["components"]["schemas"].items()),
    }


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            query = ", ".join(code(each["name"]) for each in operation["parameters"] if each["in"] == "query")
            status, answer = next(iter(operation["responses"].items()))
            given: dict[str, Any] = answer.get("content", {})
            content, body = next(iter(given.items()), ("", NOTHING))
            name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
            what = _link(name) if name else content or status
            yield code(f"{method.upper()} {path}"), query, what, operation["summary"]


def _answer(name: str, form: Mapping[str, Any]) -> str:
    rows = ((code(key), _kind(value), value.get("description", "")) for key, value in form["properties"].items())
    return f"### {name}\n\n{form.get('description', '')}\n\n{table(('key', 'type', 'meaning'), rows)}"


def _kind(form: Mapping[str, Any]) -> str:
    """The type in words."""
    if "$ref" in form:
        return _link(form["$ref"].rpartition("/")[2])
    if "anyOf" in form:
        return " or ".join(_kind(each) for each in form["anyOf"])
    if "enum" in form:
        return ", ".join(code("null" if each is None else str(each)) for each in form["enum"])
    if form.get("type") == "array":
        return f"list of {_kind(form['items'])}" if isinstance(form.get("items"), dict) else "list"
    if form.get("type") == "object":
        inner = form.get("additionalProperties")
        return f"object of {_kind(inner)} by name" if isinstance(inner, dict) else "object"
    return "time" if form.get("format") == "date-time" else str(form.get("type", "any"))


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"
