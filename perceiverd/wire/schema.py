"""JSON Schema of the wire: for programs in other languages, and so that no change of the wire goes unnoticed.

`wire-1.json` beside this module is what it makes; `perceiverd schema` prints it. A reader may hold every message
against it: all keys are there, and keys that a later version adds are allowed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec

from perceiverd.core.docstrings import field_docstrings
from perceiverd.wire.messages import SCHEMA, Message

FILE = Path(__file__).parent / f"wire-{SCHEMA}.json"


def wire() -> dict[str, Any]:
    """The schema of every message: one of those under `$defs`, by its `type`."""
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


def written() -> str:
    """The schema as it stands in its file."""
    return json.dumps(wire(), indent=2, ensure_ascii=False) + "\n"


def _describe(part: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    """Add what the struct's source says of its fields, and that a message has all of them."""
    properties: dict[str, dict[str, Any]] = part["properties"]
    part["required"] = list(properties)  # a default is what a reader takes for granted; the daemon writes every key
    for name, text in field_docstrings(kind).items():
        properties[name]["description"] = text
    for schema in properties.values():
        schema.pop("default", None)
    if "schema" in properties:
        properties["schema"]["const"] = SCHEMA


def _structs(kinds: tuple[type[msgspec.Struct], ...]) -> list[type[msgspec.Struct]]:
    """These structs and those inside them."""
    found: list[type[msgspec.Struct]] = []

    def look(kind: msgspec.inspect.Type) -> None:
        match kind:
            case msgspec.inspect.StructType(cls=cls, fields=fields):
                found.append(cls)
                for field in fields:
                    look(field.type)
            case msgspec.inspect.VarTupleType(item_type=item):
                look(item)
            case msgspec.inspect.UnionType(types=types):
                for each in types:
                    look(each)
            case _:
                pass

    for kind in msgspec.inspect.multi_type_info(kinds):
        look(kind)
    return found
