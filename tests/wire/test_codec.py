"""Bytes of messages: what a program without this package reads, and what is refused."""

import json

import pytest

from perceiverd.core.errors import WireError
from perceiverd.wire.codec import decode, encode
from perceiverd.wire.messages import Message
from tests.wire.test_messages import EVENT, EXPLAIN, HELLO, SCORES, STATUS


@pytest.mark.parametrize("message", [SCORES, STATUS, HELLO, EVENT, EXPLAIN])
def test_a_message_survives_encoding_and_decoding(message: Message) -> None:
    """Decoding the encoded message gives the same value."""
    assert decode(encode(message)) == message


def test_scores_on_the_wire() -> None:
    """Scores are plain JSON, with times in UTC and the highest score first."""
    topic, body = encode(SCORES)
    assert topic == b"scores/door/"
    assert json.loads(body) == {
        "type": "scores",
        "schema": 1,
        "boot_id": "b",
        "seq": 7,
        "stream": "door",
        "start": "2026-07-01T12:00:00.250000Z",
        "end": "2026-07-01T12:00:00.250000Z",
        "start_s": 1.5,
        "end_s": 2.78,
        "latency_ms": 140.5,
        "modalities": ["audio", "video"],
        "model": {"name": "tiny", "sha256": "ab" * 32},
        "labels": [
            {"mid": "/m/0bt9lr", "index": 74, "name": "Dog", "score": 0.875},
            {"mid": "/m/05tny_", "index": 75, "name": "Bark", "score": 0.5},
        ],
        "dropped": 2,
        "skew_ms": None,
        "skew_most_ms": None,
        "filled_ms": {},
        "missing": {},
    }


def test_an_event_on_the_wire() -> None:
    """An event is plain JSON: stream, label, times, scores and reason."""
    topic, body = encode(EVENT)
    assert topic == b"events/door/"
    assert json.loads(body) == {
        "type": "event",
        "schema": 1,
        "boot_id": "",
        "seq": 3,
        "repeated": False,
        "stream": "door",
        "kind": "begin",
        "id": "74-1500",
        "mid": "/m/0bt9lr",
        "index": 74,
        "name": "Dog",
        "start": "2026-07-01T12:00:00.250000Z",
        "end": "2026-07-01T12:00:00.250000Z",
        "start_s": 1.5,
        "end_s": 3.28,
        "duration_s": 1.78,
        "peak": 0.875,
        "mean": 0.75,
        "modalities": ["audio"],
        "continues": None,
        "explanation": {
            "score": 0.625,
            "on": 0.5,
            "off": 0.25,
            "windows": 2,
            "since": "2026-07-01T12:00:00.250000Z",
            "reason": "confirmed",
        },
        "latency_ms": 140.5,
        "model": {"name": "tiny", "sha256": "ab" * 32},
        "snapshot": None,
        "clip": None,
        "withheld": None,
    }


def test_a_key_of_a_later_version_is_ignored() -> None:
    """A reader ignores unknown keys."""
    topic, body = encode(SCORES)
    later = json.dumps(json.loads(body) | {"colour": 3}).encode()
    assert decode([topic, later]) == SCORES


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([], "0 parts"),
        ([b"scores/door/"], "1 parts"),
        ([b"scores/door/", b"{}", b""], "3 parts"),
        ([b"scores/door/", b"\xff\x00"], "not perceiverd's"),
        ([b"scores/door/", b"[1, 2]"], "not perceiverd's"),
        ([b"scores/door/", b'{"schema": 1, "later": ' + b"[" * 5000], "not perceiverd's: maximum recursion"),
        ([b"scores/door/", b'{"type": "scores", "schema": 1}'], "missing required field"),
        ([b"scores/door/", b'{"type": "weather", "schema": 1}'], "weather"),
        ([b"scores/door/", b'{"type": "scores", "schema": 2, "labels": 3}'], "schema 2, but this version reads 1"),
        ([b"scores/gate/", encode(SCORES)[1]], "under the topic b'scores/gate/'"),
    ],
)
def test_a_foreign_message_is_a_wire_error(parts: list[bytes], why: str) -> None:
    """Any other message is one line, not a traceback."""
    with pytest.raises(WireError, match=why):
        decode(parts)
