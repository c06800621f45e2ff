"""One source in a process of its own: `python -m perceiverd.sources.child`, with an order on standard input.

It may hang, leak or crash inside a driver or FFmpeg; the runner sees its data grow old, kills it and starts another.
It ends when it is told to (SIGTERM), when its parent dies or closes its standard input, and when its source does.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
import zmq

from perceiverd.core.errors import MediaError
from perceiverd.core.media import Media, MediaFormat, Timing
from perceiverd.core.secrets import redacted
from perceiverd.sources.process.protocol import CHILD_QUEUED, Header, Item, StartRequest, packed
from perceiverd.sources.snapshots.requests import SnapshotRequest
from perceiverd.sources.specs import Source, Url, name_of

if TYPE_CHECKING:
    from perceiverd.sources.snapshots.recorder import Recorder

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
CONNECT_MS = 5000
LINGER_MS = 2000
"""How long what is queued at the end may take to be fetched."""


class Sender:
    """A PUSH socket that never blocks: what finds no room is dropped, counted, and told in the next header."""

    def __init__(self, order: StartRequest) -> None:
        self._order, self._dropped, self._steps = order, 0, 0
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, CHILD_QUEUED)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # without a connection there is no queue that hides it

    def __enter__(self) -> Self:
        self._socket.connect(self._order.endpoint)
        self._socket.poll(CONNECT_MS, zmq.POLLOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()

    def send(self, item: Item | None) -> None:
        """Send an item, or with None a sign of life, or drop it."""
        if isinstance(item, Timing):
            self._steps = item.steps
        try:
            self._socket.send_multipart(packed(self._order, self._dropped, item, self._steps), zmq.NOBLOCK)
        except zmq.Again:
            if isinstance(item, Media):
                self._dropped += 1

    def say(self, header: Header) -> None:
        """Send a word without media, where there is room for it."""
        header = msgspec.structs.replace(header, dropped=self._dropped, steps=self._steps)
        with contextlib.suppress(zmq.Again):
            self._socket.send(msgspec.json.encode(header), zmq.NOBLOCK)

    def last(self, header: Header) -> None:
        """Send the last word, for which there is time."""
        self._socket.setsockopt(zmq.SNDTIMEO, LINGER_MS)
        with contextlib.suppress(zmq.Again):  # the exit status says the same, less exactly
            self._socket.send(msgspec.json.encode(msgspec.structs.replace(header, dropped=self._dropped)))


def media(source: Source, wanted: MediaFormat) -> Iterator[Item | None]:
    """What this source delivers, from the module that is named like its kind.

    A sign of life before that is loaded and after: on a slow board that takes longer than a source may be silent.
    """
    yield None
    module = importlib.import_module(f"perceiverd.sources.{type(source).__struct_config__.tag}")
    yield None
    yield from module.media(source, wanted)


def main() -> int:
    """Deliver until the end; 0 where a file has ended, 1 where the source failed."""
    # The daemon decides when to stop; a Ctrl-C in its terminal is for it alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The default action ends the process even while it hangs in foreign code. Both may be inherited otherwise.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    order = msgspec.json.decode(_line(), type=StartRequest)
    keeper, wanted = None, order.wanted
    if order.keep is not None:
        from perceiverd.sources.snapshots.recorder import (  # only who keeps pictures has their encoder
            Recorder,
            stills_of,
        )

        keeper, wanted = Recorder(order.keep), replace(order.wanted, stills=stills_of(order.keep))
    threading.Thread(target=_heed_parent, args=(keeper,), daemon=True).start()
    with Sender(order) as sender:
        source = order.source
        try:
            if isinstance(source, Url):
                source = source.filled(order.secrets)
            for item in media(source, wanted):
                sender.send(item)
                if keeper:
                    if isinstance(item, Media):
                        keeper.see(item)
                    while keeper.said:
                        sender.say(Header(order.token, order.incarnation, "kept", 0, message=keeper.said.popleft()))
        except MediaError as error:
            message = _fit(str(error), source, order)
            sender.last(Header(order.token, order.incarnation, "failed", 0, message=message, refused=error.refused))
            return 1
        except Exception:  # a fault of ours; its words may quote the URL
            sys.stderr.write(_fit(traceback.format_exc(), source, order))
            return 1
        sender.last(Header(order.token, order.incarnation, "ended", 0))
        return 0


def _fit(text: str, source: Source, order: StartRequest) -> str:
    """The text without secrets. Where the whole URL is one, errors name a part of it that `redacted` would not know."""
    return redacted(text.replace(name_of(source), name_of(order.source)), order.secrets)


def _line() -> bytes:
    """The first line of standard input, and not a byte of what follows: no buffer may hold that back."""
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return bytes(line)


def _heed_parent(keeper: Recorder | None) -> None:
    """Pass on what is asked. Exit when standard input closes: the parent may have died before the kernel could tell.

    A daemon thread, since the other one may hang where nothing but the end of the process gets it out.
    """
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if keeper:
                keeper.ask(msgspec.json.decode(line, type=SnapshotRequest))
    os._exit(0)


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Without the exit handlers of libraries: PortAudio's waits for ever for a sound server that is gone.
    os._exit(status)
