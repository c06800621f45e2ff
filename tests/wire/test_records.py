"""The records of files: the keys of the wire, and a schema that they fit."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from perceiverd.wire import messages, schema
from perceiverd.wire.records import FileEvent, FileExplanation, FileHeader, FileScores, Record
from tests.support.file_records import HEADER, event, scores, summary
from tests.wire.test_schema import breaches

PROMISED = Path(__file__).parent / f"files-{messages.SCHEMA}.json"
"""The schema when this version was first released. Only a new SCHEMA gets a new file."""
SHIPPED: dict[str, Any] = json.loads(schema.RECORDS_FILE.read_text(encoding="utf-8"))

TIMES_OF_DAY = {"start", "end"}
OF_A_STREAM = {"stream", "latency_ms", "boot_id", "seq"}
"""Keys of the wire's messages that a file does not have."""


@pytest.mark.parametrize(
    ("record", "message", "other"),
    [
        (FileScores, messages.Scores, TIMES_OF_DAY | OF_A_STREAM | {"dropped", "skew_ms", "skew_most_ms"}),
        (FileEvent, messages.Event, TIMES_OF_DAY | OF_A_STREAM | {"snapshot", "clip", "withheld", "repeated"}),
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


def test_a_header_has_the_keys_of_hello() -> None:
    """What both say has the same key."""
    assert set(FileHeader.__struct_fields__) & set(messages.Hello.__struct_fields__) == {
        "version",
        "model",
        "hop_s",
        "schema",
    }


def test_the_shipped_schema_is_that_of_the_structs() -> None:
    """The file equals the output of `perceiverd schema --files`."""
    assert schema.RECORDS_FILE.read_text(encoding="utf-8") == schema.text_of(schema.records_schema()), (
        f"perceiverd schema --files > perceiverd/wire/{schema.RECORDS_FILE.name}"
    )


def test_the_promised_schema_is_kept() -> None:
    """Keys may be added. If one is removed or changes its type, SCHEMA must increase, with a new file here."""
    promised = json.loads(PROMISED.read_text(encoding="utf-8"))
    assert not breaches(promised, schema.records_schema()), "raise messages.SCHEMA"


def test_parts_that_both_have_are_the_same() -> None:
    """Labels and models have one definition for the wire and for files."""
    wire, files = schema.json_schema()["$defs"], schema.records_schema()["$defs"]
    assert {name for name in files if name in wire} == {"Model", "Tag"}
    assert all(files[name] == wire[name] for name in ("Model", "Tag"))


@pytest.mark.parametrize("record", [HEADER, scores(), event(), summary()], ids=lambda each: type(each).__name__)
def test_records_are_valid(record: Record) -> None:
    """A record fits the schema; without one of its keys it does not."""
    validator = jsonschema.Draft202012Validator(SHIPPED)
    written = json.loads(msgspec.json.encode(record))
    validator.validate(written)
    for key in written:
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({name: value for name, value in written.items() if name != key})
