"""Converts messages to bytes and back. Knows no socket.

A message has two parts, `[topic, JSON]`.
"""

from __future__ import annotations

import msgspec

from perceiverd.core.errors import WireError
from perceiverd.wire.messages import SCHEMA, Message, topic


class _Version(msgspec.Struct):
    """Decoded first, because the rest may differ in another schema."""

    schema: int


_encoder = msgspec.json.Encoder()
_version_decoder = msgspec.json.Decoder(_Version)
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> list[bytes]:
    """The two parts of a message."""
    return [topic(message).encode(), _encoder.encode(message)]


def decode(parts: list[bytes]) -> Message:
    """The message in these parts. Raises WireError if it is not perceiverd's, or has a schema that we cannot read."""
    if len(parts) != 2:
        raise WireError(f"received a message of {len(parts)} parts; perceiverd's have two, topic and JSON")
    heading, body = parts
    try:
        version = _version_decoder.decode(body)
        if version.schema != SCHEMA:
            raise WireError(
                f"received a message of schema {version.schema}, but this version reads {SCHEMA}; update the older side"
            )
        message = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a message under {heading[:80]!r} is not perceiverd's: {error}") from error
    if heading != topic(message).encode():
        raise WireError(f"received a message of {topic(message)} under the topic {heading[:80]!r}")
    return message
