"""Messages into a client: `codec.decode`, `GapDetector` and `Liveness`.

An input is the messages of one connection. Blank lines separate them, and a line break their parts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec

from perceiverd.core.errors import WireError
from perceiverd.wire import codec, messages
from perceiverd.wire.client import Liveness
from perceiverd.wire.gaps import Gap, GapDetector
from perceiverd.wire.messages import Candidate, Explain, Message
from tests.fuzz import mutations
from tests.fuzz.target import Target
from tests.support.messages import MODEL, NOW, event, hello, scores, status

RAW = (
    b"[" * 5000, b'{"schema":1,"x":' + b"[" * 5000, b"1e999", b"-", b"9" * 5000, b'"\\ud800"', b"null", b"NaN", b"\xff",
    b'"9999-12-31T23:59:59-23:59"', b'"0001-01-01T00:00:00+23:59"', b'"2026-01-31T12:00:60Z"',
    b"true", b"{}", b"[]", b'"\\u0000"',
)  # fmt: skip
"""What JSON's own writer does not write."""


def make_seeds(folder: Path) -> list[bytes]:
    """Each kind of message alone, and a connection on which a daemon restarts and repeats messages."""
    candidate = Candidate(
        mid="/m/0bt9lr", index=74, name="Dog", score=0.5, surest=None, smoothed=0.5, on=0.4, off=0.2, state="open",
        reason="", windows=1, event="74-1",
    )  # fmt: skip
    explain = Explain(
        stream="a", start=NOW, end=NOW, start_s=0, end_s=1, candidates=(candidate,), smoothed=(0.5,), on=(0.4,),
        suppressed={"too short": 1}, model=MODEL, boot_id="a",
    )  # fmt: skip
    known: list[Message] = [hello("a"), scores(), status("a", "up", "backing off"), event("begin", 1), explain]
    counted = msgspec.structs.replace(status(), delivery=messages.Delivery(sent={"scores": 3, "events": 1}), seq=2)
    session: list[Message] = [
        msgspec.structs.replace(hello("a", "b"), repeated=True),
        msgspec.structs.replace(event("begin", 1), repeated=True),
        counted, scores(seq=3), scores(seq=7), scores(seq=7), event("end", 1), scores(boot_id="b"), status(boot_id="b"),
    ]  # fmt: skip
    return [*(_joined([each]) for each in known), _joined(known), _joined(session)]


def _joined(items: Sequence[Message]) -> bytes:
    return b"\n\n".join(b"\n".join(codec.encode(message)) for message in items)


def mutate(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Damage one message's values, its text, the order of messages, or the bytes."""
    way, items = rng.random(), data.split(b"\n\n")
    at = rng.randrange(len(items))
    if way < 0.65:
        items[at] = _damaged(items[at], rng)
    elif way < 0.75:
        borrowed = rng.choice(others).split(b"\n\n") if others else items
        items.insert(rng.randrange(len(items) + 1), rng.choice(borrowed))
    elif way < 0.85:
        items.insert(rng.randrange(len(items) + 1), items.pop(at))
    else:
        return mutations.damage(data, rng, others)
    return b"\n\n".join(items)


def _damaged(message: bytes, rng: Random) -> bytes:
    """The message with damaged values; mostly under the topic that fits them."""
    heading, _, body = message.partition(b"\n")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return rng.choice((heading, body, message + b"\n{}", heading + b"\n" + rng.choice(RAW)))
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutations.damage_value(value, rng)
    stream = value.get("stream") if isinstance(value, dict) else None
    if isinstance(stream, str) and rng.random() < 0.9:
        heading = heading.partition(b"/")[0] + b"/" + stream.encode(errors="replace") + b"/"
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(errors="replace")
    if rng.random() < 0.2:
        parts = text.split(b":")
        parts[rng.randrange(len(parts))] = rng.choice(RAW)
        text = b":".join(parts)
    return heading + b"\n" + text


def run(data: bytes, folder: Path) -> str:
    """Decode each message and detect gaps. What was decoded can be encoded again, and all gaps are counted."""
    gaps, liveness, missed, refused = GapDetector(), Liveness(0.0), 0, []
    kinds = set()
    for number, message in enumerate(data.split(b"\n\n")):
        try:
            decoded = codec.decode(message.split(b"\n"))
        except WireError as error:
            refused.append(error)
            continue
        assert codec.decode(codec.encode(decoded)) == decoded, "encoded and decoded again, it differs"
        liveness.received(decoded, float(number))
        liveness.check(number + 0.5)
        for item in gaps.accept(decoded):
            kinds.add(type(item).__name__)
            missed += item.missed if isinstance(item, Gap) else 0
        assert missed == gaps.missed >= gaps.missed_now >= 0, "gaps are not counted"
    if refused and not kinds:
        raise refused[0]
    return f"{' '.join(sorted(kinds))}, {'some' if refused else 'none'} refused"


TARGET = Target("wire", make_seeds, mutate, run)
