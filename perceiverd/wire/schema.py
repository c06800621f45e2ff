"""JSON Schema of the messages: for programs in other languages, and to notice any change of the format.

`wire-1.json` beside this module holds the result, and `perceiverd schema` prints it. Every message that perceiverd
publishes is valid: it has all keys, and keys that a later version adds are allowed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec

from perceiverd.core.docstrings import field_docstrings
from perceiverd.wire.messages import SCHEMA, Message

FILE = Path(__file__).parent / f"wire-{SCHEMA}.json"


def json_schema() -> dict[str, Any]:
    """The schema of every message: one of those under `$defs`, chosen by its `type`."""
    kinds: tuple[type[msgspec.Struct], ...] = get_args(Message)
    _, parts = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    for kind in {each.__name__: each for each in _structs(kinds)}.values():
        _describe(parts[kind.__name__], kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"perceiverd's wire, version {SCHEMA}",
        "description": "The second part of a message; the first is its topic.",
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": dict(sorted(parts.items())),
    }


def json_schema_text() -> str:
    """The schema as text, as it is in FILE."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _describe(part: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    """Add the docstrings of the fields, and require all keys."""
    properties: dict[str, dict[str, Any]] = part["properties"]
    part["required"] = list(properties)  # a reader assumes a default for a missing key; the daemon writes every key
    for name, text in field_docstrings(kind).items():
        properties[name]["description"] = text
    for schema in properties.values():
        schema.pop("default", None)
    if "schema" in properties:
        properties["schema"]["const"] = SCHEMA


def _structs(kinds: tuple[type[msgspec.Struct], ...]) -> list[type[msgspec.Struct]]:
    """These structs and the structs inside them."""
    found: list[type[msgspec.Struct]] = []

    def collect(kind: msgspec.inspect.Type) -> None:
        match kind:
            case msgspec.inspect.StructType(cls=cls, fields=fields):
                found.append(cls)
                for field in fields:
                    collect(field.type)
            case msgspec.inspect.VarTupleType(item_type=item):
                collect(item)
            case msgspec.inspect.UnionType(types=types):
                for each in types:
                    collect(each)
            case _:
                pass

    for kind in msgspec.inspect.multi_type_info(kinds):
        collect(kind)
    return found
