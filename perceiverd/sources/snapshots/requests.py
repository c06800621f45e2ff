"""What the daemon asks of a worker process about snapshots: how to keep them, and which to write."""

from __future__ import annotations

import msgspec


class SnapshotOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how a worker keeps the snapshots that will be requested."""

    directory: str
    longest_px: int
    """Of the longer side; larger pictures are shrunk."""
    before_s: float
    after_s: float
    """A clip starts this long before the requested time and ends this long after it; none is made if both are 0."""
    max_age_s: float
    max_bytes: int

    @property
    def has_clips(self) -> bool:
        """Whether each snapshot has a clip beside it."""
        return bool(self.before_s or self.after_s)


class SnapshotRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Write a snapshot: a line of JSON on a worker's standard input, after its StartRequest."""

    name: str
    """Of the file, without its ending."""
    at_ns: int
    """The time that it shows, on CLOCK_MONOTONIC."""
    sound: bool = False
    """Whether to keep the sound and a picture of its spectrogram, because there is no video."""
