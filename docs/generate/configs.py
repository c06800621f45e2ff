"""What the code knows of `configs/`: the JSON Schema, and the comments above the options of the annotated example.

The comment above an option is the docstring under its field. Everything else in the example (values, order, headings
and the comments above those) is written by hand and stays.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from docs.generate.structs import struct
from perceiverd.config import Config, StreamConfig
from perceiverd.config.json_schema import descriptions, schema_text, structs

CONFIGS = Path(__file__).parents[2] / "configs"
EXAMPLE, SCHEMA = CONFIGS / "perceiverd.toml", CONFIGS / "perceiverd.schema.json"
HEADING = re.compile(r"(?:# )?\[\[?([^\]]+)\]\]?$")
OPTION = re.compile(r"(# )?([a-z_]+) = (.*)")
COLUMNS = 120


def written() -> dict[Path, str]:
    """Each file with the text that it should have."""
    return {EXAMPLE: annotated(EXAMPLE.read_text(encoding="utf-8")), SCHEMA: schema_text()}


def annotated(text: str) -> str:
    """The example with a new comment above each option that has a docstring."""
    done: list[str] = []
    meanings: dict[str, str] = {}
    for line in text.splitlines():
        if heading := HEADING.fullmatch(line):
            meanings = _meanings(heading[1])
        elif option := OPTION.fullmatch(line):
            if option[2] == "kind":
                meanings = _meanings(option[3].strip('"'))
            elif meaning := meanings.get(option[2]):
                while done and done[-1].startswith("#") and not (HEADING.fullmatch(done[-1]) or OPTION.match(done[-1])):
                    done.pop()
                done += _comment(meaning)
        done.append(line)
    return "\n".join(done) + "\n"


def _meanings(place: str) -> dict[str, str]:
    """What the options mean in a table of this heading, or in a source of this kind; empty for other tables."""
    tables = {each.name: each.type.cls for each in struct(Config).fields if hasattr(each.type, "cls")}
    kinds = {str(each.tag): each.cls for each in structs(struct(StreamConfig)) if each.tag}
    if re.fullmatch(r"streams\.\w+", place):
        return descriptions(StreamConfig)
    known = tables | kinds
    return descriptions(known[place]) if place in known else {}


def _comment(meaning: str) -> Iterator[str]:
    # A line of a comment must not begin like an option: `on = 0.5` stays beside the word before it.
    bound = re.sub(r" ([a-z_]+) = ", "\0\\1\0=\0", meaning)
    lines = textwrap.wrap(bound, COLUMNS - 2, break_long_words=False, break_on_hyphens=False)
    return (f"# {line}".replace("\0", " ") for line in lines)


def write() -> list[str]:
    """Write the files that differ; the names of these."""
    changed = [(path, text) for path, text in written().items() if not path.is_file() or path.read_text() != text]
    for path, text in changed:
        path.write_text(text, encoding="utf-8")
    return [path.name for path, _ in changed]
