"""The records that `perceiverd tag` writes, as text and as JSON."""

import json
from typing import get_args, get_type_hints

import msgspec
import pytest

from perceiverd.cli import app
from perceiverd.offline.records import (
    FORMATS,
    FileEvent,
    FileExplanation,
    FileScores,
    FileSummary,
    FormatName,
    JsonLines,
    TextLines,
)
from perceiverd.wire import messages
from perceiverd.wire.messages import Tag

DOG = Tag("/m/d", 74, "Dog", 0.912345)
SCORES = FileScores("a b.mp4", 0.64, 1.92, ("audio",), (DOG, Tag("/m/b", 75, "Bark", 0.5)))

EVENT = FileEvent(
    file="a b.mp4",
    id="74-640",
    mid="/m/d",
    index=74,
    name="Dog",
    start_s=0.64,
    end_s=3.2,
    duration_s=2.56,
    peak=0.912345,
    mean=0.8,
    modalities=("audio",),
    continues=None,
    explanation=FileExplanation(score=0.2, on=0.5, off=0.25, windows=4, reason="faded"),
)

WALL_CLOCK = {"start", "end"}
OF_A_STREAM = {"stream", "latency_ms", "model", "boot_id", "seq", "schema"}
"""Keys of the wire's messages that a file does not have."""


@pytest.mark.parametrize(
    ("record", "message", "other"),
    [
        (FileScores, messages.Scores, WALL_CLOCK | OF_A_STREAM | {"dropped", "skew_ms", "skew_most_ms"}),
        (FileEvent, messages.Event, WALL_CLOCK | OF_A_STREAM | {"snapshot", "repeated"}),
        (FileExplanation, messages.Explanation, {"since"}),
    ],
)
def test_keys_are_those_of_the_wire(
    record: type[msgspec.Struct], message: type[msgspec.Struct], other: set[str]
) -> None:
    """A record has the keys of the wire's message, without those of a live stream; `file` replaces `stream`."""
    keys, wire = set(record.__struct_fields__) - {"file"}, set(message.__struct_fields__)
    assert keys == wire - other
    assert record.__struct_config__.tag == message.__struct_config__.tag


def test_text_names_what_a_window_lacks() -> None:
    """Behind the labels of a window are the reason for missing media, and what was filled."""
    record = msgspec.structs.replace(SCORES, filled_ms={"audio": 42.7}, missing={"video": "too far apart"})
    assert TextLines()(record).endswith("  (no video: too far apart, 43 ms of audio filled)\n")
    assert "(" not in TextLines()(msgspec.structs.replace(SCORES, missing={"video": "no track"}))


def test_json_line_of_a_window() -> None:
    """A window is one line with the documented keys in their order."""
    line = JsonLines()(SCORES)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert list(json.loads(line).items()) == [
        ("type", "scores"),
        ("file", "a b.mp4"),
        ("start_s", 0.64),
        ("end_s", 1.92),
        ("modalities", ["audio"]),
        (
            "labels",
            [
                {"mid": "/m/d", "index": 74, "name": "Dog", "score": 0.912345},
                {"mid": "/m/b", "index": 75, "name": "Bark", "score": 0.5},
            ],
        ),
        ("filled_ms", {}),
        ("missing", {}),
    ]


def test_json_line_of_a_file() -> None:
    """A summary has the number of windows and their mean."""
    record = json.loads(JsonLines()(FileSummary("ä\n.wav", 7, (DOG,))))
    assert list(record) == ["type", "file", "windows", "labels"]
    assert (record["type"], record["file"], record["windows"]) == ("summary", "ä\n.wav", 7)


def test_text_has_the_name_of_a_file_once() -> None:
    """The file's name is a line above its windows."""
    write = TextLines()
    assert write(SCORES) == "a b.mp4\n   0.64-1.92     Dog 0.91, Bark 0.50\n"
    assert write(SCORES) == "   0.64-1.92     Dog 0.91, Bark 0.50\n"
    assert write(FileScores("b.mp4", 0.0, 1.28, (), (DOG,))).startswith("b.mp4\n")


def test_text_keeps_a_name_on_its_line() -> None:
    """A line break or an escape sequence in a file's name is escaped; other letters stay."""
    assert TextLines()(FileScores("ä\n\x1b[2J.wav", 0.0, 1.28, (), (DOG,))).splitlines()[0] == r"ä\n\x1b[2J.wav"
    assert TextLines()(FileSummary("ä\n.wav", 7, (DOG,))) == "ä\\n.wav  Dog 0.91\n"


def test_text_is_aligned() -> None:
    """Labels start in the same column, early and late in a file."""
    write = TextLines()
    lines = [write(FileScores("a", at, at + 1.28, (), (DOG,))).splitlines()[-1] for at in (0.0, 9.99, 1234.5)]
    assert len({line.index("Dog") for line in lines}) == 1


def test_text_of_a_summary_is_a_line() -> None:
    """The text of a summary is the file's name and its labels."""
    assert TextLines()(FileSummary("a.wav", 7, (DOG,))) == "a.wav  Dog 0.91\n"


def test_an_event_is_a_line() -> None:
    """The text of an event has its highest score; the JSON has all keys."""
    write = TextLines()
    assert write(EVENT) == "a b.mp4\n   0.64-3.20     Dog 0.91\n"
    assert write(EVENT) == "   0.64-3.20     Dog 0.91\n"
    record = json.loads(JsonLines()(EVENT))
    assert list(record) == ["type", *FileEvent.__struct_fields__]
    assert (record["type"], record["kind"], record["id"]) == ("event", "end", "74-640")
    assert record["explanation"] == {"score": 0.2, "on": 0.5, "off": 0.25, "windows": 4, "reason": "faded"}


def test_formats_of_the_command_line_are_those_of_the_writers() -> None:
    """`tag --format` offers exactly the formats that have a writer."""
    offered = get_args(get_type_hints(app.tag)["form"])
    assert set(offered) == set(FORMATS) == set(get_args(FormatName))
