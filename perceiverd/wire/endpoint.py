"""Binds a socket to an endpoint. Creates, protects and removes the file that an ipc endpoint has."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from pathlib import Path

import zmq

from perceiverd.core.errors import WireError
from perceiverd.core.logs import log_event
from perceiverd.core.paths import SOCKET_PATH_BYTES

logger = logging.getLogger("perceiverd.wire")

HINTS = {
    errno.EADDRINUSE: "another program uses it; end that program (`ss -lp` shows it), or set publish.endpoint",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.ENODEV: "this machine has no such interface",
    errno.ENOENT: "its folder is missing; create it (systemd does so for the service), or set publish.endpoint",
    errno.EACCES: "this user may not create it there; run as the service's user, or set publish.endpoint",
    errno.ENAMETOOLONG: f"the path of a socket has at most {SOCKET_PATH_BYTES} bytes",
}
SOCKET_UMASK = 0o117
"""A new socket file gets 660: its owner and its group may connect, nobody else."""


class EndpointInUseError(WireError):
    """Another program publishes there."""


class Binding:
    """An endpoint to which sockets are bound, one after the other."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        """As configured. Once a socket is bound, `*` is replaced by the real port."""
        self._inode: int | None = None

    def bind(self, socket_: zmq.Socket[bytes]) -> None:
        """Raises WireError, one line, if the endpoint cannot be bound."""
        try:
            path = _path_of(self.endpoint)
            if path:
                _make_room(path)
            # The umask applies when the file is created, so that nobody else can connect at any moment.
            before = os.umask(SOCKET_UMASK)
            try:
                socket_.bind(self.endpoint)
            finally:
                os.umask(before)
        except (OSError, zmq.ZMQError) as error:
            raise _refused(self.endpoint, error) from error
        self.endpoint = socket_.get_string(zmq.LAST_ENDPOINT)
        self._inode = path.stat().st_ino if path else None

    def clean_up(self) -> None:
        """Remove the socket file, which ZeroMQ 4.3.5 leaves behind, unless another daemon has replaced it."""
        path = _path_of(self.endpoint)
        if path and self._inode and path.exists() and path.stat().st_ino == self._inode:
            path.unlink()
        self._inode = None


def _path_of(endpoint: str) -> Path | None:
    """The file of an ipc endpoint; None if it has no file, or if the endpoint is no ipc endpoint."""
    scheme, _, address = endpoint.partition("://")
    return Path(address) if scheme == "ipc" and address[:1] not in ("@", "*") else None


def check(endpoint: str) -> None:
    """Raises WireError if no socket can be bound there, EndpointInUseError if there is one already. Keeps nothing."""
    try:
        if (path := _path_of(endpoint)) is None:
            with zmq.Context(io_threads=1) as context, context.socket(zmq.PUB) as socket_:
                socket_.bind(endpoint)
        elif _is_taken(path) and _is_alive(path):
            raise OSError(errno.EADDRINUSE, "")
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, "")
    except (OSError, zmq.ZMQError) as error:
        raise _refused(endpoint, error) from error


def _refused(endpoint: str, error: OSError | zmq.ZMQError) -> WireError:
    hint = HINTS.get(error.errno or 0, error.strerror or str(error))
    kind = EndpointInUseError if error.errno == errno.EADDRINUSE else WireError
    return kind(f"cannot publish at {endpoint}: {hint}")


def _is_taken(path: Path) -> bool:
    """Whether a socket is there already. Raises OSError or WireError if the path cannot be used."""
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, "")
    if not path.parent.is_dir():
        raise OSError(errno.ENOENT, "")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise WireError(f"cannot publish at ipc://{path}: the file there is not a socket; remove it")
    return True


def _make_room(path: Path) -> None:
    """Remove the socket that a killed daemon left behind. Raises OSError or WireError if the path cannot be used.

    ZeroMQ would remove any file there without a check, be it the socket of a running daemon or no socket at all.
    """
    if not _is_taken(path):
        return
    if _is_alive(path):
        raise OSError(errno.EADDRINUSE, "")
    log_event(logger, logging.INFO, "stale-socket-removed", path=str(path))
    path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    """Whether a program listens at this socket. Raises OSError if this user may not ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
