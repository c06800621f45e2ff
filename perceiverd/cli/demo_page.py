"""`perceiverd demo --web`: the bundled clip in a loop, with its history and its page, until Ctrl-C.

Four processes as in service: daemon, history and page, and this one, which starts and stops them. What they store is in
a temporary folder, which is removed at the end.
"""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import tomli_w

from perceiverd.cli.console import EXIT_INTERRUPTED
from perceiverd.core.errors import ConfigError, PerceiverdError
from perceiverd.core.paths import shipped_config
from perceiverd.daemon.spawn import SpawnedDaemon

STARTUP_S = 180.0
"""How long each program may take to start, from a cold disk."""
STOP_S = 15.0
"""How long one may take to stop, before it is killed."""
POLL_S = 0.2
PAGE = re.compile(r" web-started page=(\S+)")
RECORDING = re.compile(r" history-started ")
ADVICE = """The page: {page}
The clip plays in a loop, as a live stream. A dog barks after 4 s of it, so after half a minute try this:
  Search, type `bark`, press Enter, open the event: see and hear the dog, and read why the event began.
What the page stores is removed at the end. Ctrl-C ends it."""


class SpawnedProgram:
    """One of our commands as a process with its log in a file; `with` stops it at the end."""

    def __init__(self, name: str, log: Path, *arguments: str) -> None:
        """`name` is what errors call it."""
        self.name, self._log = name, log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "perceiverd", *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raises PerceiverdError with its last line if it has ended."""
        if (status := self._process.poll()) is not None:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise PerceiverdError(f"{self.name} ended with status {status}; its last line: {''.join(last)}")

    def logged(self, line: re.Pattern[str]) -> re.Match[str]:
        """Wait for a line of its log. Raises PerceiverdError if it ends or takes too long."""
        deadline_s = time.monotonic() + STARTUP_S
        while time.monotonic() < deadline_s:
            if found := line.search(self._log.read_text(errors="replace")):
                return found
            self.check()
            time.sleep(POLL_S)
        raise PerceiverdError(f"{self.name} did not start within {STARTUP_S:g} s")


def demo_page() -> int:
    """Run until Ctrl-C. Raises PerceiverdError if a program does not start or ends by itself."""
    if importlib.util.find_spec("starlette") is None or importlib.util.find_spec("uvicorn") is None:
        raise PerceiverdError("the page needs an extra: pip install 'perceiverd[web]'")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the other programs must not outlive this one
    try:
        with tempfile.TemporaryDirectory(prefix="perceiverd-demo-") as folder, ExitStack() as programs:
            _serve(Path(folder), programs)
    except KeyboardInterrupt:
        pass
    return EXIT_INTERRUPTED


def _serve(folder: Path, programs: ExitStack) -> None:
    print("starting perceiverd, its history and its page ...", flush=True)
    daemon = programs.enter_context(SpawnedDaemon(_config(folder), STARTUP_S))
    endpoint = f"demo={daemon.endpoint()}"
    stored = str(folder / "history")
    recorded = ["history", "run", "--endpoint", endpoint, "--directory", stored]
    history = programs.enter_context(SpawnedProgram("the history", folder / "history.log", *recorded))
    history.logged(RECORDING)
    served = ["web", "--endpoint", endpoint, "--history", stored, "--media", str(folder / "media")]
    served += ["--corrections", str(folder / "corrections"), "--listen", "127.0.0.1:*"]
    page = programs.enter_context(SpawnedProgram("the page", folder / "web.log", *served))
    print(ADVICE.format(page=page.logged(PAGE)[1]), flush=True)
    while daemon.is_running:
        history.check()
        page.check()
        time.sleep(POLL_S)
    raise PerceiverdError(f"the daemon ended; its last line: {daemon.last_lines(1)}")


def _config(folder: Path) -> Path:
    """A configuration that plays the clip in a loop, and keeps pictures, clips and the recent sound."""
    if (clip := shipped_config("demo/clip.mp4")) is None:
        raise ConfigError("configs/demo/clip.mp4 is missing; it is part of perceiverd: reinstall the package")
    snapshots = {"on_event": True, "directory": str(folder / "media"), "before_s": 2.0, "after_s": 4.0}
    config = {
        "publish": {"endpoint": "tcp://127.0.0.1:*"},
        "snapshots": {**snapshots, "recent_hours": 1.0},
        "streams": {"demo": {"sources": [{"kind": "file", "path": str(clip.resolve()), "loop": True}]}},
    }
    path = folder / "perceiverd.toml"
    path.write_text(tomli_w.dumps(config), encoding="utf-8")
    return path
