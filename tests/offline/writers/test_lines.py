"""Records as text and as JSON."""

import io
import json

import msgspec

from perceiverd.offline.writers.lines import JsonLines, TextLines
from perceiverd.offline.writers.writer import ALL_KINDS
from perceiverd.wire.records import FileEvent, Record
from tests.support.file_records import HEADER, event, pieces, scores, summary


def json_text(record: Record) -> str:
    return JsonLines(io.StringIO(), ALL_KINDS).text(record)


def text_lines() -> TextLines:
    return TextLines(io.StringIO(), ALL_KINDS)


def test_only_the_chosen_kinds_are_written() -> None:
    """Each chosen record is written, and flushed at once; the others are left out."""
    written = io.StringIO()
    writer = JsonLines(written, frozenset({"event", "summary"}))
    for piece in pieces():
        writer.write(piece)
    assert [json.loads(line)["type"] for line in written.getvalue().splitlines()] == ["event", "event", "summary"]


def test_a_header_has_no_text() -> None:
    """A header is for programs: text begins with the file's name above its first line."""
    assert text_lines().text(HEADER) == ""


def test_text_names_what_a_window_lacks() -> None:
    """Behind the labels of a window are the reason for missing media, and what was filled."""
    record = msgspec.structs.replace(scores(), filled_ms={"audio": 42.7}, missing={"video": "too far apart"})
    assert text_lines().text(record).endswith("  (no video: too far apart, 43 ms of audio filled)\n")
    assert "(" not in text_lines().text(msgspec.structs.replace(scores(), missing={"video": "no track"}))


def test_json_line_of_a_window() -> None:
    """A window is one line with the documented keys in their order."""
    line = json_text(scores())
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert list(json.loads(line).items()) == [
        ("type", "scores"),
        ("file", "a b.mp4"),
        ("start_s", 0.64),
        ("end_s", 1.92),
        ("modalities", ["audio"]),
        ("model", {"name": "tiny", "sha256": "f6e9"}),
        (
            "labels",
            [
                {"mid": "/m/0bt9lr", "index": 74, "name": "Dog", "score": 0.912345},
                {"mid": "/m/05tny_", "index": 75, "name": "Bark", "score": 0.5},
            ],
        ),
        ("filled_ms", {}),
        ("missing", {}),
        ("schema", 1),
    ]


def test_json_line_of_a_file() -> None:
    """A summary has the number of windows and their mean."""
    record = json.loads(json_text(summary("ä\n.wav")))
    assert list(record) == ["type", "file", "windows", "end_s", "labels", "model", "error", "schema"]
    assert (record["type"], record["file"], record["windows"]) == ("summary", "ä\n.wav", 7)


def test_text_has_the_name_of_a_file_once() -> None:
    """The file's name is a line above its windows."""
    write = text_lines().text
    assert write(scores()) == "a b.mp4\n   0.64-1.92     Dog 0.91, Bark 0.50\n"
    assert write(scores()) == "   0.64-1.92     Dog 0.91, Bark 0.50\n"
    assert write(scores("b.mp4", 0.0)).startswith("b.mp4\n")


def test_text_keeps_a_name_on_its_line() -> None:
    """A line break or an escape sequence in a file's name is escaped; other letters stay."""
    assert text_lines().text(scores("ä\n\x1b[2J.wav", 0.0)).splitlines()[0] == r"ä\n\x1b[2J.wav"
    assert text_lines().text(summary("ä\n.wav")) == "ä\\n.wav  Dog 0.91\n"


def test_text_is_aligned() -> None:
    """Labels start in the same column, early and late in a file."""
    write = text_lines().text
    lines = [write(scores("a", at)).splitlines()[-1] for at in (0.0, 9.99, 1234.5)]
    assert len({line.index("Dog") for line in lines}) == 1


def test_text_of_a_summary_is_a_line() -> None:
    """The text of a summary is the file's name and its labels."""
    assert text_lines().text(summary("a.wav")) == "a.wav  Dog 0.91\n"


def test_an_event_is_a_line() -> None:
    """The text of an event has its highest score; the JSON has all keys."""
    write = text_lines().text
    assert write(event()) == "a b.mp4\n   0.64-3.20     Dog 0.91\n"
    assert write(event()) == "   0.64-3.20     Dog 0.91\n"
    record = json.loads(json_text(event()))
    assert list(record) == ["type", *FileEvent.__struct_fields__]
    assert (record["type"], record["kind"], record["id"]) == ("event", "end", "74-640")
    assert record["explanation"] == {"score": 0.2, "on": 0.5, "off": 0.25, "windows": 4, "reason": "faded"}
