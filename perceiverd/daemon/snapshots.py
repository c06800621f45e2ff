"""Which streams keep snapshots of their events, where, and under which name. By default none does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from perceiverd.config import Config
from perceiverd.core.errors import ConfigError
from perceiverd.sources.snapshots import store
from perceiverd.sources.snapshots.requests import SnapshotOptions, SnapshotRequest

DAY_S = 86_400
MB = 1_000_000


def options_of(config: Config, environment: Mapping[str, str]) -> dict[str, SnapshotOptions]:
    """The options of each enabled stream that keeps snapshots. Raises ConfigError if there is no folder for them."""
    section = config.snapshots
    streams = [
        name
        for name, stream in config.streams.items()
        if stream.enabled and (section.on_event if stream.snapshot_on_event is None else stream.snapshot_on_event)
    ]
    if not streams:
        return {}
    options = SnapshotOptions(
        directory=str(_directory(config, environment)),
        longest_px=section.longest_px,
        before_s=section.before_s,
        after_s=section.after_s,
        max_age_s=section.max_age_days * DAY_S,
        max_bytes=section.max_total_mb * MB,
    )
    return dict.fromkeys(streams, options)


def prepare(options: Mapping[str, SnapshotOptions]) -> None:
    """Make the folder. Raises ConfigError if that fails, or if other users may read it."""
    for directory in {each.directory for each in options.values()}:
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
