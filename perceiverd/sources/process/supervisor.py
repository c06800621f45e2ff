"""Runs each source in a process of its own and keeps it running.

Belongs to one thread. `poll` never blocks longer than its caller allows. Any fault of a source shows here as silence or
an exit, and there is one answer: kill the process, wait, start another.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import zmq

from perceiverd.core.clock import Clock, now_ns
from perceiverd.core.errors import WireError
from perceiverd.core.logs import log_event
from perceiverd.core.media import NS_PER_S, MediaFormat
from perceiverd.core.paths import SOCKET_PATH_BYTES
from perceiverd.sources.process.arrivals import Arrival, Key, Modality, SourceState
from perceiverd.sources.process.protocol import SUPERVISOR_QUEUED, most_queued, unpacked
from perceiverd.sources.process.restart import Action, Reason, Timeouts
from perceiverd.sources.process.source_process import SourceProcess
from perceiverd.sources.snapshots.requests import MediaRequest, SnapshotOptions, SoundRequest
from perceiverd.sources.specs import Source, secrets_of

logger = logging.getLogger("perceiverd.sources")

POLL_MESSAGES = 256
"""Messages that one `poll` reads at most, so that a source that floods cannot keep the loop from its other work."""
TERM_S = 1.0
"""When the supervisor closes, workers get this long to leave by themselves; then it kills them."""
KILL_S = 2.0
"""How long it waits for the end of a killed worker."""
LEAVING_MS = 10
"""While new sources wait for old ones to leave, `poll` looks for their end this often."""
EXITS_MS = 100
"""An exit sends no message, so `poll` looks for exits this often."""


class Supervisor:
    """A context manager: the workers start with the first `poll` and are gone when it exits."""

    def __init__(
        self,
        sources: Mapping[Key, Source],
        wanted: MediaFormat,
        *,
        secrets: Mapping[str, str] = MappingProxyType({}),
        snapshots: Mapping[str, SnapshotOptions] = MappingProxyType({}),
        limits: Timeouts = Timeouts(),  # noqa: B008 - frozen
        runtime_dir: Path | None = None,
        clock: Clock = now_ns,
    ) -> None:
        """`secrets` are what the sources refer to; `snapshots` has the streams whose snapshots may be requested.

        `runtime_dir` is where the private directory of the socket is made: the system's temporary directory if None.
        Raises KeyError if a secret is missing.
        """
        self._wanted, self._limits, self._clock, self._runtime_dir = wanted, limits, clock, runtime_dir
        self._arrivals: list[Arrival] = []
        self._processes = self._made(sources, secrets, snapshots)
        self._by_token = {process.token: process for process in self._processes}
        self._leaving: list[SourceProcess] = []
        """Sources that were removed, whose process may still hold its device."""
        self._left_ns = 0
        """When the newest of them was asked to leave."""
        self.refused = 0
        """Messages that no worker of ours can have sent, and the last messages of workers that were asked to leave."""

    def __enter__(self) -> Self:
        try:
            self._directory = Path(tempfile.mkdtemp(prefix="perceiverd-", dir=self._runtime_dir))  # mode 0700
        except OSError as error:
            raise WireError(f"{error.filename}: cannot be made ({error.strerror}); check the directory") from None
        path = self._directory / "sources"
        self._endpoint = f"ipc://{path}"
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, most_queued(self._wanted, SUPERVISOR_QUEUED))
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
                raise WireError(f"{path}: is too long for a socket; set TMPDIR to a shorter directory")
            self._socket.bind(self._endpoint)
        except (zmq.ZMQError, WireError) as error:
            self._close_socket()
            raise WireError(str(error)) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = [each for each in (*self._processes, *self._leaving) if each.process]
        for each in running:
            each.terminate()
        _reap(running, TERM_S)
        for each in running:
            each.kill()
        _reap(running, KILL_S)
        for each in running:
            if each.process:
                log_event(logger, logging.ERROR, "worker-unkillable", stream=each.key[0], pid=each.process.pid)
        self._close_socket()

    def exchange(
        self,
        sources: Mapping[Key, Source],
        secrets: Mapping[str, str] = MappingProxyType({}),
        snapshots: Mapping[str, SnapshotOptions] = MappingProxyType({}),
    ) -> Set[Key]:
        """Run these sources from now on; returns the keys of the sources that were removed or restarted.

        A source that stays the same keeps its process. The others are asked to leave. New ones start once those have
        left, because they may want the same device. Raises KeyError if a secret is missing.
        """
        before = {process.key: process for process in self._processes}
        after = {process.key: process for process in self._made(sources, secrets, snapshots)}
        for key, process in before.items():
            if key in after and after[key].does_the_same_as(process):
                after[key] = process
        gone = [process for key, process in before.items() if after.get(key) is not process]
        self._processes = list(after.values())
        self._by_token = {process.token: process for process in self._processes}
        for process in gone:
            log_event(logger, logging.INFO, "source-leaving", stream=process.key[0], source=process.name)
            if process.process:
                process.terminate()
                self._leaving.append(process)
                self._left_ns = self._clock()
        return {process.key for process in gone}

    def poll(self, timeout_ms: int) -> list[Arrival]:
        """What has come, of at most 256 messages; waits up to `timeout_ms`, and only if nothing has come."""
        # We judge silence only after reading: otherwise, after a long turn of the caller's loop, we would kill workers
        # that are well. ZeroMQ reads from each worker in turn, so all of them get through even in a flood.
        self._read()
        self._tend()
        if not self._arrivals and self._socket.poll(self._wait_ms(timeout_ms), zmq.POLLIN):
            self._read()
            self._tend()
        arrivals = self._arrivals.copy()
        self._arrivals.clear()
        return arrivals

    def restart(self, key: Key, reason: Reason, detail: str) -> bool:
        """Kill this source's process and start another, as after a loss; False if the source is not up.

        Raises KeyError if there is no such source.
        """
        process = {process.key: process for process in self._processes}[key]
        if process.process is None or not process.supervision.condemn(reason, detail):
            return False
        process.kill()
        return True

    def request_media(self, stream: str, request: MediaRequest) -> bool:
        """Have this stream's first source with video, or with audio for a sound, write it; False if none can now."""
        wanted: Modality = "audio" if isinstance(request, SoundRequest) or request.sound else "video"
        able = (each for each in self._processes if each.key[0] == stream and wanted in each.modalities)
        process = min(able, key=lambda each: each.key, default=None)
        return process is not None and process.request_media(request)

    def state(self, stream: str) -> tuple[SourceState, ...]:
        """The condition of each source of a stream, by position."""
        now_ns = self._clock()
        return tuple(process.state(now_ns) for process in self._processes if process.key[0] == stream)

    def _made(
        self, sources: Mapping[Key, Source], secrets: Mapping[str, str], snapshots: Mapping[str, SnapshotOptions]
    ) -> list[SourceProcess]:
        return [
            SourceProcess(key, source, secrets, self._limits, snapshots.get(key[0]), self._arrivals.append)
            for key, source in sources.items()
        ]

    def _wait_ms(self, timeout_ms: int) -> int:
        """How long to wait for a message: until something else is due, at most `timeout_ms`."""
        if self._must_wait:
            return min(timeout_ms, LEAVING_MS)
        now = self._clock()
        due = [ns for process in self._processes if (ns := process.supervision.next_ns()) is not None]
        # Rounded up, or the loop would spin through the last millisecond.
        until_due = [max(0, -((now - ns) // 1_000_000)) for ns in due]
        return min([timeout_ms, EXITS_MS, *until_due])

    def _read(self) -> None:
        """Read the messages that have come."""
        for _ in range(POLL_MESSAGES):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._receive(parts)

    def _receive(self, parts: list[bytes]) -> None:
        try:
            header, item = unpacked(parts)
        except WireError:
            self.refused += 1
            return
        process = self._by_token.get(header.token)
        if process is None or not process.receive(header, item, self._clock()):
            self.refused += 1

    def _tend(self) -> None:
        """Reap, kill and launch what is due."""
        self._see_off()
        for process in self._processes:
            now = self._clock()
            if process.has_exited():
                process.exited(now)
            match process.supervision.due(now, process.waited_ns) if process.exit_seen_ns is None else None:
                case Action.KILL:
                    process.kill()
                case Action.LAUNCH if process.process is None and not self._must_wait:
                    process.launch(now, self._wanted, self._endpoint, self._environment())
            process.report_state()

    @property
    def _must_wait(self) -> bool:
        """Whether a start must wait for sources that leave; not for those that cannot be killed."""
        return bool(self._leaving) and self._clock() < self._left_ns + round((TERM_S + KILL_S) * NS_PER_S)

    def _see_off(self) -> None:
        """Reap the sources that have left, and kill those that were asked more than TERM_S ago."""
        for process in self._leaving:
            if process.has_exited():
                process.release()
            elif self._clock() >= self._left_ns + round(TERM_S * NS_PER_S):
                process.kill()
        self._leaving = [process for process in self._leaving if process.process]

    def _environment(self) -> dict[str, str]:
        """The daemon's, without what holds secrets of any source: FFmpeg parses data from strangers."""
        hidden = {name for process in self._processes for name in secrets_of(process.source)}
        hidden.add("CREDENTIALS_DIRECTORY")
        return {name: value for name, value in os.environ.items() if name not in hidden}

    def _close_socket(self) -> None:
        self._socket.close()
        self._context.term()
        shutil.rmtree(self._directory, ignore_errors=True)


def _reap(processes: Sequence[SourceProcess], within_s: float) -> None:
    """Wait for the end of these processes, at most `within_s` for all of them together."""
    deadline_s = time.monotonic() + within_s
    for each in processes:
        if each.process:
            try:
                each.process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
            each.release()
