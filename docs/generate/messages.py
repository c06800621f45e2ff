"""`wire.md` and `records.md`: every message and every record of a file with its keys, and examples.

From the structs of `perceiverd.wire.messages` and `perceiverd.wire.records`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import get_args

import msgspec
from msgspec import inspect

from docs.generate.markdown import code, table
from docs.generate.structs import Field, fields, nullable, struct, summary, type_of
from perceiverd.wire import messages, records
from perceiverd.wire.messages import Message
from perceiverd.wire.records import Record

KINDS: tuple[type, ...] = get_args(Message)
COMMON = ("model", "boot_id", "seq", "schema")
"""Keys of every message; described once."""
PEER = messages.Hello
"""The struct whose docstrings describe the common keys."""

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
MODEL = messages.Model("ear-and-eye-small", "f6e927c9b088...")
SAMPLES: tuple[Message | Record, ...] = (
    messages.Hello(
        version="0.1.0", streams=("door", "room"), model=MODEL, hop_s=0.5, status_interval_s=1.0, up_since=NOON
    ),
    messages.Scores(
        stream="door",
        start=NOON - timedelta(seconds=1.28),
        end=NOON,
        start_s=81.5,
        end_s=82.78,
        latency_ms=127.1,
        modalities=("audio", "video"),
        model=MODEL,
        labels=(messages.Tag("/m/0bt9lr", 74, "Dog", 0.91), messages.Tag("/m/05tny_", 75, "Bark", 0.87)),
        dropped=0,
        skew_ms=12.4,
        skew_most_ms=20.1,
        seq=160,
    ),
    messages.Event(
        stream="door",
        kind="begin",
        id="74-15215998",
        mid="/m/0bt9lr",
        index=74,
        name="Dog",
        start=NOON - timedelta(seconds=1.78),
        end=NOON,
        start_s=81.0,
        end_s=82.78,
        duration_s=1.78,
        peak=0.91,
        mean=0.82,
        modalities=("audio", "video"),
        continues=None,
        explanation=messages.Explanation(
            score=0.62, on=0.5, off=0.27, windows=2, since=NOON - timedelta(seconds=0.5), reason="confirmed"
        ),
        latency_ms=127.1,
        model=MODEL,
        seq=7,
    ),
    records.FileHeader(
        file="film.mp4",
        version="0.1.0",
        model=MODEL,
        window_s=1.28,
        hop_s=0.5,
        modalities=("audio", "video"),
        length_s=32.0,
    ),
    records.FileEvent(
        file="film.mp4",
        id="74-8000",
        mid="/m/0bt9lr",
        index=74,
        name="Dog",
        start_s=8.0,
        end_s=12.28,
        duration_s=4.28,
        peak=0.91,
        mean=0.82,
        modalities=("audio", "video"),
        continues=None,
        explanation=records.FileExplanation(score=0.21, on=0.5, off=0.27, windows=7, reason="faded"),
        model=MODEL,
    ),
)
"""Shown as examples. A status and an explanation are too long to help."""


def contents() -> dict[str, str]:
    """The parts of the page."""
    rows = (_row(field, path) for path, field in _paths(PEER) if _common(path))
    return {
        "topics": table(("`type`", "topic", "what it is"), (_topic(kind) for kind in KINDS)),
        "common": table(HEADINGS, rows),
        "messages": "\n\n".join(_section(kind) for kind in KINDS),
    }


def record_contents() -> dict[str, str]:
    """The parts of the page on records of files."""
    common = ("file", *COMMON)
    rows = (_row(field, path) for path, field in _paths(records.FileHeader) if path.partition(".")[0] in common)
    return {
        "common": table(HEADINGS, rows),
        "records": "\n\n".join(_section(kind, common) for kind in get_args(Record)),
    }


HEADINGS = ("key", "type", "meaning")


def tag(kind: type) -> str:
    """The value of `type` in a message of this kind."""
    return str(struct(kind).tag)


def keys(kind: type) -> list[str]:
    """The keys of a message, nested ones with their path (`labels[].score`); without the common ones."""
    return [path for path, _ in _paths(kind) if not _common(path)]


def _common(path: str) -> bool:
    return path.partition(".")[0] in COMMON


def _topic(kind: type) -> tuple[str, str, str]:
    topics = {"hello": "hello/", "event": "events/STREAM/"}
    return code(tag(kind)), code(topics.get(tag(kind), f"{tag(kind)}/STREAM/")), summary(kind)


def _section(kind: type, common: tuple[str, ...] = COMMON) -> str:
    rows = (_row(field, path) for path, field in _paths(kind) if path.partition(".")[0] not in common)
    parts = [f"## {tag(kind)}", summary(kind), table(HEADINGS, rows)]
    example = next((sample for sample in SAMPLES if isinstance(sample, kind)), None)
    if example is not None:
        body = json.dumps(json.loads(msgspec.json.encode(example)), ensure_ascii=False, indent=2)
        parts.append(f"```json\n{body}\n```")
    return "\n\n".join(parts)


def _row(field: Field, path: str) -> tuple[str, str, str]:
    kind = type_of(field.type) + (" or null" if nullable(field.type) else "")
    return code(path), kind, field.meaning


def _paths(kind: type, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Each key with its field; a nested struct is replaced by its own keys."""
    for field in fields(kind):
        path, inner = prefix + field.name, field.type
        if isinstance(inner, inspect.VarTupleType):
            path, inner = f"{path}[]", inner.item_type
        if isinstance(inner, inspect.StructType):
            yield from _paths(inner.cls, f"{path}.")
        else:
            yield path.removesuffix("[]"), field
