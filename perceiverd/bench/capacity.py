"""`perceiverd bench --streams max`: how many streams a machine carries before the first window is dropped.

Each step replays some streams through a daemon, as `load` does. The CPU time of a step says where to look next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from perceiverd.bench import load
from perceiverd.bench.load import LoadReport
from perceiverd.core.errors import PerceiverdError

START = 4
"""Streams of the first step."""
MOST = 1000
STEP_S = 20.0
"""How long a step is measured, unless the user chooses. Starting it takes as long again."""
LONGEST_S = 1200.0
"""No step begins later than this."""
GROWTH = 4
"""A step has at most so many times the streams of the one before: its prediction is from a machine with little load."""
EXACT = 20
"""The search ends when it knows the limit to one stream in so many."""
NOISE = 0.01
"""If a step drops a smaller share than this, it is repeated once: another program may have taken the cores."""
BUSY = 0.5
"""With a higher load average before the start, the machine alone carries more than the result."""
STREAM_BYTES = 120_000_000
"""What a stream takes, its process included: more than we have seen. A step must fit into the free memory."""


class CapacityStep(msgspec.Struct, frozen=True):
    """One number of streams, and what came of it."""

    streams: int
    report: LoadReport | None
    """None if the streams did not run."""
    error: str = ""
    """Why they did not."""

    @property
    def is_carried(self) -> bool:
        """Whether each window was tagged. The windows at both ends of the measurement may be missing."""
        found = self.report
        return found is not None and not found.dropped and found.tagged >= found.expected - 2 * self.streams

    @property
    def is_noise(self) -> bool:
        """Whether so few windows were dropped that the next try may drop none."""
        return self.report is not None and 0 < self.report.dropped < NOISE * self.report.expected

    def __str__(self) -> str:
        name = f"{self.streams:5} stream{'s' if self.streams > 1 else ' '}"
        if self.report is None:
            return f"{name}  too many: {self.error}"
        found = self.report
        verdict = "carried " if self.is_carried else "too many"
        cpu = f"{100 * found.cpu_s / found.seconds:.0f} % of {100 * found.cores} % CPU"
        windows = f"{found.dropped} of {found.expected} windows dropped, {found.tagged} tagged"
        return f"{name}  {verdict}  {windows}, p99 {found.p99_ms:.0f} ms, {cpu}, load {found.load:.1f}"


class CapacityReport(msgspec.Struct, frozen=True):
    """How many streams a machine carries."""

    carried: int
    """The most streams without a dropped window; 0 if even one drops some."""
    too_many: int | None
    """The least streams that are too many, as far as it was tried; None if no step was too many."""
    steps: tuple[CapacityStep, ...]
    limit: str = ""
    """Why the search ended before it knew the limit; empty if it knows."""
    load_before: float = 0.0
    """The system's load average before the first step: what other programs take."""

    def __str__(self) -> str:
        report = next((step.report for step in reversed(self.steps) if step.streams == self.carried), None)
        count = f"{self.carried} stream{'' if self.carried == 1 else 's'}"
        lines = [f"this machine carries {count}" if self.carried else "this machine cannot carry one stream"]
        if self.too_many and self.carried:
            lines[0] += f"; {self.too_many} are too many"
        if self.limit:
            lines[0] += f"; the search ended, because {self.limit}"
        if self.load_before > BUSY:
            others = f"other programs ran before the start (load average {self.load_before:.1f})"
            lines.append(f"{others}; the machine alone carries more")
        return "\n".join([*lines, *([str(report)] if report else [])])


def search(
    measure: Callable[[int], LoadReport],
    show: Callable[[CapacityStep], None],
    has_time: Callable[[], bool],
    most: Callable[[], int] = lambda: MOST,
) -> CapacityReport:
    """Find the limit. `most` says how many streams fit into the machine's memory.

    Raises the PerceiverdError of the first step: then nothing runs at all.
    """
    steps: list[CapacityStep] = []
    low, high = 0, MOST + 1
    count, limit = min(START, most()), ""
    while True:
        step = _measured(measure, count, is_first=not steps)
        steps.append(step)
        show(step)
        if step.is_noise and not any(each.streams == count for each in steps[:-1]) and has_time():
            continue
        if step.is_carried:
            low = max(low, count)
        else:
            high = min(high, count)
        if high - low <= max(1, low // EXACT):
            break
        if not has_time():
            limit = "its time is over"
            break
        room = most()
        if room <= low:
            limit = f"more than {low} streams need more memory than is free" if low < MOST else f"{MOST} is the most"
            break
        count = min(_next(low, high, step), room)
    return CapacityReport(low, high if high <= MOST else None, tuple(steps), limit)


def _next(low: int, high: int, step: CapacityStep) -> int:
    """The number of streams to try next: more than `low` and less than `high`."""
    if high > MOST:
        guess = GROWTH * low
        if step.report and step.report.cpu_s:
            share = step.report.cpu_s / step.report.seconds / step.report.cores
            guess = min(guess, max(round(low / share), low + max(1, low // 2)))
        return min(guess, MOST)
    return (low + high) // 2


def _measured(measure: Callable[[int], LoadReport], count: int, *, is_first: bool) -> CapacityStep:
    try:
        return CapacityStep(count, measure(count))
    except PerceiverdError as error:
        if is_first:
            raise
        return CapacityStep(count, None, str(error))


def run(
    seconds: float | None,
    model: str,
    device: str,
    threads: int,
    hop_s: float,
    *,
    still: bool,
    show: Callable[[CapacityStep], None],
    most: int = MOST,
) -> CapacityReport:
    """Find the limit of this machine with at most `most` streams, in about 20 minutes at most. Raises PerceiverdError.

    `show` gets each step when it is done. The other arguments are those of `load.run`.
    """
    begin_s, load_before = time.monotonic(), os.getloadavg()[0]
    found = search(
        lambda count: load.run(count, seconds or STEP_S, model, device, threads, hop_s, still=still),
        show,
        lambda: time.monotonic() < begin_s + LONGEST_S,
        lambda: min(most, max(1, _free_bytes() // STREAM_BYTES)),
    )
    return msgspec.structs.replace(found, load_before=load_before)


def _free_bytes() -> int:
    """What the kernel can give to new processes: `MemAvailable` of proc_meminfo(5)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return MOST * STREAM_BYTES
