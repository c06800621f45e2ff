"""Checks of the endpoints: whether the daemon could publish labels and serve metrics there. They change nothing."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from perceiverd.config import Config
from perceiverd.core.errors import ConfigError
from perceiverd.core.paths import SOCKET_PATH_BYTES
from perceiverd.doctor.checks import Finding
from perceiverd.doctor.service import LABELS_GROUP, RUN, SYSTEMD, is_running
from perceiverd.wire.keys import AllowList, read_pair

CONNECT_TIMEOUT_S = 2.0
JOIN_GROUP = f"usermod -aG {LABELS_GROUP} USER, then log out and in again"


def labels_endpoint(settings: Config) -> Iterator[Finding]:
    """Whether labels could be published at `publish.endpoint`, and whether the keys can be read."""
    endpoint = settings.publish.endpoint
    scheme, _, address = endpoint.partition("://")
    if scheme == "tcp":
        host, _, port = address.rpartition(":")
        yield _tcp("labels", "" if host == "*" else host.strip("[]"), 0 if port == "*" else int(port), endpoint)
    elif address.startswith(("@", "*")):
        yield Finding("labels", "ok", f"{endpoint} needs no file")
    else:
        yield _socket_file("labels", Path(address))
    if settings.publish.secret_key and settings.publish.client_keys:
        yield _keys(Path(settings.publish.secret_key), Path(settings.publish.client_keys))


def metrics_endpoint(settings: Config) -> Iterator[Finding]:
    """Whether metrics could be served at `metrics.endpoint`, if one is configured."""
    if address := settings.metrics.address:
        yield _tcp("metrics", *address, f"http://{settings.metrics.endpoint}")


def _keys(secret_key: Path, client_keys: Path) -> Finding:
    try:
        read_pair(secret_key)
        AllowList(client_keys)
    except ConfigError as error:
        do = "make keys with `perceiverd keys new`; the service's user must be able to read them"
        return Finding("keys", "fault", str(error), do)
    return Finding("keys", "ok", "the key of the daemon and the keys of its clients can be read")


def _socket_file(check: str, path: Path) -> Finding:
    """Whether the daemon could make a socket with this path."""
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        what = f"{path} is too long: a socket's path has at most {SOCKET_PATH_BYTES} bytes"
        return Finding(check, "fault", what, "set publish.endpoint to a shorter path")
    try:
        mode = path.lstat().st_mode
    except PermissionError:
        return Finding(check, "warning", f"this user may not look into {path.parent}", JOIN_GROUP)
    except OSError:
        return _free_path(check, path)
    if not stat.S_ISSOCK(mode):
        what = f"{path} exists and is not a socket, so the daemon cannot publish there"
        return Finding(check, "fault", what, "remove it, or set publish.endpoint")
    return _existing_socket(check, path)


def _existing_socket(check: str, path: Path) -> Finding:
    """Which program, if any, listens at this socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            what = f"{path} was left behind by a daemon that was killed; the next daemon removes it"
            return Finding(check, "ok", what)
        except PermissionError:
            what = f"a daemon publishes at {path}, and this user may not subscribe"
            return Finding(check, "warning", what, JOIN_GROUP)
        except OSError as error:
            do = "stop the program that uses it, or remove the file"
            return Finding(check, "fault", f"{path}: {error.strerror or error}", do)
    if is_running():
        return Finding(check, "ok", f"a daemon publishes at {path}; a second one needs another publish.endpoint")
    what = f"another daemon, which is not the service, already publishes at {path}"
    return Finding(check, "fault", what, "stop it (`ss -lxp` shows which process it is), or set publish.endpoint")


def _free_path(check: str, path: Path) -> Finding:
    """Whether a socket could be made at a path where nothing is yet."""
    folder = path.parent
    if not folder.is_dir():
        if folder == RUN and SYSTEMD.is_dir():
            return Finding(check, "ok", f"{folder} does not exist; systemd makes it when the service starts")
        if folder == RUN:
            what = f"{folder} does not exist, and systemd, which would make it, does not run here"
            return Finding(check, "warning", what, f"mkdir {folder}, or set publish.endpoint")
        do = f"mkdir -p {folder}, or set publish.endpoint"
        return Finding(check, "fault", f"the folder of the socket is missing: {folder}", do)
    if not os.access(folder, os.W_OK | os.X_OK):
        do = "run as the service's user, or set publish.endpoint"
        return Finding(check, "warning", f"this user may not make {path}", do)
    return Finding(check, "ok", f"{path} can be made")


def _tcp(check: str, host: str, port: int, endpoint: str) -> Finding:
    """Whether the daemon could bind this address."""
    try:
        addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = addresses[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        return Finding(check, "fault", f"{endpoint}: {error.strerror}", "use an address of this machine")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _port_in_use(check, port, endpoint)
        do = "use an address of this machine and a port above 1023"
        return Finding(check, "fault", f"{endpoint} cannot be bound: {error.strerror}", do)
    return Finding(check, "ok", f"{endpoint} is free")


def _port_in_use(check: str, port: int, endpoint: str) -> Finding:
    who = f"`ss -tlnp 'sport = :{port}'` shows which process it is"
    if is_running():
        what = f"{endpoint} is in use, probably by the service, which is running"
        return Finding(check, "warning", what, f"make sure that it is the service: {who}")
    option = "publish.endpoint" if check == "labels" else "metrics.endpoint"
    what = f"{endpoint} is in use by a program that is not the service"
    return Finding(check, "fault", what, f"stop it ({who}), or set {option}")
