"""A daemon in a child process, for programs that need one for a while: the demo and the load measurement.

It knows the daemon's command line and two of its log lines, and nothing of what happens inside.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from perceiverd.core.errors import PerceiverdError

STOP_S = 30.0
"""How long the daemon may take to stop after SIGTERM, before it is killed."""
POLL_S = 0.05
LISTENING = re.compile(r" publisher-listening endpoint=(\S+)")
SERVING_METRICS = re.compile(r" metrics-listening host=(\S+) port=(\d+)")


class SpawnedDaemon:
    """A daemon with this configuration; `with` stops it at the end."""

    def __init__(self, config: Path, startup_s: float) -> None:
        """`startup_s` is how long it may take until it listens: a cold disk, torch and the model."""
        self._startup_s = startup_s
        # A file, not a pipe: reading it needs no thread, and the daemon never waits for its reader.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        command = [sys.executable, "-m", "perceiverd", "run", "--config", str(config)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._log.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def endpoint(self) -> str:
        """The ZeroMQ endpoint, as soon as it is bound. Raises PerceiverdError if the daemon ends or takes too long."""
        return self._logged(LISTENING)[1]

    def metrics_url(self) -> str:
        """The URL of `/metrics`, as soon as it is served. Raises PerceiverdError as `endpoint` does."""
        found = self._logged(SERVING_METRICS)
        return f"http://{found[1]}:{found[2]}/metrics"

    def last_lines(self, count: int) -> str:
        """The last lines of its log."""
        return "\n".join(self._read().splitlines()[-count:]) or "(nothing)"

    def stop(self) -> int:
        """End it if it still runs, and return its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _logged(self, line: re.Pattern[str]) -> re.Match[str]:
        deadline_s = time.monotonic() + self._startup_s
        while time.monotonic() < deadline_s:
            running = self.is_running  # before the log is read, so that its last line is not missed
            if found := line.search(self._read()):
                return found
            if not running:
                status = self._process.returncode
                raise PerceiverdError(f"the daemon ended with status {status}; its last line: {self.last_lines(1)}")
            time.sleep(POLL_S)
        late = f"the daemon did not start within {self._startup_s:g} s"
        raise PerceiverdError(f"{late}; its last line: {self.last_lines(1)}")

    def _read(self) -> str:
        # The child shares the file's offset, so reading must not move it.
        file = self._log.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")
