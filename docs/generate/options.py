"""`configuration.md`: every option of the TOML file, by table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from docs.generate.markdown import code, table
from docs.generate.structs import Field, default_of, fields, struct, summary, type_of
from perceiverd.config import Config, StreamConfig
from perceiverd.daemon.reload import LIVE
from perceiverd.pipeline.rules import EventOptions, LabelOptions, StreamOptions
from perceiverd.sources.specs import Source

NESTED = {"sources": "see [below](#streamsnamesources)", "labels": "see [below](#eventslabelslabel)"}
"""Fields that are tables of their own, with a word where they are described."""
STREAM, SOURCE = "streams.NAME", "streams.NAME.sources"
INHERITED = {f"{STREAM}.events": StreamOptions, 'events.labels."LABEL"': LabelOptions}
"""Tables whose options mean the same as in `[events]`."""


def contents() -> dict[str, str]:
    """The parts of the page."""
    return {"tables": "\n\n".join(_tables()), "live": _live()}


def _tables() -> Iterator[str]:
    for name, kind in sections():
        yield described(name, kind)
        if kind is EventOptions:
            yield from (_inherited(path, special) for path, special in INHERITED.items())
    yield f"## [[{SOURCE}]]\n\n`kind` selects the kind of source; the other options depend on it."
    for kind in get_args(Source):
        tag = struct(kind).tag
        yield f'### kind = "{tag}"\n\n{summary(kind)}\n\n{_options(kind)}'


def described(name: str, kind: type) -> str:
    """The section of one table."""
    return f"## [{name}]\n\n{_purpose(kind)}\n\n{_options(kind)}"


def sections() -> list[tuple[str, type]]:
    """The tables at the top of the file and that of a stream, with their structs."""
    found = [(each.name, each.type.cls) for each in struct(Config).fields if hasattr(each.type, "cls")]
    return [*found, (STREAM, StreamConfig)]


def _purpose(kind: type) -> str:
    """The struct's docstring without the name of its table in front."""
    text = summary(kind).partition("]`: ")[2] or summary(kind)
    return text[:1].upper() + text[1:]


def _options(kind: type) -> str:
    return table(("option", "type", "default", "meaning"), (_row(field) for field in fields(kind)))


def _row(field: Field) -> tuple[str, str, str, str]:
    if field.name in NESTED or hasattr(field.type, "cls"):
        return code(field.name), "table", "", NESTED.get(field.name, field.meaning)
    return code(field.name), type_of(field.type), default_of(field) or "required", field.meaning


def _inherited(path: str, kind: type) -> str:
    names = ", ".join(code(field.name) for field in fields(kind))
    return f"### [{path}]\n\n{_purpose(kind)}\n\nOptions: {names}. They mean the same as in [`[events]`](#events)."


def _live() -> str:
    return ", ".join(code(name if "." in name else f"[{name}]") for name in sorted(LIVE))
