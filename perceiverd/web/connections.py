"""uvicorn's HTTP/1.1 protocol with bounds that it lacks: of connections, and of the time that a browser may take.

A browser may be slow to send the head of a request, and slow to read an answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MOST_CONNECTIONS = 400
"""At one time; a further one is closed at once."""
HEAD_S = 10.0
"""From the start of a connection, or from the first byte of a further request, to the end of the request's head."""
UNREAD_S = 30.0
"""A browser that has not read what was sent for this long is cut off."""
KEEP_ALIVE_S = 15
MOST_HEAD_BYTES = 16_384


class BoundedProtocol(H11Protocol):
    """One connection."""

    refused = 0
    """Connections that were closed because there were too many."""
    slow = 0
    """Connections that were cut because the browser was too slow."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            BoundedProtocol.refused += 1
            transport.abort()
            return
        # So that `pause_writing` is called as soon as anything waits to be read.
        transport.set_write_buffer_limits(high=0)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._is_idle() and self._head_timer is None:
            self._expect_head()
        super().data_received(data)
        if not self._is_idle():
            self._clear_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_head()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_S, self._cut)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        super().resume_writing()

    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn declares it without None
        return cycle is None or cycle.response_complete

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self._cut)

    def _clear_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cut(self) -> None:
        BoundedProtocol.slow += 1
        self.transport.abort()
