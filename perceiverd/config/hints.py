"""Plain tables to structs, with errors that name the place and suggest a fix. Knows no particular option."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from perceiverd.core.errors import ConfigError, did_you_mean

Section = TypeVar("Section")
SOURCES_EXAMPLE = ', such as sources = [{ kind = "camera" }]'
IN_TOML = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
"""TOML's words for the types that msgspec names as JSON does."""


def convert(raw: dict[str, Any], section: type[Section], where: str) -> Section:
    """The struct that this table holds. Raises ConfigError: the place below `where`, the fault, a suggestion."""
    try:
        return msgspec.convert(raw, section)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        raise ConfigError(f"{where}{_explain(what, place.rstrip('`'), section, raw)}") from error


def _explain(what: str, place: str, section: type, raw: dict[str, Any]) -> str:
    """The place, ending with the key that is at fault, and the message of msgspec in TOML's words."""
    steps: list[str | int] = [int(i) if i else key for key, i in re.findall(r"\.(\w+)|\[(\d+)\]", place)]
    kind = inspect.type_info(section)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        return f"{place}.{unknown[1]}: unknown option; {did_you_mean(unknown[1], _keys(kind, raw, steps))}"
    if tag := re.fullmatch(r"Invalid value '(.*)'", what):  # only a tag is refused with these words
        return f"{place}: unknown {steps[-1]} '{tag[1]}'; {did_you_mean(tag[1], _tags(kind, raw, steps[:-1]))}"
    if value := re.fullmatch(r"Invalid enum value '(.*)'", what):
        return f"{place}: unknown value '{value[1]}'; {did_you_mean(value[1], _values(kind, raw, steps))}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        return f"{place}: {_missing(missing[1], kind, raw, steps)}"
    return f"{place}: {_in_toml(what)}{SOURCES_EXAMPLE if place.endswith('.sources') else ''}"


def _missing(option: str, kind: inspect.Type, raw: Any, steps: Sequence[str | int]) -> str:
    text = f"the option '{option}' is missing"
    if option == "kind":
        return f"{text}; choose from {', '.join(_tags(kind, raw, steps))}"
    return text + (SOURCES_EXAMPLE if option == "sources" else "")


def _in_toml(what: str) -> str:
    """Turn `Expected `int | null`, got `str`` into `expected an integer, got a string`; our own messages stay."""

    def words(found: re.Match[str]) -> str:
        return " or ".join(IN_TOML.get(name, name) for name in found[1].split(" | ") if name != "null")

    return re.sub(r"`([^`]*)`", words, f"e{what[1:]}") if what.startswith("Expected ") else what


def _keys(kind: inspect.Type, raw: Any, steps: Sequence[str | int]) -> list[str]:
    """The options of the table to which these steps lead."""
    kind, raw = _follow(kind, raw, steps)
    return [field.encode_name for struct in _structs(kind, raw) for field in struct.fields] + [
        struct.tag_field for struct in _structs(kind, raw)[:1] if struct.tag_field
    ]


def _tags(kind: inspect.Type, raw: Any, steps: Sequence[str | int]) -> list[str]:
    """The kinds of the table to which these steps lead."""
    return [str(struct.tag) for struct in _structs(_follow(kind, raw, steps)[0])]


def _values(kind: inspect.Type, raw: Any, steps: Sequence[str | int]) -> list[str]:
    """The words that the option to which these steps lead can be."""
    kind, _ = _follow(kind, raw, steps)
    members = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return [str(word) for member in members if isinstance(member, inspect.LiteralType) for word in member.values]


def _follow(kind: inspect.Type, raw: Any, steps: Sequence[str | int]) -> tuple[inspect.Type, Any]:
    """The type and the value to which these steps lead."""
    for step in steps:
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
        if isinstance(step, int):
            assert isinstance(kind, inspect.VarTupleType | inspect.ListType)
            kind = kind.item_type
        else:
            kind = next(f.type for struct in _structs(kind, raw) for f in struct.fields if f.encode_name == step)
        raw = raw[step]
    return kind, raw


def _structs(kind: inspect.Type, raw: Any = None) -> list[inspect.StructType]:
    """The struct that this type is, or those of a union; if the value's tag names one of them, only that one."""
    members = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    structs = [member for member in members if isinstance(member, inspect.StructType)]
    if isinstance(raw, dict) and len(structs) > 1:
        return [struct for struct in structs if struct.tag == raw.get(struct.tag_field)] or structs
    return structs
