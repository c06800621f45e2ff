"""One source and its worker process: start, messages, end, and the counts that outlast a process.

Knows no socket: the supervisor passes messages and the time. Nothing here blocks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from secrets import token_hex

import msgspec

from perceiverd.core.errors import Refused
from perceiverd.core.logs import LogLimit, log_event, log_limited
from perceiverd.core.media import NS_PER_S, Frame, Media, MediaFormat, Timing
from perceiverd.core.scheduler import waited_ns
from perceiverd.sources.process.arrivals import Arrival, Discontinuity, Key, Modality, SourceState, StateChange
from perceiverd.sources.process.protocol import Header, Item, StartRequest
from perceiverd.sources.process.restart import Reason, RunState, Supervision, Timeouts
from perceiverd.sources.snapshots.requests import MediaRequest, SnapshotOptions
from perceiverd.sources.specs import Camera, Microphone, Pipe, Source, Url, name_of, secrets_of

logger = logging.getLogger("perceiverd.sources")

WORKER: tuple[str, ...] = (sys.executable, "-P", "-m", "perceiverd.sources.process.worker")
"""The command of a worker process. With -P, no file in the working directory can take the place of a module."""
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
"""Signals of a process that did something impossible. Python code causes none of them, so FFmpeg or a driver did."""
PLUGGED_CAP_S = 6.0
"""Longest wait before a camera or microphone of this machine is tried again: with the time to
open it, it is usually back within 10 s of its return."""
URL_CAP_S = 3.0
"""Longest wait before a pipe whose writer has gone, or a URL that does not answer, is tried again. A camera that
returns is usually up within 10 s: a try that began too early, this wait, and opening. The time-outs bound each try."""
REPORT_S = 4.0
"""A URL's process has time-outs of its own. It gets this much more to connect (2 s) and to report what is wrong."""
LOGIN_CAP_S = 300.0
"""Longest wait after a refused login: it stays wrong until somebody corrects it, and cameras lock accounts."""
LAST_MESSAGE_NS = NS_PER_S // 2
"""We see the exit status at once, but the process's last message may still be on its way: we wait this long for it."""


@dataclass(slots=True)
class Total:
    """A count that each process starts at 0, summed over all processes of a source."""

    now: int = 0
    """The count of the current process."""
    before: int = 0
    """The sum over all processes before it."""

    def __int__(self) -> int:
        return self.before + self.now

    def restart(self) -> None:
        """The current process has ended."""
        self.before, self.now = int(self), 0


class SourceProcess:
    """One source, its worker process, and what is known of both."""

    def __init__(
        self,
        key: Key,
        source: Source,
        secrets: Mapping[str, str],
        limits: Timeouts,
        snapshots: SnapshotOptions | None,
        deliver: Callable[[Arrival], None],
    ) -> None:
        """`secrets` holds at least what the source refers to; `deliver` gets all that comes. Raises KeyError."""
        self.key, self.source, self.snapshots = key, source, snapshots
        self.secrets = {name: secrets[name] for name in secrets_of(source)}
        self.supervision = Supervision(timeouts_of(source, limits))
        self.token = token_hex(8)
        """Names this source in each message of its processes."""
        self.incarnation = 0
        """How many processes were lost so far; a message with a smaller number is stale."""
        self.process: subprocess.Popen[bytes] | None = None
        self.modalities: set[Modality] = set()
        """What it has delivered since it was last lost."""
        self.exit_seen_ns: int | None = None
        self._deliver, self._refused_cap_s = deliver, {"login": LOGIN_CAP_S, "request": limits.backoff_cap_s}
        self._last_message: Header | None = None
        self._reported: RunState | None = None
        self._log_limit, self._loss_logged = LogLimit(), True
        self._data_ns: int | None = None
        self._dropped, self._steps, self._overflows = Total(), Total(), Total()
        self._stale = self._snapshots = self._snapshots_failed = self._recent_ms = 0
        self._timing: Timing | None = None
        self._waiting_for = ""

    @property
    def name(self) -> str:
        """What log lines call the source; holds no secret."""
        return name_of(self.source)

    def does_the_same_as(self, other: SourceProcess) -> bool:
        """Whether both would start their processes with the same request."""
        mine, others = ((each.source, each.secrets, each.snapshots) for each in (self, other))
        return mine == others

    def launch(self, now_ns: int, wanted: MediaFormat, endpoint: str, environment: Mapping[str, str]) -> None:
        """Start a worker process that sends to this endpoint."""
        self._last_message = None
        self.supervision.launched(now_ns)
        self.report_state()
        descriptor = os.dup(0) if isinstance(self.source, Pipe) and self.source.is_standard_input else None
        try:
            self.process = subprocess.Popen(
                WORKER,
                stdin=subprocess.PIPE,
                pass_fds=() if descriptor is None else (descriptor,),
                stdout=subprocess.DEVNULL,  # what a library prints there must not mix with the daemon's own output
                bufsize=0,
                env=environment,
                process_group=0,  # a Ctrl-C in the daemon's terminal does not reach it
            )
        except OSError as error:  # no process or memory to be had right now
            self._lost(now_ns, "exited", f"cannot be started ({error.strerror})")
            return
        finally:
            if descriptor is not None:
                os.close(descriptor)
        request = StartRequest(
            *(self.source, wanted, endpoint, self.token, self.incarnation, self.secrets, self.snapshots),
            descriptor=descriptor,
            logs=logger.isEnabledFor(logging.INFO),
        )
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has died already; the next poll sees that
            # The line fits into the pipe's buffer, so the write cannot block. The pipe stays open, because the worker
            # ends when it closes.
            self.process.stdin.write(msgspec.json.encode(request) + b"\n")
            os.set_blocking(self.process.stdin.fileno(), False)

    def terminate(self) -> None:
        """Ask the process to leave, if there is one."""
        if self.process:
            self.process.terminate()

    def kill(self) -> None:
        """Kill the process, if there is one."""
        if self.process:
            self.process.kill()

    def has_exited(self) -> bool:
        """Whether there is a process and it is over."""
        return self.process is not None and self.process.poll() is not None

    def waited_ns(self) -> int:
        """How long the main thread of the process, which opens the device, has waited for a core."""
        return waited_ns(self.process.pid) if self.process else 0

    def release(self) -> None:
        """Forget a process that is over."""
        if self.process and self.process.stdin:
            self.process.stdin.close()
        self.process, self.exit_seen_ns = None, None

    def exited(self, now_ns: int) -> None:
        """Decide why the process ended, once its last message has come or can no longer come."""
        assert self.process
        status, message, supervision = self.process.returncode, self._last_message, self.supervision
        if self.exit_seen_ns is None:
            self.exit_seen_ns = now_ns
        stalled = supervision.state is RunState.STALLED
        if message is None and status >= 0 and now_ns - self.exit_seen_ns < LAST_MESSAGE_NS and not stalled:
            return
        self.release()
        # A caller that is busy for seconds when a file ends misses the last message: a worker waits only so long for
        # room in the queue. The exit status then says that the file has ended.
        if (message is not None and message.kind == "ended") or (message is None and status == 0):
            supervision.ended()
        elif message is not None:
            self._lost(now_ns, "failed", message.message, message.refused)
        elif stalled:
            self._lost(now_ns, supervision.kill_reason, supervision.detail)
        else:
            self._lost(now_ns, "exited", _how_it_ended(status))

    def receive(self, header: Header, item: Item | None, now_ns: int) -> bool:
        """Accept a message that has this source's token; False if no process of ours can have sent it."""
        if header.incarnation > self.incarnation:
            return False
        if header.incarnation < self.incarnation:
            self._stale += 1
            return True
        self._dropped.now = header.dropped
        match header.kind:
            case "ended" | "failed":
                self._last_message = header
            case "snapshot":
                self._snapshot_done(header.message, now_ns)
            case "sound":
                self._recent_done(header, now_ns)
            case _:
                self._accept(header, item, now_ns)
        return True

    def request_media(self, request: MediaRequest) -> bool:
        """Pass the request to the process; False if there is none that can take it."""
        if self.snapshots is None or self.process is None or self.process.stdin is None:
            return False
        try:
            # Less than PIPE_BUF: the kernel takes all of it or, if the pipe is full, nothing.
            return bool(self.process.stdin.write(msgspec.json.encode(request) + b"\n"))
        except BrokenPipeError:
            return False

    def report_state(self) -> None:
        """Deliver a change of state, once."""
        state = self.supervision.state
        if state is self._reported:
            return
        self._reported = state
        detail = self.supervision.detail if state in (RunState.STALLED, RunState.BACKING_OFF) else ""
        self._emit(StateChange(state, detail))
        # A recovery is logged if the loss was; the loss itself is logged in `_lost`.
        stream, loud = self.key[0], self._loss_logged
        match state:
            case RunState.UP:
                log_event(logger, logging.INFO if loud else logging.DEBUG, "source-up", stream=stream, source=self.name)
            case RunState.ENDED:
                log_event(
                    logger, logging.INFO if loud else logging.DEBUG, "source-ended", stream=stream, source=self.name
                )
            case _:
                log_event(logger, logging.DEBUG, "source-state", stream=stream, source=self.name, state=str(state))

    def state(self, now_ns: int) -> SourceState:
        """Its condition now."""
        supervision, timing = self.supervision, self._timing
        return SourceState(
            stream=self.key[0],
            position=self.key[1],
            source=self.name,
            state=supervision.state,
            detail=supervision.detail,
            pid=self.process.pid if self.process else None,
            data_age_s=None if self._data_ns is None else (now_ns - self._data_ns) / NS_PER_S,
            losses=Counter(supervision.losses),
            dropped=int(self._dropped),
            stale=self._stale,
            snapshots=self._snapshots,
            snapshots_failed=self._snapshots_failed,
            recent_s=self._recent_ms / 1000,
            waiting_for=self._waiting_for,
            timing=timing and replace(timing, steps=int(self._steps), overflows=int(self._overflows)),
        )

    def _accept(self, header: Header, item: Item | None, now_ns: int) -> None:
        self.supervision.received(now_ns, data=isinstance(item, Media))
        self.report_state()
        self._waits_for(header.message if header.kind == "alive" else "")
        if header.steps > self._steps.now:
            self._clock_stepped(header.steps, now_ns)
        if isinstance(item, Timing):
            self._timing, self._overflows.now = item, item.overflows
        elif item is not None:
            self._data_ns = now_ns
            self.modalities.add("video" if isinstance(item, Frame) else "audio")
            self._emit(item)

    def _waits_for(self, what: str) -> None:
        """The source waits for this; empty if it does not wait."""
        if what and what != self._waiting_for and self._loss_logged:
            name = self.name
            log_event(logger, logging.INFO, "source-waiting", stream=self.key[0], source=name, waits_for=what)
        self._waiting_for = what

    def _lost(self, now_ns: int, reason: Reason, detail: str, refused: Refused = "") -> None:
        wait_s = self.supervision.lost(now_ns, reason, detail, self._refused_cap_s.get(refused))
        self.incarnation += 1  # from here on, what is still in the queue is stale
        for total in (self._dropped, self._steps, self._overflows):
            total.restart()
        self._waiting_for = ""
        self._interrupt()
        self.modalities.clear()  # a try that delivers nothing interrupts nothing
        self._loss_logged = log_limited(
            logger,
            logging.WARNING,
            "source-lost",
            self._log_limit,
            now_ns,
            stream=self.key[0],
            source=self.name,
            reason=reason,
            detail=detail,
            retry_s=f"{wait_s:.1f}",
        )

    def _clock_stepped(self, steps: int, now_ns: int) -> None:
        """The device's clock jumped: what comes now does not continue what came before."""
        self._interrupt()
        new, self._steps.now = steps - self._steps.now, steps
        log_limited(
            logger,
            logging.WARNING,
            "clock-stepped",
            self._log_limit,
            now_ns,
            stream=self.key[0],
            source=self.name,
            steps=new,
        )

    def _snapshot_done(self, fault: str, now_ns: int) -> None:
        """The process reported a snapshot: `fault` is why there is none, or empty."""
        if not fault:
            self._snapshots += 1
            return
        self._snapshots_failed += 1
        log_limited(
            logger,
            logging.WARNING,
            "snapshot-failed",
            self._log_limit,
            now_ns,
            stream=self.key[0],
            source=self.name,
            reason=fault,
        )

    def _recent_done(self, header: Header, now_ns: int) -> None:
        """The process reported a stretch of recent sound."""
        self._recent_ms += header.sound_ms
        if not header.message:
            return
        self._snapshots_failed += 1
        log_limited(
            logger,
            logging.WARNING,
            "recent-sound-failed",
            self._log_limit,
            now_ns,
            stream=self.key[0],
            source=self.name,
            reason=header.message,
        )

    def _interrupt(self) -> None:
        if self.modalities:
            self._emit(Discontinuity(tuple(sorted(self.modalities))))

    def _emit(self, what: Media | StateChange | Discontinuity) -> None:
        self._deliver(Arrival(*self.key, what))


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    if -status in CRASHES:
        return f"FFmpeg or a driver has crashed on its data ({signal.Signals(-status).name})"
    return f"ended by signal {-status}"


def timeouts_of(source: Source, limits: Timeouts) -> Timeouts:
    """The time-outs of this source.

    A URL and a pipe have their own in the configuration: one to open, then one until the first data. Their processes
    keep them and are killed only if they hang. Devices of this machine are tried often: a try costs the network
    nothing, and they should be back at once.
    """
    if isinstance(source, Camera | Microphone):
        return replace(limits, backoff_cap_s=min(limits.backoff_cap_s, PLUGGED_CAP_S))
    if not isinstance(source, Url | Pipe):
        return limits
    return replace(
        limits,
        open_s=max(limits.open_s, source.open_timeout_s + source.read_timeout_s + REPORT_S),
        read_s=max(limits.read_s, source.read_timeout_s + REPORT_S),
        backoff_cap_s=min(limits.backoff_cap_s, URL_CAP_S),
    )
