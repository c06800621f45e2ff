"""The configuration of `perceiverd history run`: a TOML file, or options of the command line. Opens nothing.

The docstrings under the fields are written for operators: `make docs` makes the reference of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from perceiverd.config import MetricsConfig
from perceiverd.config.hints import convert
from perceiverd.config.toml import read_table
from perceiverd.core.errors import ConfigError
from perceiverd.core.paths import SERVICE_ENDPOINT
from perceiverd.wire import Curve
from perceiverd.wire.keys import read_curve

MACHINE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ENDPOINT = re.compile(r"(ipc://.+|tcp://(\[[^\]]+\]|[^:/\s]+):\d{1,5})")
LOCAL = "local"
"""The name of a daemon on the same machine."""


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[store]`: what is stored, where, and for how long."""

    directory: str | None = None
    """Folder of the database. Without it, the service's state directory (/var/lib/perceiverd-history) is used."""
    events_days: Annotated[float, Meta(gt=0, le=36_500)] = 365.0
    """Age in days after which events, states and gaps are removed."""
    scores_days: Annotated[float, Meta(gt=0, le=36_500)] = 90.0
    """Age in days after which the scores by minute, and the scores around events, are removed."""
    max_mb: Annotated[int, Meta(ge=10, le=100_000_000)] = 4000
    """Largest size of the database in megabytes; above it the oldest days are removed. Nothing is stored while the disk
    has less than 100 MB free."""
    least_score: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """A label with lower scores in the whole minute is not stored for that minute."""


class DaemonConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[daemons.NAME]`: a daemon to subscribe to. NAME is the first part of its streams' names, as in NAME/door."""

    endpoint: str
    """Where it publishes: ipc://PATH or tcp://HOST:PORT."""
    server_key: str | None = None
    """File with the daemon's public key, if it encrypts."""
    secret_key: str | None = None
    """File with your own secret key (`perceiverd keys new`), if the daemon encrypts."""

    def __post_init__(self) -> None:
        if not ENDPOINT.fullmatch(self.endpoint):
            raise ValueError(f"endpoint must be ipc://PATH or tcp://HOST:PORT, not {self.endpoint!r}")
        if (self.server_key is None) != (self.secret_key is None):
            raise ValueError("server_key and secret_key belong together; set both or neither")

    def curve(self) -> Curve | None:
        """Its keys; None if it does not encrypt. Raises ConfigError if they cannot be read."""
        return read_curve(
            None if self.server_key is None else Path(self.server_key),
            None if self.secret_key is None else Path(self.secret_key),
        )


Daemon = TypeVar("Daemon", bound=DaemonConfig)


class HistoryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Relative paths start at the file's folder. An unknown option is an error."""

    store: StoreConfig = StoreConfig()
    metrics: MetricsConfig = MetricsConfig()
    daemons: dict[str, DaemonConfig] = {}
    """The daemons by name. Without any, the one on this machine (ipc:///run/perceiverd/labels), as `local`."""


def load(path: Path) -> HistoryConfig:
    """Read this file. Raises ConfigError: one line with the file, the place in it and what to do."""
    table = read_table(path, "the configuration")
    daemons = table.pop("daemons", {})
    try:
        config = convert(table, HistoryConfig, "$")
        parsed = read_daemons(daemons, DaemonConfig, path.resolve().parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    store = config.store
    if store.directory is not None:
        store = msgspec.structs.replace(store, directory=str(path.resolve().parent / store.directory))
    return msgspec.structs.replace(config, store=store, daemons=parsed)


def read_daemons(daemons: Any, kind: type[Daemon], root: Path) -> dict[str, Daemon]:
    """The daemons in the table `daemons` of a file in the folder `root`, by name. Raises ConfigError."""
    if not isinstance(daemons, dict):
        raise ConfigError("$.daemons: expected tables [daemons.NAME]")
    parsed = {}
    for name, daemon in daemons.items():
        check_name(name, "$.daemons")
        if not isinstance(daemon, dict):
            raise ConfigError(f"$.daemons.{name}: write a table [daemons.NAME] for each daemon")
        parsed[name] = _rooted(convert(daemon, kind, f"$.daemons.{name}"), root)
    return parsed


def daemons_of(
    configured: Mapping[str, DaemonConfig], endpoints: Sequence[str], server_key: Path | None, secret_key: Path | None
) -> dict[str, DaemonConfig]:
    """The daemons by name: those of the options, or those of the file, or the one on this machine.

    An endpoint may have a name in front, `barn=tcp://barn:5555`. Raises ConfigError.
    """
    if not endpoints:
        return dict(configured) or {LOCAL: DaemonConfig(SERVICE_ENDPOINT)}
    keys = [None if key is None else str(key) for key in (server_key, secret_key)]
    found: dict[str, DaemonConfig] = {}
    for each in endpoints:
        given, equals, address = each.rpartition("=")
        try:
            daemon = DaemonConfig(address, *keys)
        except ValueError as error:
            raise ConfigError(f"--endpoint: {error}") from error
        name = given if equals else _name_of(address)
        check_name(name, "--endpoint")
        if name in found:
            raise ConfigError(f"--endpoint: two daemons have the name '{name}'; give them names: NAME={address}")
        found[name] = daemon
    return found


def check_name(name: str, where: str) -> None:
    """Raises ConfigError if this cannot be the name of a daemon."""
    if not MACHINE_NAME.fullmatch(name):
        raise ConfigError(f"{where}: invalid name {name!r}; use up to 64 letters, digits, _, . and -")


def directory_of(config: HistoryConfig, given: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of the database. Raises ConfigError if there is none."""
    if given is not None:
        return given
    if config.store.directory is not None:
        return Path(config.store.directory)
    if state := environment.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(state)
    raise ConfigError(
        "there is no folder for the history; give --directory, or set store.directory in the configuration"
    )


def _name_of(address: str) -> str:
    """`local` for a socket in the file system, otherwise the host."""
    if address.startswith("ipc://"):
        return LOCAL
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    return LOCAL if host in ("127.0.0.1", "localhost", "::1") else re.sub(r"[^A-Za-z0-9_.-]", "_", host)


def _rooted(daemon: Daemon, root: Path) -> Daemon:
    """The same with absolute paths."""
    scheme, _, address = daemon.endpoint.partition("://")
    endpoint = daemon.endpoint
    if scheme == "ipc" and not address.startswith(("/", "@")):
        endpoint = f"ipc://{root / address}"
    return msgspec.structs.replace(
        daemon,
        endpoint=endpoint,
        server_key=daemon.server_key and str(root / daemon.server_key),
        secret_key=daemon.secret_key and str(root / daemon.secret_key),
    )
