"""The messages between a source's process and the daemon: one order down, then a header and raw bytes for each item up.

Pure: bytes in, values out. Knows no socket and no process.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from perceiverd.errors import WireError
from perceiverd.media import Chunk, Frame, Media
from perceiverd.sources import Source, Wanted

CHILD_QUEUED, RUNNER_QUEUED = 192, 64
"""Messages of one source that may wait on either side: at 50 a second 5 s, which outlasts the tagging of a batch. The
larger share is the child's, for the burst in which a network camera's first seconds come. Frames of 224 x 224 are then
39 MB at the worst."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a child is to do: a line of JSON on its standard input, so that no list of processes shows a password."""

    source: Source
    """As it is configured, with references in place of secrets."""
    wanted: Wanted
    endpoint: str
    """Where to connect a PUSH socket."""
    token: str
    """Names the source; comes back in each header."""
    incarnation: int
    """Which try this is; comes back in each header."""
    secrets: dict[str, str] = {}
    """What the source refers to, by name."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The first part of each message."""

    token: str
    incarnation: int
    kind: Literal["frame", "chunk", "alive", "ended", "failed"]
    dropped: int
    """Items that this child has thrown away so far because the queue was full."""
    start_ns: int = 0
    shape: tuple[int, ...] = ()
    """(height, width, 3) or (samples,)."""
    rate_hz: int = 0
    message: str = ""
    """Why it failed, one line."""


_decoder = msgspec.json.Decoder(Header)


def packed(order: Order, dropped: int, item: Media | None) -> list[bytes | memoryview]:
    """The parts of one message."""
    if isinstance(item, Frame):
        shape = item.pixels.shape
        header = Header(order.token, order.incarnation, "frame", dropped, item.start_ns, shape)
        return [msgspec.json.encode(header), np.ascontiguousarray(item.pixels).data]
    if isinstance(item, Chunk):
        shape = item.samples.shape
        header = Header(order.token, order.incarnation, "chunk", dropped, item.start_ns, shape, item.rate_hz)
        return [msgspec.json.encode(header), np.ascontiguousarray(item.samples).data]
    return [msgspec.json.encode(Header(order.token, order.incarnation, "alive", dropped))]


def unpacked(parts: list[bytes]) -> tuple[Header, Media | None]:
    """The header and what it heads; None where it heads nothing. Raises WireError where they aren't ours."""
    try:
        header = _decoder.decode(parts[0])
    except msgspec.MsgspecError as error:
        raise WireError(f"a source's header cannot be read: {error}") from None
    if header.kind not in ("frame", "chunk"):
        return header, None
    kind: type[np.uint8 | np.float32] = np.uint8 if header.kind == "frame" else np.float32
    if len(parts) != 2 or min(header.shape, default=0) < 1 or len(parts[1]) != math.prod(header.shape) * kind().nbytes:
        raise WireError(f"a source's {header.kind} of shape {header.shape} came with other bytes")
    data = np.frombuffer(parts[1], kind).reshape(header.shape)
    try:
        if header.kind == "frame":
            return header, Frame(header.start_ns, data)  # type: ignore[arg-type]  # its dtype is checked there
        return header, Chunk(header.start_ns, data, header.rate_hz)  # type: ignore[arg-type]  # the same
    except ValueError as error:
        raise WireError(f"a source's {header.kind} is none: {error}") from None
