"""Runs each source in a process of its own and keeps it running.

Belongs to one thread, and blocks no longer than it is told to.
Whatever goes wrong in a source shows here as silence or death, and one mechanism answers: kill, wait, start again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType, TracebackType
from typing import Literal, Self

import msgspec
import zmq

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.errors import Refused, WireError
from perceiverd.core.logs import LogLimit
from perceiverd.core.media import NS_PER_S, Frame, Media, MediaFormat, Timing
from perceiverd.sources.process.protocol import RUNNER_QUEUED, Header, StartRequest, unpacked
from perceiverd.sources.process.restart import Do, Reason, State, Supervision, Timeouts
from perceiverd.sources.snapshots.requests import SnapshotOptions, SnapshotRequest
from perceiverd.sources.specs import Camera, Microphone, Source, Url, name_of, secrets_of

log = logging.getLogger(__name__)

PLUGGED_CAP_S = 6.0
"""With this cap on the back-off a camera or microphone is back within 10 s of its return."""
MOST_MESSAGES = 256
"""Taken in one `poll`, so that a source that floods can't keep the loop from its other work."""
LAST_WORD_NS = NS_PER_S // 2
"""The exit status is seen at once, the last message may still be on its way: it is waited for this long."""
TERM_S = 1.0
"""What children are given to leave by themselves when the runner closes; then they are killed."""
KILL_S = 2.0
HELD_MS = 10
"""How often is looked for the end of what is leaving, while others wait for it."""
URL_CAP_S = 3.0
"""A camera that is back should be seen within 10 s: this, a call that it had missed (5 s), and opening it (2 s).
Only for one that nobody answers: what is refused can wait."""
LOGIN_CAP_S = 300.0
"""A user name or password that is wrong stays so until somebody corrects it, and cameras lock accounts."""
IPC_PATH_BYTES = 107
"""What fits into sockaddr_un."""

Modality = Literal["audio", "video"]
Key = tuple[str, int]
"""Name of the stream, position of the source in it."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """A source does something else now."""

    state: State
    detail: str
    """Why, where it was lost; otherwise empty."""


@dataclass(frozen=True, slots=True)
class Discontinuity:
    """Time has been lost, or has jumped: what comes next does not follow on what came before."""

    modalities: tuple[Modality, ...]
    """Those that the source has delivered since it was last lost."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What `poll` returns: something of one source."""

    stream: str
    position: int
    what: Media | StateChange | Discontinuity


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source is, for status messages."""

    stream: str
    position: int
    source: str
    """Path or URL without its password, or the kind."""
    state: State
    detail: str
    """Why it was last lost; empty where it never was."""
    pid: int | None
    data_age_s: float | None
    """Since the last frame or chunk; None before the first."""
    losses: Mapping[Reason, int]
    """How often it was lost and started again, by reason."""
    dropped: int
    """Items that it had to throw away because the daemon was behind."""
    stale: int
    """Items of a lost process that came after its end, and were discarded."""
    kept: int = 0
    """Snapshots that it put on disk."""
    unkept: int = 0
    """Snapshots that it was asked for in vain."""
    timing: Timing | None = None
    """What its processes found out about the device's clock, the steps of all of them; None where it has none."""


class _Child:
    """One source's process and what is known of it."""

    def __init__(
        self,
        key: Key,
        source: Source,
        secrets: Mapping[str, str],
        limits: Timeouts,
        keep: SnapshotOptions | None = None,
    ) -> None:
        self.key, self.source, self.supervision = key, source, Supervision(_limits(source, limits))
        self.secrets = {name: secrets[name] for name in secrets_of(source)}
        self.token = token_hex(8)
        self.incarnation = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.told: State | None = None
        self.log_limit, self.loss_logged = LogLimit(), True
        self.modalities: set[Modality] = set()
        self.data_ns: int | None = None
        self.exit_seen_ns: int | None = None
        self.last_word: Header | None = None
        self.keep = keep
        self.kept = self.unkept = 0
        self.dropped_before = self.dropped_now = self.stale = 0
        self.steps_before = self.steps_now = self.overflows_before = self.overflows_now = 0
        self.timing: Timing | None = None

    @property
    def state(self) -> State:
        return self.supervision.state

    @property
    def ordered(self) -> tuple[Source, Mapping[str, str], SnapshotOptions | None]:
        """What its process was told to do."""
        return self.source, self.secrets, self.keep


class Supervisor:
    """A context manager: the children start with the first `poll` and are gone when it exits."""

    def __init__(
        self,
        sources: Mapping[Key, Source],
        wanted: MediaFormat,
        *,
        secrets: Mapping[str, str] = MappingProxyType({}),
        keeps: Mapping[str, SnapshotOptions] = MappingProxyType({}),
        limits: Timeouts = Timeouts(),  # noqa: B008 - frozen
        runtime_dir: Path | None = None,
        clock: Clock = now_ns,
    ) -> None:
        """`secrets` are what the sources refer to; `keeps` says of which streams pictures may be asked for.

        Raises KeyError where a secret is missing.

        `runtime_dir` is where the private directory of the socket is made; the system's temporary one where None.
        """
        self._wanted, self._limits, self._clock, self._runtime_dir = wanted, limits, clock, runtime_dir
        self._children = [_Child(key, source, secrets, limits, keeps.get(key[0])) for key, source in sources.items()]
        self._by_token = {child.token: child for child in self._children}
        self._leaving: list[_Child] = []
        """No longer wanted and told to go, with a process that may still hold its device."""
        self._left_ns = 0
        """When the newest of them was told."""
        self.refused = 0
        """Messages that no child of ours can have sent, and the last of those that were told to leave."""

    def __enter__(self) -> Self:
        try:
            self._directory = Path(tempfile.mkdtemp(prefix="perceiverd-", dir=self._runtime_dir))  # mode 0700
        except OSError as error:
            raise WireError(f"{error.filename}: cannot be made ({error.strerror}); check the directory") from None
        path = self._directory / "sources"
        self._endpoint = f"ipc://{path}"
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, RUNNER_QUEUED)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            if len(os.fsencode(path)) > IPC_PATH_BYTES:
                raise WireError(f"{path}: is too long for a socket; set TMPDIR to a shorter directory")
            self._socket.bind(self._endpoint)
        except (zmq.ZMQError, WireError) as error:
            self._close_socket()
            raise WireError(str(error)) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = [child for child in (*self._children, *self._leaving) if child.process]
        for child in running:
            assert child.process
            child.process.terminate()
        self._reap(running, TERM_S)
        for child in (still := [child for child in running if child.process]):
            assert child.process
            child.process.kill()
        self._reap(still, KILL_S)
        for child in still:
            if child.process:
                log.error("stream=%s pid=%d cannot_be_killed=true", child.key[0], child.process.pid)
        self._close_socket()

    def exchange(
        self,
        sources: Mapping[Key, Source],
        secrets: Mapping[str, str] = MappingProxyType({}),
        keeps: Mapping[str, SnapshotOptions] = MappingProxyType({}),
    ) -> Set[Key]:
        """Run these sources from now on; returns the keys of those that had to go or to begin anew.

        What is the same goes on, and knows of nothing. The others are told to leave, and what is new starts once they
        have: it may want the device that they hold. Raises KeyError where a secret is missing.
        """
        before = {child.key: child for child in self._children}
        after = {key: _Child(key, source, secrets, self._limits, keeps.get(key[0])) for key, source in sources.items()}
        for key, child in before.items():
            if key in after and after[key].ordered == child.ordered:
                after[key] = child
        gone = [child for key, child in before.items() if after.get(key) is not child]
        self._children = list(after.values())
        self._by_token = {child.token: child for child in self._children}
        for child in gone:
            log.info("stream=%s source=%s leaving=true", child.key[0], name_of(child.source))
            if child.process:
                child.process.terminate()
                self._leaving.append(child)
                self._left_ns = self._clock()
        return {child.key for child in gone}

    def poll(self, timeout_ms: int) -> list[Arrival]:
        """What has come, at most 256 messages; waits no longer than `timeout_ms` and only while there is nothing."""
        arrivals: list[Arrival] = []
        # Silence is judged only after listening, or a loop that was busy for long would kill children that are well.
        # ZeroMQ takes from each of them in turn, so all who have something to say are heard even in a flood.
        self._listen(arrivals)
        self._tend(arrivals)
        if not arrivals and self._socket.poll(self._wait_ms(timeout_ms), zmq.POLLIN):
            self._listen(arrivals)
            self._tend(arrivals)
        return arrivals

    def restart(self, key: Key, reason: Reason, detail: str) -> bool:
        """Kill this source's process and start another, as if it had been lost; False where it isn't up.

        Raises KeyError where there is no such source.
        """
        child = {child.key: child for child in self._children}[key]
        if child.process is None or not child.supervision.condemned(reason, detail):
            return False
        child.process.kill()
        return True

    def ask(self, stream: str, ask: SnapshotRequest) -> bool:
        """Have a picture of this stream kept by the source that gives pictures; False where none can be asked now."""
        children = (child for child in self._children if child.key[0] == stream and "video" in child.modalities)
        child = min(children, key=lambda each: each.key, default=None)
        if child is None or child.keep is None or child.process is None or child.process.stdin is None:
            return False
        try:
            # Less than PIPE_BUF, so all of it or, where the pipe is full, nothing.
            return bool(child.process.stdin.write(msgspec.json.encode(ask) + b"\n"))
        except BrokenPipeError:
            return False

    def state(self, stream: str) -> tuple[SourceState, ...]:
        """How the sources of a stream are, by position."""
        return tuple(self._state(child) for child in self._children if child.key[0] == stream)

    def _state(self, child: _Child) -> SourceState:
        age_ns = None if child.data_ns is None else self._clock() - child.data_ns
        return SourceState(
            stream=child.key[0],
            position=child.key[1],
            source=name_of(child.source),
            state=child.state,
            detail=child.supervision.detail,
            pid=child.process.pid if child.process else None,
            data_age_s=None if age_ns is None else age_ns / NS_PER_S,
            losses=Counter(child.supervision.losses),
            dropped=child.dropped_before + child.dropped_now,
            stale=child.stale,
            kept=child.kept,
            unkept=child.unkept,
            timing=child.timing
            and replace(
                child.timing,
                steps=child.steps_before + child.steps_now,
                overflows=child.overflows_before + child.overflows_now,
            ),
        )

    def _wait_ms(self, timeout_ms: int) -> int:
        """Until something is due; deaths make no sound, so they are looked for 10 times a second."""
        if self._held:
            return min(timeout_ms, HELD_MS)
        now = self._clock()
        due = [ns for child in self._children if (ns := child.supervision.next_ns()) is not None]
        # Rounded up, or the loop would spin through the last millisecond.
        until_due = [max(0, -((now - ns) // 1_000_000)) for ns in due]
        return min([timeout_ms, 100, *until_due])

    def _listen(self, arrivals: list[Arrival]) -> None:
        for _ in range(MOST_MESSAGES):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(parts, arrivals)

    def _tend(self, arrivals: list[Arrival]) -> None:
        """Reap, kill and launch what is due."""
        self._see_off()
        for child in self._children:
            now = self._clock()
            if child.process and child.process.poll() is not None:
                self._exited(child, now, arrivals)
            match child.supervision.due(now) if child.exit_seen_ns is None else None:
                case Do.KILL if child.process:
                    child.process.kill()
                case Do.LAUNCH if child.process is None and not self._held:
                    self._launch(child, now, arrivals)
            self._tell(child, arrivals)

    @property
    def _held(self) -> bool:
        """Whether starting has to wait for what is leaving; for what can't be killed it does not."""
        return bool(self._leaving) and self._clock() < self._left_ns + round((TERM_S + KILL_S) * NS_PER_S)

    def _see_off(self) -> None:
        """Reap what has left, and kill what was told a while ago."""
        for child in self._leaving:
            assert child.process
            if child.process.poll() is not None:
                self._release(child)
            elif self._clock() >= self._left_ns + round(TERM_S * NS_PER_S):
                child.process.kill()
        self._leaving = [child for child in self._leaving if child.process]

    def _environment(self) -> dict[str, str]:
        """The daemon's, without what any source's secrets are looked up in: FFmpeg reads what strangers send."""
        hidden = {name for child in self._children for name in secrets_of(child.source)} | {"CREDENTIALS_DIRECTORY"}
        return {name: value for name, value in os.environ.items() if name not in hidden}

    def _launch(self, child: _Child, now: int, arrivals: list[Arrival]) -> None:
        child.last_word = None
        order = StartRequest(
            *(child.source, self._wanted, self._endpoint, child.token, child.incarnation, child.secrets, child.keep)
        )
        child.supervision.launched(now)
        self._tell(child, arrivals)
        try:
            child.process = subprocess.Popen(
                [sys.executable, "-m", "perceiverd.sources.process.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # what a library prints there is not for the daemon's own output
                bufsize=0,
                env=self._environment(),
                process_group=0,  # a Ctrl-C in the daemon's terminal doesn't reach it
            )
        except OSError as error:  # no process or memory to be had right now
            self._lost(child, now, "exited", f"cannot be started ({error.strerror})", arrivals)
            return
        assert child.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has died already, as will be seen
            # Fits into the pipe's buffer, so it can't block. The pipe stays open: its closing ends the child.
            child.process.stdin.write(msgspec.json.encode(order) + b"\n")
            os.set_blocking(child.process.stdin.fileno(), False)

    def _exited(self, child: _Child, now: int, arrivals: list[Arrival]) -> None:
        """Judge a death, once its last word has come or can't come any more."""
        assert child.process
        status = child.process.returncode
        word = child.last_word
        if child.exit_seen_ns is None:
            child.exit_seen_ns = now
        if word is None and status >= 0 and now - child.exit_seen_ns < LAST_WORD_NS and child.state != State.STALLED:
            return
        self._release(child)
        # A loop that is busy for seconds when a file ends misses the last word: a child waits only so long for room.
        if (word is not None and word.kind == "ended") or (word is None and status == 0):
            child.supervision.ended()
        elif word is not None:
            self._lost(child, now, "failed", word.message, arrivals, word.refused)
        elif child.state is State.STALLED:
            self._lost(child, now, child.supervision.killed_for, child.supervision.detail, arrivals)
        else:
            how = f"ended by signal {-status}" if status < 0 else f"exited with status {status}"
            self._lost(child, now, "exited", how, arrivals)

    def _lost(
        self, child: _Child, now: int, reason: Reason, detail: str, arrivals: list[Arrival], refused: Refused = ""
    ) -> None:
        caps_s = {"login": LOGIN_CAP_S, "request": self._limits.backoff_cap_s}
        wait_s = child.supervision.lost(now, reason, detail, caps_s.get(refused))
        child.incarnation += 1  # from here on, what is still in the queue is stale
        child.dropped_before, child.dropped_now = child.dropped_before + child.dropped_now, 0
        child.steps_before, child.steps_now = child.steps_before + child.steps_now, 0
        child.overflows_before, child.overflows_now = child.overflows_before + child.overflows_now, 0
        if child.modalities:
            arrivals.append(Arrival(*child.key, Discontinuity(tuple(sorted(child.modalities)))))
            child.modalities.clear()  # a try that delivers nothing tears nothing
        suppressed = child.log_limit.admit(self._clock())
        child.loss_logged = suppressed is not None
        if suppressed is not None:
            log.warning(
                "stream=%s source=%s lost=%s detail=%r retry_s=%.1f suppressed=%d",
                *(child.key[0], name_of(child.source), reason, detail, wait_s, suppressed),
            )

    def _take(self, parts: list[bytes], arrivals: list[Arrival]) -> None:
        try:
            header, item = unpacked(parts)
        except WireError:
            self.refused += 1
            return
        child = self._by_token.get(header.token)
        if child is None or header.incarnation > child.incarnation:
            self.refused += 1
            return
        if header.incarnation < child.incarnation:
            child.stale += 1
            return
        child.dropped_now = header.dropped
        if header.kind in ("ended", "failed"):
            child.last_word = header
            return
        if header.kind == "kept":
            self._kept(child, header.message)
            return
        now = self._clock()
        child.supervision.heard(now, data=isinstance(item, Media))
        self._tell(child, arrivals)
        if header.steps > child.steps_now:
            self._stepped(child, header.steps, arrivals)
        if isinstance(item, Timing):
            child.timing, child.overflows_now = item, item.overflows
        elif item is not None:
            child.data_ns = now
            child.modalities.add("video" if isinstance(item, Frame) else "audio")
            arrivals.append(Arrival(*child.key, item))

    def _stepped(self, child: _Child, steps: int, arrivals: list[Arrival]) -> None:
        """The device's clock jumped: what comes now doesn't follow on what came before."""
        if child.modalities:
            arrivals.append(Arrival(*child.key, Discontinuity(tuple(sorted(child.modalities)))))
        new, child.steps_now = steps - child.steps_now, steps
        if (suppressed := child.log_limit.admit(self._clock())) is not None:
            log.warning(
                "stream=%s source=%s clock_steps=%d suppressed=%d",
                *(child.key[0], name_of(child.source), new, suppressed),
            )

    def _kept(self, child: _Child, why_not: str) -> None:
        if not why_not:
            child.kept += 1
            return
        child.unkept += 1
        if (suppressed := child.log_limit.admit(self._clock())) is not None:
            log.warning(
                "stream=%s source=%s snapshot_failed=%r suppressed=%d",
                *(child.key[0], name_of(child.source), why_not, suppressed),
            )

    def _tell(self, child: _Child, arrivals: list[Arrival]) -> None:
        """Report a change of state, once."""
        if child.state is child.told:
            return
        child.told = child.state
        detail = child.supervision.detail if child.state in (State.STALLED, State.BACKING_OFF) else ""
        arrivals.append(Arrival(*child.key, StateChange(child.state, detail)))
        # A recovery is told where the loss was; a loss is told in `_lost`.
        loud = child.state in (State.UP, State.ENDED) and child.loss_logged
        log.log(
            logging.INFO if loud else logging.DEBUG,
            "stream=%s source=%s state=%s",
            *(child.key[0], name_of(child.source), child.state),
        )

    def _reap(self, children: list[_Child], within_s: float) -> None:
        """Wait for the ends of these processes, together no longer than told."""
        deadline = time.monotonic() + within_s
        for child in children:
            if child.process:
                try:
                    child.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue
                self._release(child)

    def _release(self, child: _Child) -> None:
        if child.process and child.process.stdin:
            child.process.stdin.close()
        child.process, child.exit_seen_ns = None, None

    def _close_socket(self) -> None:
        self._socket.close()
        self._context.term()
        shutil.rmtree(self._directory, ignore_errors=True)


def _limits(source: Source, limits: Timeouts) -> Timeouts:
    """A URL has time-outs of its own; it gets 2 s more to say in words what is wrong before it is killed.

    What is plugged in here is looked for often: asking costs the network nothing, and it should be back at once.
    """
    if isinstance(source, Camera | Microphone):
        return replace(limits, backoff_cap_s=min(limits.backoff_cap_s, PLUGGED_CAP_S))
    if not isinstance(source, Url):
        return limits
    return replace(
        limits,
        open_s=max(limits.open_s, source.open_timeout_s + 2),
        read_s=max(limits.read_s, source.read_timeout_s + 2),
        backoff_cap_s=min(limits.backoff_cap_s, URL_CAP_S),
    )
