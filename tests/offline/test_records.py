"""What `perceiverd tag` writes."""

import json

from perceiverd.offline.records import FileEvent, FileScores, FileSummary, JsonLines, Text
from perceiverd.wire.messages import Tag

DOG = Tag("/m/d", 74, "Dog", 0.912345)
SCORES = FileScores("a b.mp4", 0.64, 1.92, (DOG, Tag("/m/b", 75, "Bark", 0.5)), ("audio",))

EVENT = FileEvent(
    file="a b.mp4",
    id="74-640",
    start_s=0.64,
    end_s=3.2,
    mid="/m/d",
    index=74,
    name="Dog",
    peak=0.912345,
    mean=0.8,
    modalities=("audio",),
    windows=4,
    on=0.5,
    off=0.25,
    reason="faded",
    continues=None,
)


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
        (
            "labels",
            [
                {"mid": "/m/d", "index": 74, "name": "Dog", "score": 0.912345},
                {"mid": "/m/b", "index": 75, "name": "Bark", "score": 0.5},
            ],
        ),
        ("modalities", ["audio"]),
    ]


def test_json_line_of_a_file() -> None:
    """A summary says how many windows it is the mean of."""
    record = json.loads(JsonLines()(FileSummary("ä\n.wav", 7, (DOG,))))
    assert list(record) == ["type", "file", "windows", "labels"]
    assert (record["type"], record["file"], record["windows"]) == ("summary", "ä\n.wav", 7)


def test_text_has_the_name_of_a_file_once() -> None:
    """The file stands above its windows, and again when another has begun."""
    write = Text()
    assert write(SCORES) == "a b.mp4\n   0.64-1.92     Dog 0.91, Bark 0.50\n"
    assert write(SCORES) == "   0.64-1.92     Dog 0.91, Bark 0.50\n"
    assert write(FileScores("b.mp4", 0.0, 1.28, (DOG,), ())).startswith("b.mp4\n")


def test_text_keeps_a_name_on_its_line() -> None:
    """A line break or a terminal's escape in a file's name is shown, not obeyed; other letters stay."""
    assert Text()(FileScores("ä\n\x1b[2J.wav", 0.0, 1.28, (DOG,), ())).splitlines()[0] == r"ä\n\x1b[2J.wav"
    assert Text()(FileSummary("ä\n.wav", 7, (DOG,))) == "ä\\n.wav  Dog 0.91\n"


def test_text_is_aligned() -> None:
    """Labels begin in one column, early and late in a file."""
    write = Text()
    lines = [write(FileScores("a", at, at + 1.28, (DOG,), ())).splitlines()[-1] for at in (0.0, 9.99, 1234.5)]
    assert len({line.index("Dog") for line in lines}) == 1


def test_text_of_a_summary_is_a_line() -> None:
    """A summary is the file and its labels."""
    assert Text()(FileSummary("a.wav", 7, (DOG,))) == "a.wav  Dog 0.91\n"


def test_an_event_is_a_line() -> None:
    """An event stands as a window does, with its highest score; in JSON with all that is known of it."""
    write = Text()
    assert write(EVENT) == "a b.mp4\n   0.64-3.20     Dog 0.91\n"
    assert write(EVENT) == "   0.64-3.20     Dog 0.91\n"
    record = json.loads(JsonLines()(EVENT))
    assert list(record) == ["type", *FileEvent.__struct_fields__]
    assert (record["type"], record["id"], record["reason"]) == ("event", "74-640", "faded")
