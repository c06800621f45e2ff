"""Where a socket is bound, and the file that an ipc endpoint has there: made for the group at most, and cleaned up."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from pathlib import Path

import zmq

from perceiverd.core.errors import WireError

logger = logging.getLogger(__name__)

HINTS = {
    errno.EADDRINUSE: "another program is bound to it; end it (ss -lp tells which), or set publish.endpoint",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.ENODEV: "this machine has no such interface",
    errno.ENOENT: "its folder is missing: create it (systemd does for the service), or set publish.endpoint",
    errno.EACCES: "this user may not create it there: run as the service's user, or set publish.endpoint",
    errno.ENAMETOOLONG: "a socket's path has at most 107 bytes",
}


class Binding:
    """An endpoint to bind to, as often as need be."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        """As it was asked for; once bound, with the port that was found for `*`."""
        self._inode: int | None = None

    def bind(self, socket_: zmq.Socket[bytes]) -> None:
        """Raises WireError, one line, where that can't be."""
        try:
            path = _path_of(self.endpoint)
            if path:
                _clear(path)
            # The file is created with these rights, so that there is no moment at which others could connect.
            before = os.umask(0o117)
            try:
                socket_.bind(self.endpoint)
            finally:
                os.umask(before)
        except (OSError, zmq.ZMQError) as error:
            hint = HINTS.get(error.errno or 0, error.strerror or str(error))
            raise WireError(f"cannot publish at {self.endpoint}: {hint}") from error
        self.endpoint = socket_.get_string(zmq.LAST_ENDPOINT)
        self._inode = path.stat().st_ino if path else None

    def clean_up(self) -> None:
        """Remove the file, which ZeroMQ 4.3.5 leaves. By now it may be another daemon's, which has taken the place."""
        path = _path_of(self.endpoint)
        if path and self._inode and path.exists() and path.stat().st_ino == self._inode:
            path.unlink()
        self._inode = None


def _path_of(endpoint: str) -> Path | None:
    """The file of an ipc endpoint that has one."""
    scheme, _, address = endpoint.partition("://")
    return Path(address) if scheme == "ipc" and address[:1] not in ("@", "*") else None


def _clear(path: Path) -> None:
    """Remove the socket that a killed daemon left behind. Raises OSError where the place is taken, or is none.

    ZeroMQ would remove whatever is there, unasked: the socket of a daemon at work, or a file that is none.
    """
    if len(os.fsencode(path)) > zmq.IPC_PATH_MAX_LEN:
        raise OSError(errno.ENAMETOOLONG, "")
    if not path.parent.is_dir():
        raise OSError(errno.ENOENT, "")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise WireError(f"cannot publish at ipc://{path}: a file that is no socket is in its place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            logger.info("stale-socket-removed path=%s", path)
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, "")
