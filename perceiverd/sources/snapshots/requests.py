"""What the daemon asks of a worker process about pictures: how to keep them, and which."""

from __future__ import annotations

import msgspec


class SnapshotOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how a child is to keep pictures that it will be asked for."""

    directory: str
    longest_px: int
    before_s: float
    after_s: float
    """A clip reaches from so many seconds before to so many after; none is made where both are 0."""
    max_age_s: float
    max_bytes: int


class SnapshotRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep a picture: a line of JSON on a child's standard input, after its order."""

    name: str
    """Of the file, without its ending."""
    at_ns: int
    """When it was to be seen, on CLOCK_MONOTONIC."""
