"""Findings, and running checks so that none can hang, crash or end another. It does not know what is checked.

Each check runs in a forked process with a time limit, so a driver that hangs and a library that crashes become findings
too. What a check found before that still counts.
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
"""Seconds that a killed process gets to end. One that hangs in a driver may never end."""
POLL_S = 0.01
"""Seconds between two looks at whether a process has ended."""
PIPE_BYTES = 65_536
"""Bytes read from a check's pipe at once: all that a pipe holds on Linux (pipe(7))."""


class Finding(msgspec.Struct, frozen=True):
    """One result of a check."""

    check: str
    """The name of the check: `clock`, `stream door`."""
    verdict: Verdict
    what: str
    """What was found, in one line."""
    do: str = ""
    """What to do about it, in one line; empty if there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something to check."""

    name: str
    run: Callable[[], Iterable[Finding]]
    timeout_s: float
    """Seconds after which the check is killed."""
    alone: bool = False
    """Whether it measures speed, so that no other check may run at the same time."""
    hint: str = "a driver or library hangs; look at the kernel's log: journalctl -k"
    """What to do if the check does not end in time."""


def run_checks(checks: Sequence[Check]) -> Iterator[Finding]:
    """The findings of all checks, in the order of the checks, as they arrive; those that run `alone` come last."""
    processes: dict[int, _CheckProcess] = {}
    try:
        processes = {i: _CheckProcess(check) for i, check in enumerate(checks) if not check.alone}
        for i in sorted(range(len(checks)), key=lambda i: checks[i].alone):
            if i not in processes:
                processes[i] = _CheckProcess(checks[i])
            yield from processes[i].findings()
    finally:
        for process in processes.values():
            process.close()


class _CheckProcess:
    """A check in its process, which writes its findings into a pipe, one line of JSON each."""

    def __init__(self, check: Check) -> None:
        self._check, self._deadline_s = check, time.monotonic() + check.timeout_s
        self._pipe, write_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _run_in_child(check, write_end)
        os.close(write_end)
        self._status: int | None = None

    def findings(self) -> Iterator[Finding]:
        output, complete = self._read()
        for line in output.splitlines():
            with contextlib.suppress(msgspec.DecodeError):  # the last line may be incomplete
                yield msgspec.json.decode(line, type=Finding)
        self.close()
        name = self._check.name
        if not complete:
            yield Finding(
                name, "fault", f"the check gave no result within {self._check.timeout_s:g} s", self._check.hint
            )
        elif self._status and os.WIFSIGNALED(self._status):
            crash = f"the check crashed with {signal.Signals(os.WTERMSIG(self._status)).name}"
            yield Finding(name, "fault", crash, "a driver or library that it uses is broken; install it again")

    def close(self) -> None:
        """Kill the process and all that it started, and wait up to REAP_S for its end."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        until_s = time.monotonic() + REAP_S
        while self._status is None:
            self._reap()
            # Kill its group even if the process has ended, because processes that it started may still run.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            if self._status is None:
                if time.monotonic() >= until_s:
                    return
                time.sleep(POLL_S)

    def _reap(self) -> None:
        """Note the exit status if the process has ended."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        self._status = status if pid else None

    def _read(self) -> tuple[bytes, bool]:
        """What the process wrote before the deadline, and whether that is all."""
        output = b""
        while select.select([self._pipe], [], [], max(0.0, self._deadline_s - time.monotonic()))[0]:
            if not (part := os.read(self._pipe, PIPE_BYTES)):
                self._await_exit()
                return output, True
            output += part
        return output, False

    def _await_exit(self) -> None:
        """Wait up to REAP_S for a process that has closed its pipe: killed now, it would lose its own exit status."""
        until_s = time.monotonic() + REAP_S
        while self._status is None and time.monotonic() < until_s:
            self._reap()
            if self._status is None:
                time.sleep(POLL_S / 2)


def _run_in_child(check: Check, pipe: int) -> None:
    """The whole life of the forked process; does not return."""
    status = 1
    try:
        os.setsid()  # a process group of its own, so that it can be killed with all that it starts
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):  # libraries print (ALSA does); that is not a finding
            os.dup2(null, standard)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for finding in check.run():
            _write(pipe, finding)
        status = 0
    except BaseException as error:  # noqa: BLE001, RUF100 - any failure of a check is a finding
        what = " ".join(f"the check failed: {type(error).__name__}: {error}".split())
        do = "check what the message names; if that is in order, report this line as a bug"
        _write(pipe, Finding(check.name, "fault", what, do))
    finally:
        os._exit(status)


def _write(pipe: int, finding: Finding) -> None:
    line = msgspec.json.encode(finding) + b"\n"
    while line:
        line = line[os.write(pipe, line) :]
