"""The configuration of `perceiverd web`: a TOML file, or options of the command line. Opens nothing.

The docstrings under the fields are written for operators: `make docs` makes the reference of them.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from perceiverd.config import MetricsConfig
from perceiverd.config.hints import convert
from perceiverd.config.schema import HTTP_ADDRESS
from perceiverd.config.toml import read_table
from perceiverd.core.errors import ConfigError
from perceiverd.core.paths import SERVICE_HISTORY, SERVICE_SNAPSHOTS, SOCKET_PATH_BYTES
from perceiverd.history.settings import LOCAL, DaemonConfig, daemons_of, read_daemons

UNIX = "unix:"
PREFIX = re.compile(r"(/[A-Za-z0-9_.~-]+)*")
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
STATE = "STATE_DIRECTORY"


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`: where the page is served, and to whom."""

    listen: str = "127.0.0.1:8480"
    """HOST:PORT (port * takes a free one), or unix:PATH for a socket that a reverse proxy opens. An address that other
    machines can reach needs a password."""
    password_file: str | None = None
    """File that `perceiverd web password FILE` has written. Without it there is no password."""
    hosts: tuple[str, ...] = ()
    """Names under which browsers reach the page, such as cams.example.org. IP addresses and localhost are always
    accepted; a request for another name is refused."""
    prefix: str = ""
    """Path under which a reverse proxy serves the page, such as /perceiverd."""
    proxies: tuple[str, ...] = ()
    """IP addresses or networks of reverse proxies, whose X-Forwarded-For and X-Forwarded-Proto are believed. With
    unix:PATH they are always believed."""
    session_days: Annotated[float, Meta(gt=0, le=365)] = 30.0
    """Days after which a browser must sign in again."""

    def __post_init__(self) -> None:
        if self.listen.startswith(UNIX):
            path = self.listen.removeprefix(UNIX)
            if not path or len(os.fsencode(path)) > SOCKET_PATH_BYTES:
                raise ValueError(f"the path of a socket has 1 to {SOCKET_PATH_BYTES} bytes, not {path!r}")
        elif not (found := HTTP_ADDRESS.fullmatch(self.listen)) or (
            found["port"] != "*" and int(found["port"]) > 65535
        ):
            raise ValueError(f"listen must be HOST:PORT or unix:PATH, not {self.listen!r}")
        if not PREFIX.fullmatch(self.prefix):
            raise ValueError(f"prefix must be like /perceiverd, without a slash at its end, not {self.prefix!r}")
        for host in self.hosts:
            if not HOST_NAME.fullmatch(host.lower()):
                raise ValueError(f"hosts has names without scheme and port, such as cams.example.org, not {host!r}")
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ValueError(f"proxies has IP addresses or networks: {error}") from error

    @property
    def socket_path(self) -> Path | None:
        """The path of the Unix socket; None if it listens at an address."""
        return Path(self.listen.removeprefix(UNIX)) if self.listen.startswith(UNIX) else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port (0 for a free one), if it does not listen at a Unix socket."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), 0 if port == "*" else int(port)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.socket_path is not None or (host := self.address[0]) == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


class HistorySource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[history]`: the history that the page shows."""

    directory: str = str(SERVICE_HISTORY.parent)
    """Folder of the database that `perceiverd history run` writes."""


class CorrectionsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[corrections]`: what users say about events."""

    directory: str | None = None
    """Folder for corrections and their sounds. Without it, the service's state directory (/var/lib/perceiverd-web) is
    used; without that either, the page takes no corrections."""


class WatchedDaemon(DaemonConfig, frozen=True, forbid_unknown_fields=True):
    """`[daemons.NAME]`: a daemon to show. NAME must be the same as in the history's configuration."""

    media: str | None = None
    """Folder with the daemon's snapshots, as this machine sees it. Without it, no pictures and clips are shown."""
    media_on_daemon: str | None = None
    """The path of that folder on the daemon's machine, if it differs."""


class WebConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Relative paths start at the file's folder. An unknown option is an error."""

    server: ServerConfig = ServerConfig()
    history: HistorySource = HistorySource()
    corrections: CorrectionsConfig = CorrectionsConfig()
    metrics: MetricsConfig = MetricsConfig()
    daemons: dict[str, WatchedDaemon] = {}
    """The daemons by name. Without any, the one on this machine (ipc:///run/perceiverd/labels), as `local`."""


class WebOptions(msgspec.Struct, frozen=True):
    """Options of the command line; None and empty ones leave the file's value."""

    endpoints: Sequence[str] = ()
    server_key: Path | None = None
    secret_key: Path | None = None
    listen: str | None = None
    password_file: Path | None = None
    history: Path | None = None
    media: Path | None = None
    corrections: Path | None = None


def load(path: Path) -> WebConfig:
    """Read this file. Raises ConfigError: one line with the file, the place in it and what to do."""
    table = read_table(path, "the configuration")
    root = path.resolve().parent
    daemons = table.pop("daemons", {})
    try:
        config = convert(table, WebConfig, "$")
        parsed = read_daemons(daemons, WatchedDaemon, root)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    server, corrections = config.server, config.corrections
    if (socket_path := server.socket_path) is not None:
        server = msgspec.structs.replace(server, listen=f"{UNIX}{root / socket_path}")
    if server.password_file is not None:
        server = msgspec.structs.replace(server, password_file=str(root / server.password_file))
    if corrections.directory is not None:
        corrections = CorrectionsConfig(str(root / corrections.directory))
    return WebConfig(
        server=server,
        history=HistorySource(str(root / config.history.directory)),
        corrections=corrections,
        metrics=config.metrics,
        daemons={
            name: msgspec.structs.replace(each, media=each.media and str(root / each.media))
            for name, each in parsed.items()
        },
    )


def with_options(config: WebConfig, options: WebOptions) -> WebConfig:
    """The configuration with the options of the command line, and with its daemons named. Raises ConfigError."""
    changes = {}
    if options.listen is not None:
        changes["listen"] = options.listen
    if options.password_file is not None:
        changes["password_file"] = str(options.password_file)
    try:
        server = ServerConfig(**{**msgspec.structs.asdict(config.server), **changes})
    except ValueError as error:
        raise ConfigError(f"--listen: {error}") from error
    return WebConfig(
        server=server,
        history=HistorySource(str(options.history)) if options.history else config.history,
        corrections=CorrectionsConfig(str(options.corrections)) if options.corrections else config.corrections,
        metrics=config.metrics,
        daemons=_watched(config, options),
    )


def check_safe(server: ServerConfig) -> None:
    """Raises ConfigError if other machines could reach the page without a password."""
    if not server.is_local and server.password_file is None:
        raise ConfigError(
            f"every machine on the network could see the page at {server.listen}; set a password: run "
            "`perceiverd web password FILE` and set server.password_file, or listen at 127.0.0.1:PORT"
        )


def corrections_of(config: WebConfig, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of the corrections; None if the page takes none."""
    if config.corrections.directory is not None:
        return Path(config.corrections.directory)
    state = environment.get(STATE, "").partition(":")[0]
    return Path(state) / "corrections" if state else None


def _watched(config: WebConfig, options: WebOptions) -> dict[str, WatchedDaemon]:
    found = daemons_of(config.daemons, options.endpoints, options.server_key, options.secret_key)
    watched = {}
    for name, daemon in found.items():
        if isinstance(daemon, WatchedDaemon):
            watched[name] = daemon
        else:
            media = str(SERVICE_SNAPSHOTS) if name == LOCAL and not options.endpoints else None
            watched[name] = WatchedDaemon(**msgspec.structs.asdict(daemon), media=media)
        if options.media is not None:
            watched[name] = msgspec.structs.replace(watched[name], media=str(options.media.absolute()))
    return watched
