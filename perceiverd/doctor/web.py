"""Checks of the web page, if the machine has its service. They change nothing."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from perceiverd.core.errors import ConfigError
from perceiverd.core.paths import SERVICE_WEB_CONFIG
from perceiverd.doctor.checks import Finding
from perceiverd.history.opening import FILE

USER = "perceiverd-web"
STATE = Path("/var/lib/perceiverd-web")
"""systemd makes it when the service starts for the first time."""


def web(path: Path = SERVICE_WEB_CONFIG, state: Path = STATE) -> Iterator[Finding]:
    """Whether the page's configuration is valid and safe, and its files exist; nothing if it has never run."""
    try:
        from perceiverd.web import passwords, settings
    except ModuleNotFoundError:
        return  # the extra is not installed
    if not state.exists() or not os.access(path, os.R_OK):
        return
    try:
        config = settings.with_options(settings.load(path), settings.WebOptions())
        settings.check_safe(config.server)
    except ConfigError as error:
        yield Finding("web", "fault", str(error), f"correct {path}, then run systemctl restart perceiverd-web")
        return
    if config.server.password_file is not None:
        yield from _password(Path(config.server.password_file), passwords.SERVICE_GROUP)
    if not config.server.is_local:
        what = f"the page at {config.server.listen} is not encrypted: passwords cross the network in the clear"
        yield Finding("web", "warning", what, "let a reverse proxy encrypt, and listen at 127.0.0.1 or unix:PATH")
    elif config.server.password_file is None and (config.server.hosts or config.server.proxies):
        what = "the page has no password, so everybody who reaches its reverse proxy can see it"
        yield Finding("web", "warning", what, f"set server.password_file in {path}, unless the proxy asks for one")
    for name, daemon in config.daemons.items():
        if daemon.media is not None and _is_missing(Path(daemon.media)):
            what = f"{daemon.media}, with the snapshots of '{name}', does not exist"
            yield Finding("web", "warning", what, f"set daemons.{name}.media in {path}, or keep snapshots of events")
    if _is_missing(Path(config.history.directory) / FILE):
        what = f"there is no history in {config.history.directory}, so the page shows only the present"
        yield Finding("web", "warning", what, "systemctl enable --now perceiverd-history")
    protected = "with a password" if config.server.password_file else "without a password"
    yield Finding("web", "ok", f"{path} is valid; the page is at {config.server.listen}, {protected}")


def _password(path: Path, group: str) -> Iterator[Finding]:
    """Whether the page's user can read the password's hash, and nobody else."""
    do = f"as root: perceiverd web password {path}"
    try:
        info = path.stat()
    except PermissionError:
        return  # only root may look
    except OSError as error:
        yield Finding("web", "fault", f"{path}: cannot read the password: {error.strerror}", do)
        return
    if info.st_mode & stat.S_IRWXO:
        yield Finding("web", "fault", f"every user can read {path}", f"chmod o= {path}")
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        return
    if not (info.st_uid == user.pw_uid or (info.st_gid == user.pw_gid and info.st_mode & stat.S_IRGRP)):
        what = f"the page's user {USER} may not read {path}"
        yield Finding("web", "fault", what, f"chgrp {group} {path}; chmod 640 {path}")


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except PermissionError:
        return False  # of another user; the page may be allowed to see it
