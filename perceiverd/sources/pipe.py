"""A pipe into which another program writes live: a FIFO or standard input, with a container or with bare samples.

Media get the time at which they arrive: the writer sets the pace, as a live URL's sender does. A writer that is faster
than real time, such as `cat`, is read in real time: then the pipe is full, and the writer waits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.errors import MediaError
from perceiverd.core.media import NS_PER_S, Media, MediaFormat, Timing, Waiting, end_of
from perceiverd.sources.decode import container
from perceiverd.sources.decode.decoders import DecodeCounts
from perceiverd.sources.decode.files import check_pipe
from perceiverd.sources.decode.pipes import WAIT_MS, PipeReader
from perceiverd.sources.file import later
from perceiverd.sources.live import SETTLE_MOST_NS, STEP_NS, TIMING_NS, SenderClock, pulled
from perceiverd.sources.specs import Pipe, RawFormat, name_of

WRITER, DATA = "a program that writes", "data"
BACKLOG_NS = 10 * NS_PER_S
"""A pipe can hold media from before we came: 64 KiB are 8 s of telephone sound. A writer that is further ahead of the
clock than this is faster than real time."""
AHEAD_NS = NS_PER_S
"""So is a writer that is this far ahead when its burst has not ended after `SETTLE_MOST_NS`."""
HELD_ITEMS = 2048
"""At most this many items are held until that is decided."""
LATE_NS = NS_PER_S // 2
"""Media that come this much later than those before continue from now on: the writer lost some, or was stopped."""
INHERITED = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
"""A descriptor that was opened for us. A pipe must not be opened again: its end would never be seen."""


def media(spec: Pipe, wanted: MediaFormat, clock: Clock = now_ns) -> Iterator[Media | Timing | Waiting | None]:
    """Yield live-stamped media as they come. Waits for a writer as long as it takes.

    Standard input ends. At the end of a FIFO's writer it raises MediaError, so that the source restarts and waits for
    the next writer; so it does if the writer is silent or sends nothing that can be decoded.
    """
    inherited = INHERITED.fullmatch(spec.path)
    descriptor = os.dup(int(inherited[1])) if inherited else _opened(spec.path)
    with closing(LiveReader(descriptor, spec, clock)) as reader:
        if inherited and os.isatty(descriptor):
            raise MediaError(f"{reader.name}: is a terminal; write PROGRAM | perceiverd run ...", "request")
        yield from _until_data(reader, DATA if inherited else WRITER)
        if not reader.is_over():
            yield from _read(reader, spec, wanted, clock)
    if not inherited:
        raise MediaError(f"{name_of(spec)}: its writer has gone; waiting for the next one")


def _opened(path: str) -> int:
    """Open a FIFO. Raises MediaError."""
    check_pipe(Path(path))
    try:
        # Without O_NONBLOCK, it would block until somebody writes, and look like a hang.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened ({error.strerror}); check the path and its permissions") from None


class LiveReader(PipeReader):
    """A pipe whose writer may not be silent once it has begun."""

    def __init__(self, descriptor: int, spec: Pipe, clock: Clock) -> None:
        block_bytes = RawFormat.parsed(spec.raw).sample_bytes if spec.raw else 1
        super().__init__(descriptor, name_of(spec), self._check, block_bytes)
        self.is_open = False
        """Whether FFmpeg has recognised the media."""
        self.fault: MediaError | None = None
        """Why reading ended, if the writer is at fault; FFmpeg does not pass it on."""
        self._spec, self._clock = spec, clock
        self._began_ns = self._asked_ns = clock()

    def begin(self) -> None:
        """The first byte is here."""
        self._began_ns = self._clock()

    def read(self, size: int) -> bytes:
        """As in `PipeReader`. Raises MediaError, and then always, if the writer is silent or FFmpeg cannot begin."""
        self._asked_ns = self._clock()
        self._check()
        return super().read(size)

    def _check(self) -> None:
        now_ns, spec = self._clock(), self._spec
        if self.fault is None and now_ns - self._asked_ns >= spec.read_timeout_s * NS_PER_S:
            self.fault = MediaError(
                f"{self.name}: no data for {spec.read_timeout_s:g} s; check the program that writes into it"
            )
        if self.fault is None and not self.is_open and now_ns - self._began_ns >= spec.open_timeout_s * NS_PER_S:
            self.fault = MediaError(
                f"{self.name}: FFmpeg recognises no media within {spec.open_timeout_s:g} s; check what the program "
                "writes, or set raw for samples without a container"
            )
        if self.fault is not None:
            raise self.fault


def _until_data(reader: PipeReader, what_for: str) -> Iterator[Waiting]:
    """Signs of life until the first byte, or until a writer has come and gone without one."""
    while not reader.has_data(WAIT_MS) and not reader.is_over():
        yield Waiting(what_for)


def _read(
    reader: LiveReader, spec: Pipe, wanted: MediaFormat, clock: Clock
) -> Iterator[Media | Timing | Waiting | None]:
    reader.begin()
    counts = DecodeCounts()
    raw = RawFormat.parsed(spec.raw) if spec.raw else None
    # Without a limit, FFmpeg would search for streams for 5 s; a live URL has the same one.
    options = {} if raw else {"analyzeduration": "2000000"}  # in microseconds
    items = container.read(reader, wanted, options=options, live=True, counts=counts, use=spec, log_track=True, raw=raw)
    try:
        yield from timed(reader.name, _noted(items, reader), clock, counts)
    except MediaError as error:
        raise (reader.fault or error) from None


def _noted(items: Iterator[Media], reader: LiveReader) -> Iterator[Media]:
    for item in items:
        reader.is_open = True
        yield item


def timed(name: str, items: Iterator[Media], clock: Clock, counts: DecodeCounts) -> Iterator[Media | Timing | None]:
    """The items at the times at which they were captured, as far as their arrival says. None while items are held.

    A pipe begins with a burst of what was written before we came. After it, the items that come soonest count. If the
    burst does not end, the writer is faster than real time, and what it writes is replayed from now on.
    """
    sender, held, reported_steps, reported_ns = SenderClock(), list[Media](), 0, clock()
    began: tuple[int, int] | None = None
    """When the first item that is held came, and its own time."""
    joins = 0
    for item in items:
        at_ns, media_ns, steps = clock(), end_of(item), sender.steps
        is_joined = counts.joins > joins and item.start_ns >= counts.joined_ns
        joins = counts.joins if is_joined else joins
        late_ns = sender.astray_ns(media_ns, at_ns)
        if not held and (late_ns > LATE_NS or (is_joined and abs(late_ns) > STEP_NS)):
            sender.step()
        settled = sender.add(media_ns, at_ns)
        began = began if held and began and sender.steps == steps else (at_ns, media_ns)
        held.append(item)
        ahead_ns = (media_ns - began[1]) - (at_ns - began[0])
        is_long = at_ns - began[0] >= SETTLE_MOST_NS and ahead_ns >= AHEAD_NS
        if ahead_ns >= BACKLOG_NS or is_long or len(held) >= HELD_ITEMS:
            break
        if not settled:
            yield None
            continue
        if sender.steps > reported_steps or at_ns - reported_ns >= TIMING_NS:
            reported_steps, reported_ns = sender.steps, at_ns
            yield sender.timing
        yield from (later(each, sender.offset_ns) for each in held)
        held.clear()
    if held:
        if sender.steps > reported_steps:
            yield sender.timing
        yield from pulled(name, chain(held, items), clock, steps=sender.steps, late_ns=LATE_NS)
