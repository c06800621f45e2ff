"""The messages between a source's worker process and the daemon.

One request goes down; a header and raw bytes come up for each item. Pure: bytes in, values out. Knows no socket and no
process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from perceiverd.core.errors import Refused, WireError
from perceiverd.core.media import Chunk, Frame, Media, MediaFormat, Timing, Waiting
from perceiverd.sources.snapshots.requests import SnapshotOptions
from perceiverd.sources.specs import Source

WORKER_QUEUED, SUPERVISOR_QUEUED = 192, 64
"""Messages of one source that may wait on either side. At 50 a second this is 5 s, longer than a batch takes to tag.
The worker has the larger share, because the first seconds of a network camera come in a burst."""
QUEUED_BYTES = 40_000_000
"""What the messages of one source may take in memory on both sides. Frames of up to 228 x 228 pixels fit."""
LEAST_QUEUED = 4
"""So many messages wait in any case: audio and video take turns."""


def most_queued(wanted: MediaFormat, messages: int) -> int:
    """How many messages may wait on a side that has so many of them if frames are small."""
    if wanted.video is None:
        return messages
    frame_bytes = 3 * wanted.video.height * wanted.video.width
    share = QUEUED_BYTES * messages // (WORKER_QUEUED + SUPERVISOR_QUEUED)
    return max(LEAST_QUEUED, min(messages, share // frame_bytes))


class StartRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker must do: a line of JSON on its standard input, so that no list of processes shows a password."""

    source: Source
    """As configured, with references in place of secrets."""
    wanted: MediaFormat
    endpoint: str
    """Where the worker connects its PUSH socket."""
    token: str
    """Names the source; returned in each header."""
    incarnation: int
    """The number of this try; returned in each header."""
    secrets: dict[str, str] = {}
    """What the source refers to, by name."""
    snapshots: SnapshotOptions | None = None
    """None if nobody will request a snapshot."""
    descriptor: int | None = None
    """The number of the daemon's standard input in the worker, for the source that reads it."""
    logs: bool = False
    """Whether the worker logs on standard error from INFO upwards, as the daemon does; otherwise only warnings."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The first part of each message."""

    token: str
    incarnation: int
    kind: Literal["frame", "chunk", "timing", "snapshot", "sound", "alive", "ended", "failed"]
    dropped: int
    """Items that this worker has dropped so far because the queue was full."""
    start_ns: int = 0
    shape: tuple[int, ...] = ()
    """(height, width, 3) or (samples,)."""
    rate_hz: int = 0
    message: str = ""
    """Why the source failed, in one line; or why a requested snapshot was not written, empty if it was. With `alive`:
    what it waits for, if it waits. With `sound`: why recent sound was not written."""
    refused: Refused = ""
    """Whether the device refused, so that another try will not help soon."""
    steps: int = 0
    """Steps of the device's clock found so far. In every header, because any single message may be dropped."""
    overflows: int = 0
    """How many of them this machine caused because it was too slow; only with a timing."""
    drift_ppm: float | None = None
    jitter_ms: float = 0.0
    sound_ms: int = 0
    """Milliseconds of recent sound that were written; only with `sound`."""


Item = Media | Timing


_decoder = msgspec.json.Decoder(Header)


def packed(
    request: StartRequest, dropped: int, item: Item | Waiting | None, steps: int = 0
) -> list[bytes | memoryview]:
    """The parts of one message; `steps` is how many steps the source has reported so far."""
    header = Header(request.token, request.incarnation, "alive", dropped, steps=steps)
    match item:
        case Frame() | Chunk():
            return list(_media_parts(header, item))
        case Waiting():
            header = replace(header, message=item.what_for)
        case Timing():
            header = replace(
                header, kind="timing", drift_ppm=item.drift_ppm, jitter_ms=item.jitter_ms, overflows=item.overflows
            )
    return [msgspec.json.encode(header)]


def media_parts(item: Media) -> tuple[bytes, memoryview]:
    """The two parts of a frame or chunk for a receiver that has only one sender, in this order."""
    return _media_parts(Header("", 0, "alive", 0), item)


def _media_parts(header: Header, item: Media) -> tuple[bytes, memoryview]:
    data: NDArray[np.uint8] | NDArray[np.float32]
    match item:
        case Frame():
            header = replace(header, kind="frame", start_ns=item.start_ns, shape=item.pixels.shape)
            data = item.pixels
        case Chunk():
            start_ns, shape = item.start_ns, item.samples.shape
            header = replace(header, kind="chunk", start_ns=start_ns, shape=shape, rate_hz=item.rate_hz)
            data = item.samples
    return msgspec.json.encode(header), np.ascontiguousarray(data).data


def unpacked(parts: Sequence[bytes]) -> tuple[Header, Item | None]:
    """The header and its item; None if it has none. Raises WireError if the parts are not a message of ours."""
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
        raise WireError(f"a source's {header.kind} of shape {header.shape} came with a wrong number of bytes")
    data = np.frombuffer(parts[1], kind).reshape(header.shape)
    try:
        if header.kind == "frame":
            return header, Frame(header.start_ns, data)  # type: ignore[arg-type]  # Frame checks its dtype
        return header, Chunk(header.start_ns, data, header.rate_hz)  # type: ignore[arg-type]  # so does Chunk
    except ValueError as error:
        raise WireError(f"a source's {header.kind} is invalid: {error}") from None
