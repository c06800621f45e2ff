"""The wire's contract: the schema that is shipped, the one that was promised, and what is really said."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import zmq

from perceiverd.wire import messages, schema
from perceiverd.wire.messages import Message
from perceiverd.wire.publisher import Publisher
from tests.support.messages import LOOPBACK, event, hello, scores, status, until

PROMISED = Path(__file__).parent / f"wire-{messages.SCHEMA}.json"
"""As it was when this version was first given to others. Only a new SCHEMA gets another."""
SHIPPED: dict[str, Any] = json.loads(schema.FILE.read_text(encoding="utf-8"))


def shape(part: Any) -> Any:
    """A schema without what is said for people."""
    if isinstance(part, dict):
        return {key: shape(each) for key, each in part.items() if key not in ("description", "title", "required")}
    return [shape(each) for each in part] if isinstance(part, list) else part


def breaches(promised: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a reader of the promised wire would no longer find as it was."""
    found: list[str] = []
    for name, part in promised["$defs"].items():
        if name not in now["$defs"]:
            found.append(name)
            continue
        after = now["$defs"][name]
        for key, kind in part["properties"].items():
            if key not in after["required"] or shape(after["properties"][key]) != shape(kind):
                found.append(f"{name}.{key}")
    return found


def test_the_schema_that_is_shipped_is_that_of_the_structs() -> None:
    """The file is what the command prints."""
    assert schema.FILE.read_text(encoding="utf-8") == schema.written(), (
        f"perceiverd schema > perceiverd/{schema.FILE.name}"
    )


def test_the_wire_is_as_it_was_promised() -> None:
    """Keys may be added; one that goes, or changes its type, needs another SCHEMA, and a file of its own here."""
    promised = json.loads(PROMISED.read_text(encoding="utf-8"))
    assert not breaches(promised, schema.wire()), "raise messages.SCHEMA"


def test_a_broken_promise_is_found() -> None:
    """A key that is gone, one of another type, one that may be missing, and a kind that is gone: each is a breach."""
    gone, other, optional, kind = (json.loads(json.dumps(SHIPPED)) for _ in range(4))
    del gone["$defs"]["Tag"]["properties"]["score"]
    gone["$defs"]["Tag"]["required"].remove("score")
    other["$defs"]["Tag"]["properties"]["score"]["type"] = "string"
    optional["$defs"]["Scores"]["required"].remove("seq")
    del kind["$defs"]["Event"]
    added = json.loads(json.dumps(SHIPPED))
    added["$defs"]["Tag"]["properties"]["colour"] = {"type": "string"}
    assert [breaches(SHIPPED, each) for each in (gone, other, optional, kind, added)] == [
        ["Tag.score"],
        ["Tag.score"],
        ["Scores.seq"],
        ["Event"],
        [],
    ]


def test_the_schema_is_one() -> None:
    """It is valid itself, and every key of it that carries a number has a meaning beside it."""
    jsonschema.Draft202012Validator.check_schema(SHIPPED)
    assert SHIPPED["$defs"]["Scores"]["properties"]["seq"]["description"]


@pytest.mark.parametrize(
    "message", [hello(), scores(), status(), event("begin", 1)], ids=lambda each: type(each).__name__
)
def test_what_is_sent_is_valid(message: Message) -> None:
    """A message as a plain subscriber reads it fits the schema; without one of its keys it doesn't."""
    validator = jsonschema.Draft202012Validator(SHIPPED)
    with Publisher(LOOPBACK) as publisher, zmq.Context() as context, context.socket(zmq.SUB) as reader:
        reader.connect(publisher.endpoint)
        reader.subscribe(b"")
        until(publisher, lambda: publisher.subscriptions > 0)
        publisher.send(message)
        _, body = reader.recv_multipart()
        reader.close(linger=0)
    said = json.loads(body)
    validator.validate(said)
    for key in said:
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({name: value for name, value in said.items() if name != key})
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(said | {"schema": messages.SCHEMA + 1})
