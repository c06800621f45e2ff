"""Options out of plain tables, and what may have been meant where a table is wrong. Knows no particular option."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from perceiverd.core.errors import ConfigError

Section = TypeVar("Section")
SUCH_AS = ', such as sources = [{ kind = "camera" }]'


def convert(raw: dict[str, Any], section: type[Section], where: str) -> Section:
    try:
        return msgspec.convert(raw, section)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        place = place.rstrip("`")
        raise ConfigError(f"{where}{_explain(what, place, section, raw)}") from error


def _explain(what: str, place: str, section: type, raw: dict[str, Any]) -> str:
    """What msgspec said, with the offending key at the end of its place, and what may have been meant."""
    steps: list[str | int] = [int(i) if i else key for key, i in re.findall(r"\.(\w+)|\[(\d+)\]", place)]
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        known = _keys(inspect.type_info(section), raw, steps)
        return f"{place}.{unknown[1]}: no such option; {_meant(unknown[1], known)}"
    if wrong := re.fullmatch(r"Invalid value '(.*)'", what):  # only a tag is refused with these words
        known = [str(kind.tag) for kind in _structs(_follow(inspect.type_info(section), raw, steps[:-1])[0])]
        return f"{place}: {wrong[1]!r} is none; {_meant(wrong[1], known)}"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        said = f"the option `{missing[1]}` is missing"
        if missing[1] == "kind":
            kinds = _structs(_follow(inspect.type_info(section), raw, steps)[0])
            return f"{place}: {said}; there are {', '.join(str(kind.tag) for kind in kinds)}"
        return f"{place}: {said}{SUCH_AS if missing[1] == 'sources' else ''}"
    # In TOML's words; msgspec speaks in those of JSON.
    what = what[:1].lower() + what[1:].replace("`array`", "a list").replace("`object`", "a table")
    return f"{place}: {what}{SUCH_AS if place.endswith('.sources') else ''}"


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"


def _keys(kind: inspect.Type, raw: Any, steps: Sequence[str | int]) -> list[str]:
    """The options of the table to which these steps lead."""
    kind, raw = _follow(kind, raw, steps)
    return [field.encode_name for struct in _structs(kind, raw) for field in struct.fields] + [
        struct.tag_field for struct in _structs(kind, raw)[:1] if struct.tag_field
    ]


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
    """The struct that this type is, or those of a union; only the one that is meant, where the value says it."""
    members = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    structs = [member for member in members if isinstance(member, inspect.StructType)]
    if isinstance(raw, dict) and len(structs) > 1:
        return [struct for struct in structs if struct.tag == raw.get(struct.tag_field)] or structs
    return structs
