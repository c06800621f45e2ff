"""Tables written as TOML; the standard library only reads it. Knows nothing of what stands in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date, time
from typing import Any

BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def written(table: Mapping[str, Any]) -> str:
    """The TOML that reads as this table; entries of None are left out. Raises TypeError for what TOML has no form of.

    Tables and lists of tables get headings of their own, a blank line apart; everything else is one line a key.
    """
    return "".join(f"{line}\n" for line in _lines(table, ())).lstrip("\n")


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    entries = {key: value for key, value in table.items() if value is not None}
    below = {key: value for key, value in entries.items() if isinstance(value, Mapping) or _is_tables(value)}
    yield from (f"{_key(key)} = {_value(value)}" for key, value in entries.items() if key not in below)
    for key, value in below.items():
        heading = ".".join(map(_key, (*path, key)))
        if isinstance(value, Mapping):
            # A table that holds nothing but tables needs no heading, unless it would vanish without.
            if not value or not all(isinstance(each, Mapping) or _is_tables(each) for each in value.values()):
                yield from ("", f"[{heading}]")
            yield from _lines(value, (*path, key))
        else:
            for each in value:
                yield from ("", f"[[{heading}]]")
                yield from _lines(each, (*path, key))


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _key(key: str) -> str:
    return key if key and BARE.issuperset(key) else _string(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case int() | float():
            return repr(value)
        case date() | time():
            return value.isoformat()
        case Mapping():
            pairs = (f"{_key(key)} = {_value(each)}" for key, each in value.items() if each is not None)
            return "{ " + ", ".join(pairs) + " }"
        case list() | tuple() | set() | frozenset():
            return "[" + ", ".join(map(_value, sorted(value) if isinstance(value, set | frozenset) else value)) + "]"
    raise TypeError(f"{type(value).__name__} has no form in TOML")


def _string(text: str) -> str:
    # JSON's escapes are TOML's too; only DEL has to be escaped here and not there.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
