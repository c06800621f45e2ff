"""JSON Schemas of the messages and of the records of files: for programs in other languages, and to notice any change.

`wire-1.json` and `files-1.json` beside this module hold the results, and `perceiverd schema` prints them. Every message
and every record that perceiverd writes is valid: it has all keys, and keys that a later version adds are allowed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec

from perceiverd.core.docstrings import field_docstrings
from perceiverd.wire.messages import SCHEMA, Message
from perceiverd.wire.records import Record

FILE = Path(__file__).parent / f"wire-{SCHEMA}.json"
RECORDS_FILE = Path(__file__).parent / f"files-{SCHEMA}.json"


def json_schema() -> dict[str, Any]:
    """The schema of every message: one of those under `$defs`, chosen by its `type`."""
    what = "The second part of a message; the first is its topic."
    return _schema(get_args(Message), f"perceiverd's wire, version {SCHEMA}", what)


def records_schema() -> dict[str, Any]:
    """The schema of every record that `perceiverd tag --format jsonl` writes, in the same way."""
    what = "A line of `perceiverd tag --format jsonl`."
    return _schema(get_args(Record), f"perceiverd's records of files, version {SCHEMA}", what)


def text_of(schema: dict[str, Any]) -> str:
    """A schema as text, as it is in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _schema(kinds: tuple[type[msgspec.Struct], ...], title: str, what: str) -> dict[str, Any]:
    _, parts = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    for kind in {each.__name__: each for each in _structs(kinds)}.values():
        _describe(parts[kind.__name__], kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": what,
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": dict(sorted(parts.items())),
    }


def _describe(part: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    """Add the docstrings of the fields, and require all keys."""
    properties: dict[str, dict[str, Any]] = part["properties"]
    part["required"] = list(properties)  # a reader assumes a default for a missing key; the writer gives every key
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
