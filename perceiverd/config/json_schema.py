"""The JSON Schema of the configuration, for editors: they complete options, show their descriptions, mark mistakes.

It is made from the structs and the docstrings under their fields. It does not check what depends on two options or on
other files; `perceiverd config check` does. `configs/perceiverd.schema.json` is this schema as a file.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import inspect

from perceiverd.config.schema import STREAM_NAME, Config
from perceiverd.core.docstrings import field_docstrings
from perceiverd.pipeline.rules import EventOptions, LabelOptions, StreamOptions

DRAFT = "http://json-schema.org/draft-07/schema#"
"""Draft 7, with `definitions`: what editors for TOML support (taplo, Even Better TOML)."""
LIKE = {StreamOptions: EventOptions, LabelOptions: EventOptions}
"""Structs whose fields are described under the fields of another struct with the same names."""

Schema = dict[str, Any]


def schema() -> Schema:
    """The schema of the whole file. Unknown options are errors; every option has a description."""
    _, parts = msgspec.json.schema_components([Config], ref_template="#/definitions/{name}")
    for kind in structs(inspect.type_info(Config)):
        _describe(parts[kind.cls.__name__], kind)
    root = parts.pop(Config.__name__)
    root["properties"]["streams"]["propertyNames"] = {"pattern": f"^{STREAM_NAME.pattern}$"}
    heading = {"$schema": DRAFT, "title": "perceiverd's configuration", "description": root.pop("description")}
    return heading | {key: root[key] for key in root if key != "title"} | {"definitions": dict(sorted(parts.items()))}


def schema_text() -> str:
    """The schema as it stands in its file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def structs(kind: inspect.Type) -> list[inspect.StructType]:
    """The struct that this type is, and all inside it, each once."""
    found: dict[str, inspect.StructType] = {}

    def look(kind: inspect.Type) -> None:
        match kind:
            case inspect.StructType(cls=cls, fields=fields) if cls.__name__ not in found:
                found[cls.__name__] = kind
                for field in fields:
                    look(field.type)
            case inspect.VarTupleType(item_type=item) | inspect.DictType(value_type=item):
                look(item)
            case inspect.UnionType(types=types):
                for each in types:
                    look(each)
            case _:
                pass

    look(kind)
    return list(found.values())


def descriptions(kind: type) -> dict[str, str]:
    """What the options of this struct mean, by name."""
    return (descriptions(LIKE[kind]) if kind in LIKE else {}) | field_docstrings(kind)


def _describe(part: Schema, kind: inspect.StructType) -> None:
    texts = descriptions(kind.cls)
    if not part["required"]:
        del part["required"]
    if kind.tag_field:
        texts[kind.tag_field] = f"The kind of source: {kind.tag}."
    part["properties"] = {
        name: {"description": texts[name]} | _in_toml(option) if name in texts else _in_toml(option)
        for name, option in part["properties"].items()
    }


def _in_toml(option: Schema) -> Schema:
    """The schema of an option without null, which TOML does not have, and without the defaults of whole tables."""
    option = dict(option)
    if option.get("default") is None or isinstance(option["default"], dict):
        option.pop("default", None)
    if "anyOf" in option:
        some = [each for each in option.pop("anyOf") if each != {"type": "null"}]
        option = (some[0] if len(some) == 1 else {"anyOf": some}) | option
    return option
