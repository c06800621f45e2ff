"""What the daemon asks of a worker process about snapshots and recent sound: how to keep them, and which to write."""

from __future__ import annotations

import msgspec


class RecentOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how long a worker keeps the recent sound of its stream."""

    directory: str
    """Of the recent sound of all streams; each has a folder in it."""
    stream: str
    max_age_s: float
    max_bytes: int
    """Of this stream."""

    @property
    def folder(self) -> str:
        """The folder of this stream."""
        return f"{self.directory}/{self.stream}"


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
    on_event: bool = True
    """Whether snapshots of events will be requested."""
    recent: RecentOptions | None = None
    """How recent sound is kept; None if none is."""

    @property
    def has_clips(self) -> bool:
        """Whether each snapshot has a clip beside it."""
        return bool(self.before_s or self.after_s)


class SnapshotRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="snapshot"):
    """Write a snapshot: a line of JSON on a worker's standard input, after its StartRequest."""

    name: str
    """Of the file, without its ending."""
    at_ns: int
    """The time that it shows, on CLOCK_MONOTONIC."""
    sound: bool = False
    """Whether to keep the sound and a picture of its spectrogram, because there is no video."""


class SoundRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sound"):
    """Write this stretch of recent sound: a line of JSON like `SnapshotRequest`."""

    begin_ns: int
    end_ns: int
    """Its time, on CLOCK_MONOTONIC."""


MediaRequest = SnapshotRequest | SoundRequest
