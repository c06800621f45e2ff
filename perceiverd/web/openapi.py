"""The OpenAPI 3.1 document of the API, made of its operations and the structs that it answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from perceiverd import __version__
from perceiverd.core.docstrings import field_docstrings
from perceiverd.web.answers import FaultAnswer
from perceiverd.web.operations import JSON, Operation

REFERENCE = "#/components/schemas/{name}"
COOKIE_NAME = "perceiverd_session"
MEANINGS = {
    400: "The request is wrong.",
    401: "Sign in first, or the password is wrong.",
    403: "The CSRF token is missing or old, or the request comes from another site.",
    404: "There is no such thing.",
    416: "The range is outside of the file.",
    429: "Too many attempts; Retry-After says when the next one is possible.",
    503: "The history cannot be read, or too much is asked at this moment.",
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document, of plain values."""
    kinds = [FaultAnswer, *(kind for each in operations for kind in (each.answer, each.body) if kind)]
    schemas, components = msgspec.json.schema_components(dict.fromkeys(kinds), ref_template=REFERENCE)
    for name, meanings in _meanings(kinds).items():
        for field, form in components[name]["properties"].items():
            if meaning := meanings.get(field):
                # Beside a reference other keys are allowed since OpenAPI 3.1.
                components[name]["properties"][field] = {**form, "description": meaning}
    described = dict(zip(dict.fromkeys(kinds), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        path = "/api/1/" + re.sub(r":\w+\}", "}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, described)
    return {
        "openapi": "3.1.0",
        "info": {"title": "perceiverd web", "version": __version__, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"session": {"type": "apiKey", "in": "cookie", "name": COOKIE_NAME}},
        },
        "security": [{"session": []}],
    }


def _meanings(kinds: Iterable[type]) -> dict[str, dict[str, str]]:
    """The docstrings of the fields, by struct and field, of these structs and those in them."""
    found: dict[str, dict[str, str]] = {}
    waiting: list[Any] = [inspect.type_info(kind) for kind in kinds]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, inspect.StructType):
            if kind.cls.__name__ not in found:
                found[kind.cls.__name__] = field_docstrings(kind.cls)
                waiting += [field.type for field in kind.fields]
        else:
            parts = [getattr(kind, name, None) for name in ("type", "item_type", "value_type")]
            waiting += [part for part in (*parts, *getattr(kind, "types", ())) if isinstance(part, inspect.Type)]
    return found


def _operation(operation: Operation, schemas: dict[type, dict[str, Any]]) -> dict[str, Any]:
    parameters = [*_in_path(operation.path), *_in_query(operation.question)]
    if operation.method != "GET":
        parameters.append({"name": "X-CSRF-Token", "in": "header", "required": True, "schema": {"type": "string"}})
    found: dict[str, Any] = {"summary": operation.summary, "parameters": parameters}
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas[operation.body]}}}
    answer: dict[str, Any] = {"description": operation.summary}
    if operation.status != 204:
        schema = schemas[operation.answer] if operation.answer else {}
        answer["content"] = {operation.content: {"schema": schema}}
    fault = {"content": {JSON: {"schema": schemas[FaultAnswer]}}}
    faults = {str(status): {"description": MEANINGS[status], **fault} for status in operation.faults}
    return {**found, "responses": {str(operation.status): answer, **faults}}


def _in_path(path: str) -> Iterable[dict[str, Any]]:
    for name, kind in re.findall(r"\{(\w+)(?::(\w+))?\}", path):
        schema = {"type": "integer" if kind == "int" else "string"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(question: type) -> Iterable[dict[str, Any]]:
    (schema,), components = msgspec.json.schema_components([question], ref_template="{name}")
    described = components[schema["$ref"]]
    meanings = field_docstrings(question)
    for name, form in described["properties"].items():
        yield {
            "name": name,
            "in": "query",
            "required": name in described.get("required", ()),
            "description": meanings.get(name, ""),
            "schema": form,
        }
