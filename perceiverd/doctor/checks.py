"""What checks find, and checks run so that none can hang, crash or end another. Knows nothing of what is checked.

Each check runs in a process of its own, forked, with its bound: a driver that hangs and a library that dies are
findings as well. What a check has found before that counts.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Verdict = Literal["ok", "warning", "fault"]
REAP_S = 1.0
"""What a killed process is given to be gone; one that hangs in a driver may never be."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    check: str
    """What was looked at: `clock`, `stream door`."""
    verdict: Verdict
    what: str
    """What is so, in one line."""
    do: str = ""
    """What to do about it, in one line; empty where nothing is."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something to be looked at."""

    name: str
    look: Callable[[], Iterable[Finding]]
    bound_s: float
    """Seconds after which it is given up."""
    alone: bool = False
    """Whether it measures speed, so that nothing else should run meanwhile."""
    hint: str = "something below it hangs: the kernel's log may tell (journalctl -k)"
    """What to do where it gives no answer."""


def examine(checks: Sequence[Check]) -> Iterator[Finding]:
    """The findings of all checks, in their order, as they come. Those that are not `alone` run side by side."""
    running: dict[int, _Running] = {}
    try:
        running = {i: _Running(check) for i, check in enumerate(checks) if not check.alone}
        for i in sorted(range(len(checks)), key=lambda i: checks[i].alone):
            if i not in running:
                running[i] = _Running(checks[i])
            yield from running[i].findings()
    finally:
        for each in running.values():
            each.end()


class _Running:
    """A check in its process, which writes its findings into a pipe, a line of JSON each."""

    def __init__(self, check: Check) -> None:
        self._check, self._deadline_s = check, time.monotonic() + check.bound_s
        self._pipe, out = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _run(check, out)
        os.close(out)
        self._status: int | None = None

    def findings(self) -> Iterator[Finding]:
        told, complete = self._read()
        for line in told.splitlines():
            with contextlib.suppress(msgspec.DecodeError):  # the last one, cut off
                yield msgspec.json.decode(line, type=Finding)
        self.end()
        name = self._check.name
        if not complete:
            yield Finding(name, "fault", f"no answer within {self._check.bound_s:g} s", self._check.hint)
        elif self._status and os.WIFSIGNALED(self._status):
            died_of = signal.Signals(os.WTERMSIG(self._status)).name
            yield Finding(name, "fault", f"the check died of {died_of}", "a library or driver below it is broken")

    def end(self) -> None:
        """The process is no more, and none that it started; at least nobody waits for it."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._status is not None:
            return
        until_s = time.monotonic() + REAP_S
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = status
            # Also after its own end: it is the leader of a group, of which others may be left.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            if pid or time.monotonic() >= until_s:
                return
            time.sleep(0.01)

    def _read(self) -> tuple[bytes, bool]:
        """What was written before the deadline, and whether that is all."""
        told = b""
        while select.select([self._pipe], [], [], max(0.0, self._deadline_s - time.monotonic()))[0]:
            more = os.read(self._pipe, 65536)
            if not more:
                # It is about to end by itself; killed at once its own status would be lost.
                until_s = time.monotonic() + REAP_S
                while self._status is None and time.monotonic() < until_s:
                    pid, status = os.waitpid(self._pid, os.WNOHANG)
                    self._status = status if pid else None
                    time.sleep(0 if pid else 0.005)
                return told, True
            told += more
        return told, False


def _run(check: Check, out: int) -> None:
    """The life of the forked process; does not return."""
    status = 1
    try:
        # A group of its own, to be killed whole; and what libraries print (ALSA is talkative) is no finding.
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for finding in check.look():
            _write(out, finding)
        status = 0
    except BaseException as error:  # noqa: BLE001, RUF100 - whatever is broken is what was looked for
        what = " ".join(f"the check failed: {type(error).__name__}: {error}".split())
        _write(out, Finding(check.name, "fault", what, "look at what it names; if that is well, report this line"))
    finally:
        os._exit(status)


def _write(out: int, finding: Finding) -> None:
    line = msgspec.json.encode(finding) + b"\n"
    while line:
        line = line[os.write(out, line) :]
