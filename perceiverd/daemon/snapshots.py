"""Which streams keep pictures of their events, where, and under which name. Nothing is kept unless somebody asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from perceiverd.config import Config
from perceiverd.core.errors import ConfigError
from perceiverd.sources.snapshots import store
from perceiverd.sources.snapshots.requests import SnapshotOptions, SnapshotRequest
from perceiverd.wire.messages import Event

DAY_S = 86_400
MB = 1_000_000


def keeps_of(settings: Config, environment: Mapping[str, str]) -> dict[str, SnapshotOptions]:
    """What the sources of each stream that keeps pictures are told. Raises ConfigError where there is no place."""
    options = settings.snapshots
    streams = [
        name
        for name, stream in settings.streams.items()
        if stream.enabled and (options.on_event if stream.snapshot_on_event is None else stream.snapshot_on_event)
    ]
    if not streams:
        return {}
    keep = SnapshotOptions(
        directory=str(_directory(settings, environment)),
        longest_px=options.longest_px,
        before_s=options.before_s,
        after_s=options.after_s,
        max_age_s=options.max_age_days * DAY_S,
        max_bytes=options.max_total_mb * MB,
    )
    return dict.fromkeys(streams, keep)


def prepare(keeps: Mapping[str, SnapshotOptions]) -> None:
    """Make the folder. Raises ConfigError where it can't be, or where others may look into it."""
    for directory in {keep.directory for keep in keeps.values()}:
        try:
            store.prepare(Path(directory))
        except OSError as error:
            raise ConfigError(f"$.snapshots.directory: {directory}: cannot keep snapshots ({error.strerror})") from None


def check(settings: Config, environment: Mapping[str, str]) -> str | None:
    """Where pictures would be kept, None where none would; makes nothing. Raises ConfigError where they could not."""
    keeps = keeps_of(settings, environment)
    for directory in {keep.directory for keep in keeps.values()}:
        try:
            store.check(Path(directory))
        except OSError as error:
            raise ConfigError(f"$.snapshots.directory: {directory}: cannot keep snapshots ({error.strerror})") from None
        return directory
    return None


def ask(stream: str, begun: Sequence[Event], at_ns: int, at: datetime) -> SnapshotRequest:
    """One picture of all events that begin at once, named after the surest; `at` is `at_ns` in UTC."""
    surest = max(begun, key=lambda event: event.peak)
    return SnapshotRequest(store.name_of(stream, surest.name, at.astimezone(UTC)), at_ns)


def path(keep: SnapshotOptions, asked: SnapshotRequest) -> str:
    """The file in which the picture will be."""
    return str(Path(keep.directory) / f"{asked.name}.jpg")


def _directory(settings: Config, environment: Mapping[str, str]) -> Path:
    if settings.snapshots.directory is not None:
        return Path(settings.snapshots.directory)
    # systemd names several with colons between them; the first is the service's own.
    if state := environment.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(state) / "snapshots"
    raise ConfigError(
        "$.snapshots: has no directory; write one, or run as a service of systemd, whose state it becomes"
    )
