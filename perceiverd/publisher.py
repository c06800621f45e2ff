"""The socket on which labels go out. It binds, numbers and sends; what is said is the business of `messages`.

It lives on the thread that made it, never waits, and never holds more than `high_water_mark` messages for a
subscriber: what a slow one can't take is dropped for that one alone, which sees it as a gap in `seq`.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import uuid
from collections import Counter
from pathlib import Path
from typing import Self

import msgspec
import zmq

from perceiverd import messages
from perceiverd.errors import WireError
from perceiverd.messages import Message, Scores

logger = logging.getLogger(__name__)

LINGER_MS = 300
"""How long closing waits for what was just sent."""
LONGEST_SUBSCRIPTION = 1024
"""Bytes; a peer that sends more is cut off by ZeroMQ."""
NOTICES_A_CALL = 1000
"""Subscriptions looked at in one call, so that a storm of them can't hold up the loop."""
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 5_000, 15_000
"""A subscriber that is frozen or cut off is let go of after the time-out, with all that was kept for it."""

HINTS = {
    errno.EADDRINUSE: "another program is bound to it",
    errno.ENOENT: "its folder is missing: create it (systemd does for the service), or set publish.endpoint",
    errno.EACCES: "this user may not create it there: run as the service's user, or set publish.endpoint",
    errno.ENAMETOOLONG: "a socket's path has at most 107 bytes",
}


class Publisher:
    """An XPUB socket, bound as soon as it is made; a context manager, whose end sends what is left and closes."""

    def __init__(self, endpoint: str, high_water_mark: int = 1000) -> None:
        """Raises WireError, one line, where the endpoint can't be bound."""
        self.boot_id = uuid.uuid4().hex
        self.subscriptions = 0
        """Subscriptions in force, as peers tell them; a peer that lies is only believed here."""
        self._sent: Counter[str] = Counter()
        self._last: dict[str, list[bytes]] = {}
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        try:
            self._socket.set(zmq.SNDHWM, high_water_mark)
            self._socket.set(zmq.LINGER, LINGER_MS)
            self._socket.set(zmq.MAXMSGSIZE, LONGEST_SUBSCRIPTION)
            self._socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            self._socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
            # Every subscription is told, not only the first of a topic: each new subscriber gets the last values.
            self._socket.set(zmq.XPUB_VERBOSER, 1)
            _bind(self._socket, endpoint)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.endpoint: str = self._socket.get_string(zmq.LAST_ENDPOINT)
        """Where it is bound; the port is filled in where the config left it open."""
        self._path = _path_of(endpoint)
        self._inode = self._path.stat().st_ino if self._path else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Send what is left, for LINGER_MS at most, and close. Harmless when repeated."""
        self._socket.close()
        self._context.term()
        # ZeroMQ 4.3.5 leaves the file. By now it may be another daemon's, which has taken the place.
        if self._path and self._path.exists() and self._path.stat().st_ino == self._inode:
            self._path.unlink()
        self._path = None

    def send(self, message: Message) -> Message:
        """Publish the message, numbered within its topic; returns it as it was sent."""
        topic = messages.topic(message)
        message = msgspec.structs.replace(message, boot_id=self.boot_id, seq=self._sent[topic])
        parts = messages.encode(message)
        self._sent[topic] += 1
        if not isinstance(message, Scores):  # scores are only true when they are new
            self._last[topic] = parts
        self._socket.send_multipart(parts)  # never waits: XPUB drops where a subscriber's queue is full
        return message

    def attend(self) -> None:
        """Hear who came and who left, and repeat the last values of what was newly subscribed to.

        Those who were there already get the repetition too, under the same `seq`, by which they know it.
        """
        repeat: set[str] = set()
        for _ in range(NOTICES_A_CALL):
            try:
                notice = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            match notice:
                case [bytes(frame)] if frame[:1] == b"\x01":
                    self.subscriptions += 1
                    repeat.update(topic for topic in self._last if topic.encode().startswith(frame[1:]))
                case [bytes(frame)] if frame[:1] == b"\x00":
                    self.subscriptions = max(0, self.subscriptions - 1)
                case _:
                    pass  # a peer may send anything; it is nothing to us
        for topic in sorted(repeat):
            self._socket.send_multipart(self._last[topic])


def _bind(socket_: zmq.Socket[bytes], endpoint: str) -> None:
    try:
        path = _path_of(endpoint)
        if path:
            _clear(path)
        # The file is created with these rights, so that there is no moment at which others could connect.
        before = os.umask(0o117)
        try:
            socket_.bind(endpoint)
        finally:
            os.umask(before)
    except (OSError, zmq.ZMQError) as error:
        hint = HINTS.get(error.errno or 0, error.strerror or str(error))
        raise WireError(f"cannot publish at {endpoint}: {hint}") from error


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
