"""Synthetic sources with a fault, for tests: they hang, crash, freeze, or lose half a second of their clock.

The program has no option for this and loads no code that a configuration names. A test puts `worker(fault)` in place of
`source_process.WORKER`, or starts `program(fault)` instead of `perceiverd`; both run this file.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import msgspec

from perceiverd.core.clock import now_ns
from perceiverd.core.media import NS_PER_S, Chunk, Frame, Media, MediaFormat, Timing, Waiting
from perceiverd.sources import synthetic
from perceiverd.sources.devices.clock_fit import ClockFit
from perceiverd.sources.process import source_process, worker
from perceiverd.sources.process.protocol import Item
from perceiverd.sources.specs import Source, Synthetic

STEP_NS = NS_PER_S // 2
TIMING_NS = 5 * NS_PER_S


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong, and when."""

    kind: Literal["hang", "crash", "freeze", "step"]
    """Hang as a driver does; die without a message; repeat one frame; lose half a second of the clock."""
    after_s: float = 0.0
    """Seconds from the start of the source to the fault."""
    source: Synthetic | None = None
    """Only sources with this specification have the fault; all synthetic ones if None."""


def worker_command(fault: Fault) -> tuple[str, ...]:
    """What to put in place of `source_process.WORKER`."""
    return sys.executable, __file__, msgspec.json.encode(fault).decode(), "worker"


def program(fault: Fault) -> tuple[str, ...]:
    """`perceiverd` whose sources have this fault; its arguments follow."""
    return sys.executable, __file__, msgspec.json.encode(fault).decode(), "perceiverd"


def media(fault: Fault, spec: Synthetic, wanted: MediaFormat) -> Iterator[Media | Timing | None]:
    """The media of a synthetic source with this fault."""
    items = synthetic.media(spec, wanted)
    if fault.source not in (None, spec):
        return items
    begin_ns = now_ns() + round(fault.after_s * NS_PER_S)
    match fault.kind:
        case "freeze":
            return _frozen(items, begin_ns)
        case "step":
            return _on_a_device_clock(_delayed(items, begin_ns))
        case kind:
            return _interrupted(items, begin_ns, kind)


def _interrupted(
    items: Iterator[Media | None], begin_ns: int, kind: Literal["hang", "crash"]
) -> Iterator[Media | None]:
    while now_ns() < begin_ns:
        yield next(items)
    if kind == "crash":
        signal.raise_signal(signal.SIGKILL)  # like a crash, but it leaves no core file
    while True:
        time.sleep(1)


def _frozen(items: Iterator[Media | None], begin_ns: int) -> Iterator[Media | None]:
    last: Frame | None = None
    for item in items:
        if isinstance(item, Frame):
            last = item if last is None or item.start_ns < begin_ns else last
            item = replace(item, pixels=last.pixels, still=last.still)
        yield item


def _delayed(items: Iterator[Media | None], begin_ns: int) -> Iterator[Media | None]:
    """From this time on, each item comes half a second late: its stamp lags by that much, as after an overrun."""
    for item in items:
        if item is not None and item.start_ns >= begin_ns:
            end_ns = item.end_ns if isinstance(item, Chunk) else item.start_ns + synthetic.TICK_NS
            time.sleep(max(0, end_ns + STEP_NS - now_ns()) / NS_PER_S)
        yield item


def _on_a_device_clock(items: Iterator[Media | None]) -> Iterator[Media | Timing | None]:
    """The same items, as if their stamps came from a device's clock, which `ClockFit` must find."""
    clock, held, timing_ns = ClockFit(), list[Media](), now_ns()
    for item in items:
        if item is None:
            yield None
            continue
        at_ns = now_ns()
        if stepped := clock.add(item.end_ns if isinstance(item, Chunk) else item.start_ns, at_ns):
            held.clear()  # nobody can know on which side of the step it was captured
        held.append(item)
        if stepped or at_ns - timing_ns >= TIMING_NS:
            timing_ns = at_ns
            yield clock.timing
        if not clock.suspect:
            yield from (replace(each, start_ns=clock.at(each.start_ns)) for each in held)
            held.clear()


def main() -> int:
    """Run the worker or the program with a fault."""
    fault = msgspec.json.decode(sys.argv[1], type=Fault)
    if sys.argv[2] == "worker":
        healthy = worker.media

        def faulty(source: Source, wanted: MediaFormat) -> Iterator[Item | Waiting | None]:
            return media(fault, source, wanted) if isinstance(source, Synthetic) else healthy(source, wanted)

        worker.media = faulty
        return worker.main()
    from perceiverd.__main__ import main as perceiverd

    source_process.WORKER = worker_command(fault)
    sys.argv = ["perceiverd", *sys.argv[3:]]
    perceiverd()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)
