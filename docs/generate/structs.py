"""Words for msgspec structs: the type, range, default and meaning of each field. Knows no page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from perceiverd.core.docstrings import field_docstrings


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a struct."""

    name: str
    type: inspect.Type
    default: Any
    """`msgspec.NODEFAULT` if the field has none, or a new object each time."""
    meaning: str
    """The docstring under the field; empty if it has none."""


def fields(kind: type) -> list[Field]:
    """The fields of a struct, in order."""
    info, meanings = struct(kind), field_docstrings(kind)
    return [Field(each.encode_name, each.type, each.default, meanings.get(each.name, "")) for each in info.fields]


def struct(kind: type) -> inspect.StructType:
    """What msgspec knows of a struct."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info


def summary(kind: type) -> str:
    """The first paragraph of a struct's docstring as one line."""
    return " ".join((kind.__doc__ or "").strip().partition("\n\n")[0].split())


def type_of(kind: inspect.Type) -> str:
    """A type in words, with its range: `integer, 1 to 10`."""
    match kind:
        case inspect.BoolType():
            return "boolean"
        case inspect.IntType() | inspect.FloatType():
            return _number(kind)
        case inspect.StrType():
            return "text"
        case inspect.DateTimeType():
            return "time (RFC 3339, UTC)"
        case inspect.LiteralType(values=values):
            return " or ".join(f"`{json.dumps(value)}`" for value in values)
        case inspect.VarTupleType(item_type=item):
            return f"list of {type_of(item)}"
        case inspect.TupleType(item_types=items):
            return f"list of {len(items)}: {type_of(items[0])}"
        case inspect.DictType(value_type=value):
            return f"table of {type_of(value)}"
        case inspect.UnionType(types=types):
            return " or ".join(type_of(each) for each in types if not isinstance(each, inspect.NoneType))
        case inspect.StructType(tag=tag):
            return f"`{tag}`" if tag else "table"
        case _:
            raise TypeError(f"the documentation has no words for {kind}")


def nullable(kind: inspect.Type) -> bool:
    """Whether the field may be null."""
    return isinstance(kind, inspect.UnionType) and kind.includes_none


def default_of(field: Field) -> str:
    """The default as TOML writes it; `-` for an option that is unset by default, empty if the field is required."""
    if field.default is msgspec.NODEFAULT:
        return ""
    return "-" if field.default is None else f"`{_toml(field.default)}`"


def _number(kind: inspect.IntType | inspect.FloatType) -> str:
    word = "integer" if isinstance(kind, inspect.IntType) else "number"
    low = next((f"{sign}{_digits(at)}" for sign, at in (("above ", kind.gt), ("", kind.ge)) if at is not None), "")
    high = next((f"{sign}{_digits(at)}" for sign, at in (("below ", kind.lt), ("", kind.le)) if at is not None), "")
    if low and high:
        return f"{word}, {low} to {high}"
    return f"{word}, {low if kind.ge is None else f'at least {low}'}" if low else word


def _digits(number: float) -> str:
    return f"{number:g}" if abs(number) < 1e6 else f"{number:.0f}"


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
