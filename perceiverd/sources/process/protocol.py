"""The messages between a source's process and the daemon: one order down, then a header and raw bytes for each item up.

Pure: bytes in, values out. Knows no socket and no process.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from perceiverd.core.errors import Refused, WireError
from perceiverd.core.media import Chunk, Frame, Media, MediaFormat, Timing
from perceiverd.sources.snapshots.requests import SnapshotOptions
from perceiverd.sources.specs import Source

CHILD_QUEUED, RUNNER_QUEUED = 192, 64
"""Messages of one source that may wait on either side: at 50 a second 5 s, which outlasts the tagging of a batch. The
larger share is the child's, for the burst in which a network camera's first seconds come. Frames of 224 x 224 are then
39 MB at the worst."""


class StartRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a child is to do: a line of JSON on its standard input, so that no list of processes shows a password."""

    source: Source
    """As it is configured, with references in place of secrets."""
    wanted: MediaFormat
    endpoint: str
    """Where to connect a PUSH socket."""
    token: str
    """Names the source; comes back in each header."""
    incarnation: int
    """Which try this is; comes back in each header."""
    secrets: dict[str, str] = {}
    """What the source refers to, by name."""
    keep: SnapshotOptions | None = None
    """None where nothing is ever to be kept."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The first part of each message."""

    token: str
    incarnation: int
    kind: Literal["frame", "chunk", "timing", "kept", "alive", "ended", "failed"]
    dropped: int
    """Items that this child has thrown away so far because the queue was full."""
    start_ns: int = 0
    shape: tuple[int, ...] = ()
    """(height, width, 3) or (samples,)."""
    rate_hz: int = 0
    message: str = ""
    """Why it failed, or why there is no picture of those that were to be `kept` (empty where there is); one line."""
    refused: Refused = ""
    """Whether another try can't mend soon why it failed."""
    steps: int = 0
    """Steps of the device's clock found so far. In every header, as a message may find no room and be lost."""
    overflows: int = 0
    """How many of them were this machine's doing; told with a timing."""
    drift_ppm: float | None = None
    jitter_ms: float = 0.0


Item = Media | Timing


_decoder = msgspec.json.Decoder(Header)


def packed(order: StartRequest, dropped: int, item: Item | None, steps: int = 0) -> list[bytes | memoryview]:
    """The parts of one message; `steps` are those that the source has told of so far."""
    header = Header(order.token, order.incarnation, "alive", dropped, steps=steps)
    data: NDArray[np.uint8] | NDArray[np.float32] | None = None
    match item:
        case Frame():
            header = replace(header, kind="frame", start_ns=item.start_ns, shape=item.pixels.shape)
            data = item.pixels
        case Chunk():
            start_ns, shape = item.start_ns, item.samples.shape
            header = replace(header, kind="chunk", start_ns=start_ns, shape=shape, rate_hz=item.rate_hz)
            data = item.samples
        case Timing():
            header = replace(
                header, kind="timing", drift_ppm=item.drift_ppm, jitter_ms=item.jitter_ms, overflows=item.overflows
            )
    head = msgspec.json.encode(header)
    return [head] if data is None else [head, np.ascontiguousarray(data).data]


def unpacked(parts: list[bytes]) -> tuple[Header, Item | None]:
    """The header and what it heads; None where it heads nothing. Raises WireError where they aren't ours."""
    try:
        header = _decoder.decode(parts[0])
    except msgspec.MsgspecError as error:
        raise WireError(f"a source's header cannot be read: {error}") from None
    if header.kind == "timing":
        return header, Timing(header.drift_ppm, header.jitter_ms, header.steps, header.overflows)
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
