"""The JSON Schema: the shipped one, the promised one, and what is really published."""

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
"""The schema when this version was first released. Only a new SCHEMA gets a new file."""
SHIPPED: dict[str, Any] = json.loads(schema.FILE.read_text(encoding="utf-8"))


def shape(part: Any) -> Any:
    """A schema without texts for people."""
    if isinstance(part, dict):
        return {key: shape(each) for key, each in part.items() if key not in ("description", "title", "required")}
    return [shape(each) for each in part] if isinstance(part, list) else part


def breaches(promised: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Keys of the promised schema that have changed or are gone."""
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


def test_the_shipped_schema_is_that_of_the_structs() -> None:
    """The file equals the output of `perceiverd schema`."""
    assert schema.FILE.read_text(encoding="utf-8") == schema.text_of(schema.json_schema()), (
        f"perceiverd schema > perceiverd/wire/{schema.FILE.name}"
    )


def test_the_promised_schema_is_kept() -> None:
    """Keys may be added. If one is removed or changes its type, SCHEMA must increase, with a new file here."""
    promised = json.loads(PROMISED.read_text(encoding="utf-8"))
    assert not breaches(promised, schema.json_schema()), "raise messages.SCHEMA"


def test_a_broken_promise_is_found() -> None:
    """A removed key, a changed type, an optional key and a removed message are reported; an added key is not."""
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


def test_the_schema_is_valid() -> None:
    """It is a valid JSON Schema, and it describes its keys."""
    jsonschema.Draft202012Validator.check_schema(SHIPPED)
    assert SHIPPED["$defs"]["Scores"]["properties"]["seq"]["description"]


@pytest.mark.parametrize(
    "message", [hello(), scores(), status(), event("begin", 1)], ids=lambda each: type(each).__name__
)
def test_published_messages_are_valid(message: Message) -> None:
    """A message fits the schema as a plain subscriber reads it; without one of its keys it does not."""
    validator = jsonschema.Draft202012Validator(SHIPPED)
    with Publisher(LOOPBACK) as publisher, zmq.Context() as context, context.socket(zmq.SUB) as reader:
        reader.connect(publisher.endpoint)
        reader.subscribe(b"")
        until(publisher, lambda: publisher.subscriptions > 0)
        publisher.send(message)
        _, body = reader.recv_multipart()
        reader.close(linger=0)
    received = json.loads(body)
    validator.validate(received)
    for key in received:
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({name: value for name, value in received.items() if name != key})
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(received | {"schema": messages.SCHEMA + 1})
