"""`log-events.md`: every event of the log with its level and fields, found by reading the calls that log it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs.generate.markdown import code, table
from perceiverd.core.log_events import EVENTS
from perceiverd.core.paths import PACKAGE

FUNCTION, LIMITED = "log_event", "log_limited"
SUPPRESSED = "suppressed"
"""The field that `log_limited` adds."""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of `log_event(logger, level, "event", key=value, ...)`, or of `log_limited`."""

    room: str
    """The package that logs, such as `sources`."""
    place: str
    """File and line."""
    event: str | None
    """None if the name is not a literal."""
    levels: tuple[str, ...]
    """Both, if the call chooses between two; empty if they cannot be read from the source."""
    fields: tuple[str, ...]


def calls(package: Path = PACKAGE) -> list[Call]:
    """All calls in the package, ordered by file and line."""
    return [call for path in sorted(package.rglob("*.py")) for call in _calls_in(path, package)]


def contents() -> dict[str, str]:
    """The parts of the page."""
    by_room: dict[str, dict[str, list[Call]]] = defaultdict(lambda: defaultdict(list))
    for call in calls():
        if call.event is not None:
            by_room[call.room][call.event].append(call)
    return {"events": "\n\n".join(f"## {room}\n\n{_room(events)}" for room, events in sorted(by_room.items()))}


def _room(events: dict[str, list[Call]]) -> str:
    rows = (
        (code(name), _levels(found), _fields(found), EVENTS.get(name, "")) for name, found in sorted(events.items())
    )
    return table(("event", "level", "fields", "meaning"), rows)


def _levels(found: list[Call]) -> str:
    return " or ".join(level.lower() for level in LEVELS if any(level in call.levels for call in found))


def _fields(found: list[Call]) -> str:
    return ", ".join(code(name) for name in dict.fromkeys(name for call in found for name in call.fields))


def _calls_in(path: Path, package: Path) -> Iterator[Call]:
    inside = path.relative_to(package)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and _named(node.func) in (FUNCTION, LIMITED))
    for node in sorted(found, key=lambda node: node.lineno):
        level, event = node.args[1:3]
        fields = [keyword.arg or "..." for keyword in node.keywords]
        yield Call(
            room=inside.parts[0],
            place=f"{inside}:{node.lineno}",
            event=event.value if isinstance(event, ast.Constant) and isinstance(event.value, str) else None,
            levels=tuple(name for part in ast.walk(level) if (name := _named(part)) in LEVELS),
            fields=(*fields, SUPPRESSED) if _named(node.func) == LIMITED else tuple(fields),
        )


def _named(node: ast.AST) -> str:
    """The last part of a name: `WARNING` of `logging.WARNING`; empty if the node is no name."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
