"""An open file as an answer, whole or the range that a player asks for (RFC 9110, section 14)."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

CHUNK_BYTES = 1 << 16
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class ReleasingResponse(StreamingResponse):
    """A streamed answer that releases something at its end, also if the browser leaves before the first byte."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        release: Callable[[], None],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(content, status, headers, media_type)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


def file_response(descriptor: int, content: str, range_header: str | None) -> Response:
    """The file behind this descriptor, which is closed at the end. Requests for several ranges get the whole file."""
    size = os.fstat(descriptor).st_size
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
    first, last, status = 0, size - 1, 200
    if range_header and (found := RANGE.fullmatch(range_header.strip())) and (found[1] or found[2]):
        first, last = _range(found[1], found[2], size)
        if first > last:
            os.close(descriptor)
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers["Content-Length"] = str(last - first + 1)
    chunks = _chunks(descriptor, first, last + 1)
    return ReleasingResponse(chunks, partial(os.close, descriptor), status, headers, content)


def bytes_response(data: bytes, content: str, range_header: str | None) -> Response:
    """The same for data in memory."""
    descriptor = os.memfd_create("clip", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    return file_response(descriptor, content, range_header)


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    """The first and the last byte that are wanted; the first is greater if there is none."""
    if not first:  # the last so many
        return (max(0, size - int(last)), size - 1) if int(last) else (1, 0)
    return int(first), min(size - 1, int(last)) if last else size - 1


async def _chunks(descriptor: int, at: int, end: int) -> AsyncIterator[bytes]:
    while at < end and (data := await run_in_threadpool(os.pread, descriptor, min(CHUNK_BYTES, end - at), at)):
        yield data
        at += len(data)
