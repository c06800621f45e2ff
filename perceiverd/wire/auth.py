"""Which clients may connect: ZeroMQ's authentication protocol (ZAP, https://rfc.zeromq.org/spec/27).

The daemon's loop answers the requests, not a thread of its own. If such a thread died, it would silently lock everyone
out or let everyone in; if the loop dies, systemd restarts the daemon. An inference delays an answer by some 100 ms,
which a handshake tolerates. If nobody answers, ZeroMQ refuses the client, because ZAP_ENFORCE_DOMAIN is set.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq
from zmq.utils import z85

from perceiverd.core.errors import ConfigError
from perceiverd.core.logs import LogLimit, log_event
from perceiverd.wire.keys import AllowList, read_pair

logger = logging.getLogger("perceiverd.wire")

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
"""Where ZeroMQ sends its requests."""
DOMAIN = b"perceiverd"
ANSWERS_A_CALL = 200
"""Requests answered in one call. If more clients connect, the rest waits for the next turn of the loop."""
REFRESH_EVERY_S = 1.0
"""How often the allow-list is read again."""


class Authenticator:
    """Admits clients whose keys are in a folder. Use it only on the thread of its publisher."""

    def __init__(self, secret_key: Path, client_keys: Path) -> None:
        """The daemon's own secret key file, and the folder of its clients' public keys. Raises ConfigError."""
        if not zmq.has("curve"):
            raise ConfigError("this build of ZeroMQ has no CURVE and cannot encrypt; install pyzmq from PyPI")
        self.refused = 0
        """How often a client was refused because its key is not on the list."""
        self._pair, self._list = read_pair(secret_key), AllowList(client_keys)
        self._refreshed_s = time.monotonic()
        self._refusals = LogLimit()
        self._socket: zmq.Socket[bytes] | None = None

    def open(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Bind where ZeroMQ sends its requests. Call it before the publisher binds."""
        self._socket = context.socket(zmq.REP)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(ZAP_ENDPOINT)

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Make this socket encrypt, and admit only clients that this authenticator admits."""
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_PUBLICKEY, self._pair.public)
        socket.set(zmq.CURVE_SECRETKEY, self._pair.secret)
        socket.set(zmq.ZAP_DOMAIN, DOMAIN)
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def answer(self) -> None:
        """Answer the requests that are waiting, ANSWERS_A_CALL at most. Never waits."""
        assert self._socket
        for _ in range(ANSWERS_A_CALL):
            try:
                request = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            reply = reply_to(request, self._list.name_of)
            if reply[2] != b"200":
                self._record_refusal(request)
            self._socket.send_multipart(reply, zmq.NOBLOCK)

    def key_removed(self) -> bool:
        """Read the allow-list again if it is time to. Returns whether a key was removed from it since the last call."""
        now_s = time.monotonic()
        if now_s - self._refreshed_s < REFRESH_EVERY_S:
            return False
        self._refreshed_s = now_s
        return self._list.refresh()

    def _record_refusal(self, request: Sequence[bytes]) -> None:
        self.refused += 1
        if (suppressed := self._refusals.admit(time.monotonic_ns())) is None:
            return
        key = z85.encode(request[6]).decode() if len(request) == 7 and len(request[6]) == 32 else None
        address = request[3].decode("ascii", "replace") if len(request) > 3 else None
        log_event(logger, logging.WARNING, "client-refused", address=address, key=key, suppressed=suppressed)


def reply_to(request: Sequence[bytes], name_of: Callable[[bytes], str | None]) -> list[bytes]:
    """The reply to a request: version, request id, status, text, user id, metadata.

    A request holds version, request id, domain, address, identity, mechanism and, with CURVE, the client's key.
    """
    request_id = request[1] if len(request) > 1 else b""
    match request:
        case [b"1.0", _, domain, _, _, b"CURVE", key] if domain == DOMAIN and len(key) == 32:
            name = name_of(z85.encode(key))
            if name is not None:
                return [b"1.0", request_id, b"200", b"OK", name.encode(), b""]
            return [b"1.0", request_id, b"400", b"this key is not on the list", b"", b""]
        case _:
            return [b"1.0", request_id, b"400", b"keys are required", b"", b""]
