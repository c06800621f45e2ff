"""A few pages over HTTP, from a thread of its own: each request gets one answer, and the connection ends.

Made for scrapers and probes. Any client holds at most one of MOST_CONNECTIONS connections, for ANSWER_S at most and
with LONGEST_REQUEST bytes at most. The thread that made the server never waits for it. It knows no page's content.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from perceiverd.core.errors import WireError
from perceiverd.core.logs import log_event

logger = logging.getLogger("perceiverd.core")

MOST_CONNECTIONS = 16
"""At one time. Further connections are closed without an answer."""
LONGEST_REQUEST = 8192
"""Bytes of a request with all its headers."""
ANSWER_S = 5.0
"""From the first byte of a connection to the last, however slow the client is."""
STOP_S = 2.0
ACCEPT_S = 0.01


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a page."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


Page = Callable[[str], Reply]
"""Receives the Accept header. The server's thread calls it."""


class Server:
    """Bound as soon as it is made; answers while its context is open."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        """`port` 0 takes a free one. Raises WireError, one line, if the address cannot be bound."""
        self._pages = pages
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            why = error.strerror or str(error)
            raise WireError(f"cannot serve metrics at {host}:{port}: {why}; choose another metrics.endpoint") from error
        self.port: int = self._socket.getsockname()[1]
        self._open = 0
        self._stop = asyncio.Event()
        # A daemon thread: the process can end even if it hangs.
        self._thread = threading.Thread(target=self._run, name="httpd", daemon=True)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # its loop has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_S)
        self._socket.close()

    def _run(self) -> None:
        """The thread. If it dies the log has the reason, and the daemon continues without its pages."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except Exception as error:
            log_event(logger, logging.ERROR, "http-server-died", error, port=self.port)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, sock=self._socket, limit=LONGEST_REQUEST)
        await self._stop.wait()
        # The runner cancels the connections that are open. A connection that was accepted just now must get as far
        # first, or asyncio (3.11) would leave it half made.
        self._loop.remove_reader(self._socket)
        await asyncio.sleep(ACCEPT_S)
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MOST_CONNECTIONS:
                async with asyncio.timeout(ANSWER_S):
                    writer.write(self._response(await reader.readuntil(b"\r\n\r\n")))
                    writer.close()
                    await writer.wait_closed()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError):
            pass  # the client left, sent too much or took too long: there is no one to answer
        finally:
            writer.transport.abort()  # harmless if it is closed
            self._open -= 1

    def _response(self, request: bytes) -> bytes:
        """The bytes of the answer."""
        first, *lines = request.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        reply = self._reply(method, path, headers.get("accept", ""))
        head = (
            f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\r\nContent-Type: {reply.kind}\r\n"
            f"Content-Length: {len(reply.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode("latin-1") + (b"" if method == "HEAD" else reply.body)

    def _reply(self, method: str, path: str, accept: str) -> Reply:
        if method not in ("GET", "HEAD"):
            return Reply(b"only GET and HEAD\n", status=HTTPStatus.METHOD_NOT_ALLOWED)
        if (page := self._pages.get(path)) is None:
            paths = " ".join(self._pages)
            return Reply(f"unknown path; use one of {paths}\n".encode(), status=HTTPStatus.NOT_FOUND)
        try:
            return page(accept)
        except Exception as error:
            # A fault in one page. The next request may succeed.
            log_event(logger, logging.ERROR, "page-failed", error, path=path)
            return Reply(b"the page failed; see the log\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)
