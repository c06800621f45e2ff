"""Which streams keep snapshots of their events or recent sound, where, and under which name. By default none does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from perceiverd.config import Config
from perceiverd.core.errors import ConfigError
from perceiverd.sources.snapshots import store
from perceiverd.sources.snapshots.requests import RecentOptions, SnapshotOptions, SnapshotRequest

HOUR_S = 3600
DAY_S = 24 * HOUR_S
MB = 1_000_000
RECENT = "recent"
"""The folder of recent sound in the folder of snapshots."""


def options_of(config: Config, environment: Mapping[str, str]) -> dict[str, SnapshotOptions]:
    """The options of each enabled stream that keeps anything. Raises ConfigError if there is no folder for it."""
    section = config.snapshots
    on_event = {
        name: section.on_event if stream.snapshot_on_event is None else stream.snapshot_on_event
        for name, stream in config.streams.items()
        if stream.enabled
    }
    streams = [name for name, wanted in on_event.items() if wanted or section.recent_hours]
    if not streams:
        return {}
    directory = _directory(config, environment)
    return {
        name: SnapshotOptions(
            directory=str(directory),
            longest_px=section.longest_px,
            before_s=section.before_s,
            after_s=section.after_s,
            max_age_s=section.max_age_days * DAY_S,
            max_bytes=section.max_total_mb * MB,
            on_event=on_event[name],
            recent=_recent(config, directory, name, len(streams)),
        )
        for name in streams
    }


def _recent(config: Config, directory: Path, stream: str, streams: int) -> RecentOptions | None:
    section = config.snapshots
    if not section.recent_hours:
        return None
    max_bytes = section.recent_mb * MB // streams
    return RecentOptions(str(directory / RECENT), stream, section.recent_hours * HOUR_S, max_bytes)


def prepare(options: Mapping[str, SnapshotOptions]) -> None:
    """Make the folders. Raises ConfigError if that fails, or if other users may read them."""
    recent = {each.recent.directory for each in options.values() if each.recent}
    for directory in sorted({each.directory for each in options.values()} | recent):
        try:
            store.prepare(Path(directory))
        except OSError as error:
            raise _refused(directory, error) from None


def check(config: Config, environment: Mapping[str, str]) -> str | None:
    """The folder of snapshots; None if no stream keeps any. Makes nothing. Raises ConfigError as `prepare` would."""
    for directory in {each.directory for each in options_of(config, environment).values()}:
        try:
            store.check(Path(directory))
        except OSError as error:
            raise _refused(directory, error) from None
        return directory
    return None


def request(stream: str, label: str, at_ns: int, at: datetime, *, sound: bool = False) -> SnapshotRequest:
    """A snapshot of the moment `at_ns`, named after stream, label and `at`, the same moment in UTC."""
    return SnapshotRequest(store.name_of(stream, label, at.astimezone(UTC)), at_ns, sound)


def path(options: SnapshotOptions, request: SnapshotRequest, ending: str) -> str:
    """The file with this ending that the request will write."""
    return str(Path(options.directory) / f"{request.name}.{ending}")


def _refused(directory: str, error: OSError) -> ConfigError:
    return ConfigError(f"$.snapshots.directory: {directory}: cannot keep snapshots ({error.strerror})")


def _directory(config: Config, environment: Mapping[str, str]) -> Path:
    if config.snapshots.directory is not None:
        return Path(config.snapshots.directory)
    # systemd separates several directories with colons; the first is the service's own.
    if state := environment.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(state) / "snapshots"
    raise ConfigError("$.snapshots: has no directory; set one, or run as a systemd service with a state directory")
