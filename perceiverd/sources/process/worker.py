"""One source in a process of its own: `python -m perceiverd.sources.process.worker`, with a request on standard input.

It may hang, leak or crash inside a driver or FFmpeg: the supervisor then kills it and starts another. It ends on
SIGTERM, when its parent dies or closes its standard input, and when its source ends.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import msgspec
import zmq

from perceiverd.core import logs
from perceiverd.core.errors import MediaError, Refused
from perceiverd.core.media import Chunk, Media, MediaFormat, Timing, Waiting
from perceiverd.core.secrets import redacted
from perceiverd.core.signals import die_with_parent
from perceiverd.sources.process.protocol import WORKER_QUEUED, Header, Item, StartRequest, most_queued, packed
from perceiverd.sources.snapshots.requests import MediaRequest, SnapshotOptions, SnapshotRequest
from perceiverd.sources.specs import Pipe, Source, Url, name_of

if TYPE_CHECKING:
    from perceiverd.sources.snapshots.recent_recorder import RecentRecorder
    from perceiverd.sources.snapshots.recorder import Recorder

CONNECT_MS = 5000
LINGER_MS = 2000
"""At the end, how long to wait until the supervisor has read what is queued."""


class Sender:
    """A PUSH socket that never blocks: if the queue is full, an item is dropped, and the next header counts it."""

    def __init__(self, request: StartRequest) -> None:
        self._request, self._dropped, self._steps = request, 0, 0
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, most_queued(request.wanted, WORKER_QUEUED))
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # do not queue without a connection: that would hide its absence

    def __enter__(self) -> Self:
        self._socket.connect(self._request.endpoint)
        self._socket.poll(CONNECT_MS, zmq.POLLOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()

    def send(self, item: Item | Waiting | None) -> None:
        """Send an item, or a sign of life for None; drop it if the queue is full."""
        if isinstance(item, Timing):
            self._steps = item.steps
        try:
            self._socket.send_multipart(packed(self._request, self._dropped, item, self._steps), zmq.NOBLOCK)
        except zmq.Again:
            if isinstance(item, Media):
                self._dropped += 1

    def send_header(self, header: Header) -> None:
        """Send a header without media, if there is room for it."""
        header = msgspec.structs.replace(header, dropped=self._dropped, steps=self._steps)
        with contextlib.suppress(zmq.Again):
            self._socket.send(msgspec.json.encode(header), zmq.NOBLOCK)

    def send_last(self, header: Header) -> None:
        """Send the last header; waits a while for room."""
        self._socket.setsockopt(zmq.SNDTIMEO, LINGER_MS)
        with contextlib.suppress(zmq.Again):  # the exit status carries the same news, less exactly
            self._socket.send(msgspec.json.encode(msgspec.structs.replace(header, dropped=self._dropped)))


def media(source: Source, wanted: MediaFormat) -> Iterator[Item | Waiting | None]:
    """What this source delivers, from the module whose name is its kind.

    Yields a sign of life before and after it loads that module: on a slow board this takes longer than a source may
    be silent.
    """
    yield None
    module = importlib.import_module(f"perceiverd.sources.{type(source).__struct_config__.tag}")
    yield None
    yield from module.media(source, wanted)


def main() -> int:
    """Deliver media until the end. Returns 0 if a file has ended, 1 if the source failed."""
    # The daemon decides when to stop; a Ctrl-C in its terminal is for the daemon alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The default action ends the process even while it hangs in foreign code. A parent may have set something else.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    die_with_parent()
    request = msgspec.json.decode(_first_line(), type=StartRequest)
    recorders, wanted = Recorders(request.snapshots), request.wanted
    if recorders.snapshots and request.snapshots:
        from perceiverd.sources.snapshots.recorder import stills_of

        wanted = replace(wanted, stills=stills_of(request.snapshots))
    threading.Thread(target=_watch_input, args=(recorders,), daemon=True).start()
    with Sender(request) as sender:
        source = request.source
        try:
            if isinstance(source, Url):
                source = source.filled(request.secrets)
            if isinstance(source, Pipe) and request.descriptor is not None:
                source = msgspec.structs.replace(source, path=f"/dev/fd/{request.descriptor}")
            if request.logs:
                logs.to_stderr(partial(_without_secrets, source=source, request=request))
            for item in media(source, wanted):
                sender.send(item)
                recorders.record(item)
                for header in recorders.headers(request):
                    sender.send_header(header)
        except MediaError as error:
            message = _without_secrets(str(error), source, request)
            sender.send_last(_header(request, "failed", message=message, refused=error.refused))
            return 1
        except Exception:  # a bug of ours; its text may quote the URL
            sys.stderr.write(_without_secrets(traceback.format_exc(), source, request))
            return 1
        sender.send_last(_header(request, "ended"))
        return 0


class Recorders:
    """What writes media to disk for people: none, one or both of snapshots and recent sound."""

    def __init__(self, options: SnapshotOptions | None) -> None:
        """Loads FFmpeg's encoders only if they are needed."""
        self.snapshots: Recorder | None = None
        self.recent: RecentRecorder | None = None
        if options is not None and options.on_event:
            from perceiverd.sources.snapshots.recorder import Recorder

            self.snapshots = Recorder(options)
        if options is not None and options.recent is not None:
            from perceiverd.sources.snapshots.recent_recorder import RecentRecorder

            self.recent = RecentRecorder(options.recent)

    def record(self, item: Item | Waiting | None) -> None:
        """Hold the item, if it is one that may be written."""
        if self.snapshots and isinstance(item, Media):
            self.snapshots.add(item)
        if self.recent and isinstance(item, Chunk):
            self.recent.add(item)

    def request(self, request: MediaRequest) -> None:
        """Write this, soon."""
        if isinstance(request, SnapshotRequest):
            if self.snapshots:
                self.snapshots.request(request)
        elif self.recent:
            self.recent.request(request)

    def headers(self, request: StartRequest) -> Iterator[Header]:
        """One header for each finished request."""
        while self.snapshots and self.snapshots.results:
            yield _header(request, "snapshot", message=self.snapshots.results.popleft())
        while self.recent and self.recent.results:
            done = self.recent.results.popleft()
            yield msgspec.structs.replace(_header(request, "sound", message=done.fault), sound_ms=done.written_ms)


def _header(
    request: StartRequest,
    kind: Literal["snapshot", "sound", "ended", "failed"],
    message: str = "",
    refused: Refused = "",
) -> Header:
    return Header(request.token, request.incarnation, kind, 0, message=message, refused=refused)


def _without_secrets(text: str, source: Source, request: StartRequest) -> str:
    """The text without secrets. If a secret is a whole URL, errors quote a part of it that `redacted` would miss."""
    return redacted(text.replace(name_of(source), name_of(request.source)), request.secrets)


def _first_line() -> bytes:
    """The first line of standard input, and no byte after it: a buffer would hold those back."""
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return bytes(line)


def _watch_input(recorders: Recorders) -> None:
    """Pass on requests for snapshots and recent sound, and exit when standard input closes.

    The parent may have died before the kernel could send us its signal. Runs as a daemon thread, because the main
    thread may hang in a place that only the end of the process leaves.
    """
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            recorders.request(msgspec.json.decode(line, type=MediaRequest))
    os._exit(0)


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Skips the exit handlers of libraries: PortAudio's waits for ever for a sound server that is gone.
    os._exit(status)
