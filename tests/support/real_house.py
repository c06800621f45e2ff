"""A real daemon that plays the bundled clip, a real history and a real page: `perceiverd demo --web`."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.pages import PageProcess, until
from tests.support.program import PROGRAM

PAGE = re.compile(r"The page: http://127\.0\.0\.1:(\d+)/")
INTERRUPTED = 130
STOP_S = 60


@contextmanager
def real_house(folder: Path) -> Iterator[PageProcess]:
    """The clip is the stream `demo` of the machine `demo`. At the end it is interrupted, as by Ctrl-C."""
    log = folder / "demo.log"
    with log.open("w") as output:
        process = subprocess.Popen([*PROGRAM, "demo", "--web"], stdout=output, stderr=output)
    try:
        until(lambda: PAGE.search(log.read_text()) or process.poll() is not None, log=log)
        found = PAGE.search(log.read_text())
        assert found, log.read_text()
        yield PageProcess(process, log, int(found[1]))
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_S) == INTERRUPTED, log.read_text()
    finally:
        process.terminate()
        process.wait()
