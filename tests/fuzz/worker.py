"""Gives inputs to a target in a process of its own, so that hangs, crashes and memory are seen from outside."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from tests.fuzz.target import Outcome, Target, judge
from tests.fuzz.targets import load

CPU_LIMIT_S, WALL_LIMIT_S = 10.0, 60.0
"""One input hangs after this much CPU time, or after this time without an answer, whatever a busy machine does."""
START_LIMIT_S = 120.0
POLL_S = 0.5
WARM_UP = 200
"""Inputs after which a process has loaded what it needs; from then on its memory must not grow."""
RECENT = 20
GROWTH_LIMIT_MB = 100
"""How much the least memory of the last RECENT inputs may grow after the warm-up."""


class Worker:
    """One process that judges inputs, restarted after each hang or crash."""

    def __init__(self, target: Target, folder: Path, cpu_limit_s: float = CPU_LIMIT_S) -> None:
        """`folder` exists; the process writes its temporary files there."""
        self._cpu_limit_s = cpu_limit_s
        self._target, self._folder = target, folder
        self._errors = folder / "errors"
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def judge(self, data: bytes) -> Outcome:
        """What this input leads to."""
        self._pipe.send_bytes(data)
        start_s, start_cpu_s = time.monotonic(), self._cpu_s()
        while not self._pipe.poll(POLL_S):
            cpu_s, wall_s = self._cpu_s() - start_cpu_s, time.monotonic() - start_s
            if cpu_s > self._cpu_limit_s or wall_s > WALL_LIMIT_S:
                return self._hung(cpu_s, wall_s)
        try:
            outcome, peak_mb, now_mb = self._pipe.recv()
        except EOFError:
            return self._crashed()
        assert isinstance(outcome, Outcome)
        return outcome if outcome.is_failure else self._within_memory(outcome, peak_mb, now_mb)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, self._target.name, self._folder)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.poll(START_LIMIT_S), "the process does not start"
        self._pipe.recv()
        self._base_mb, self._recent, self._count = 0, deque[int](maxlen=RECENT), 0

    def _hung(self, cpu_s: float, wall_s: float) -> Outcome:
        os.kill(self._process.pid or 0, signal.SIGABRT)  # faulthandler writes where it hangs
        self._process.join(POLL_S * 4)
        place = self._stack()
        self._restart()
        return Outcome(
            "hang", _top(place), f"no answer within {cpu_s:.0f} s of CPU time, {wall_s:.0f} s in all\n{place}"
        )

    def _crashed(self) -> Outcome:
        self._process.join()
        code, place = self._process.exitcode, self._stack()
        self._restart()
        how = signal.Signals(-code).name if code and code < 0 else f"status {code}"
        return Outcome("crash", f"{how} {_top(place)}", f"ended by {how}\n{place}")

    def _within_memory(self, outcome: Outcome, peak_mb: int, now_mb: int) -> Outcome:
        self._count += 1
        self._recent.append(now_mb)
        if peak_mb > self._target.memory_limit_mb:
            return Outcome("memory", f"peak {outcome.signature}", f"took {peak_mb} MB\n{outcome.detail}")
        if self._count == WARM_UP:
            self._base_mb = max(self._recent)
        elif self._count > WARM_UP and min(self._recent) > self._base_mb + GROWTH_LIMIT_MB:
            grown = f"grew from {self._base_mb} to {min(self._recent)} MB within {self._count} inputs"
            self._restart()
            return Outcome("memory", "growth", f"the process {grown}\n")
        return outcome

    def _restart(self) -> None:
        self.__exit__()
        self._start()

    def _cpu_s(self) -> float:
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _stack(self) -> str:
        return self._errors.read_text(errors="replace")[-4000:]


def _top(stack: str) -> str:
    """Where the crashed or hanging thread was, from faulthandler's report."""
    lines = stack.partition("(most recent call first):\n")[2].splitlines()
    ours = [line.strip() for line in lines if "/perceiverd/" in line] or [line.strip() for line in lines]
    return ours[0].rpartition("/")[2] if ours else "unknown place"


def _serve(pipe: Connection, name: str, folder: Path) -> None:
    """The process: answer each input with its outcome and with the memory that it took."""
    errors = (folder / "errors").open("wb", buffering=0)
    os.dup2(errors.fileno(), 2)  # FFmpeg's messages and faulthandler's
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    target = load(name)
    pipe.send(None)
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        before_mb = _reset_peak_mb()
        outcome = judge(target, data, folder)
        peak_mb, now_mb = _memory_mb("VmHWM"), _memory_mb("VmRSS")
        pipe.send((outcome, peak_mb - before_mb, now_mb))


def _reset_peak_mb() -> int:
    """Forget the largest amount of memory so far; returns the present one."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory_mb("VmRSS")


def _memory_mb(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) // 1024
    return 0
