"""Who is let in: ZeroMQ's authentication protocol (ZAP, https://rfc.zeromq.org/spec/27), answered by the daemon's loop.

A thread for it could die and leave everyone outside without a word, or inside. The loop can't die in silence, and its
answer within a turn, some 100 ms beside an inference, is soon enough for a handshake. Where nobody answers, ZeroMQ lets
nobody in: it is told to insist.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq
from zmq.utils import z85

from perceiverd.core.errors import ConfigError
from perceiverd.wire.keys import AllowList, read_pair

logger = logging.getLogger(__name__)

HANDLER = "inproc://zeromq.zap.01"
"""Where ZeroMQ asks."""
DOMAIN = b"perceiverd"
ANSWERS_A_CALL = 200
"""So that a storm of strangers can't hold up the loop; the rest wait for the next turn."""
LOOK_EVERY_S = 1.0
"""How soon a change of the list shows."""
REFUSALS_LOGGED_EVERY_S = 10.0


class Authenticator:
    """Lets in those whose keys lie in a folder. Belongs to the thread of its publisher."""

    def __init__(self, secret_key: Path, client_keys: Path) -> None:
        """The daemon's own secret key, and the folder of its clients' public keys. Raises ConfigError."""
        if not zmq.has("curve"):
            raise ConfigError("this build of ZeroMQ has no CURVE, and can't encrypt: install pyzmq from PyPI")
        self.refused = 0
        """Times that somebody with a key that isn't on the list was turned away."""
        self._pair, self._list = read_pair(secret_key), AllowList(client_keys)
        self._looked_s = time.monotonic()
        self._logged_s = -REFUSALS_LOGGED_EVERY_S
        self._unlogged = 0
        self._socket: zmq.Socket[bytes] | None = None

    def open(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Take the place where ZeroMQ asks, before anything is bound."""
        self._socket = context.socket(zmq.REP)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(HANDLER)

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Have this socket speak CURVE, and ask here before it lets anyone in."""
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_PUBLICKEY, self._pair.public)
        socket.set(zmq.CURVE_SECRETKEY, self._pair.secret)
        socket.set(zmq.ZAP_DOMAIN, DOMAIN)
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def answer(self) -> None:
        """Answer all who ask by now; never waits."""
        assert self._socket
        for _ in range(ANSWERS_A_CALL):
            try:
                request = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            reply = verdict(request, self._list.name_of)
            if reply[2] != b"200":
                self._refuse(request)
            self._socket.send_multipart(reply, zmq.NOBLOCK)

    def someone_was_struck_off(self) -> bool:
        """Look at the list from time to time; True once when a key that was on it no longer is."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return False
        self._looked_s = now_s
        return self._list.refresh()

    def _refuse(self, request: Sequence[bytes]) -> None:
        self.refused += 1
        self._unlogged += 1
        now_s = time.monotonic()
        if now_s - self._logged_s >= REFUSALS_LOGGED_EVERY_S:
            key = z85.encode(request[6]).decode() if len(request) == 7 and len(request[6]) == 32 else "-"
            address = request[3].decode("ascii", "replace") if len(request) > 3 else "-"
            logger.warning("client-refused count=%d address=%s key='%s'", self._unlogged, address, key)
            self._logged_s, self._unlogged = now_s, 0


def verdict(request: Sequence[bytes], name_of: Callable[[bytes], str | None]) -> list[bytes]:
    """The reply to a request: version, number, domain, address, identity, mechanism and, by CURVE, the client's key."""
    number = request[1] if len(request) > 1 else b""
    match request:
        case [b"1.0", _, domain, _, _, b"CURVE", key] if domain == DOMAIN and len(key) == 32:
            name = name_of(z85.encode(key))
            if name is not None:
                return [b"1.0", number, b"200", b"OK", name.encode(), b""]
            return [b"1.0", number, b"400", b"this key is not on the list", b"", b""]
        case _:
            return [b"1.0", number, b"400", b"keys are required", b"", b""]
