"""Log lines on standard output: one for each thing that happened, `what key=value ...`.

For people and files with the time in UTC. Under systemd with the priority in place of it, as journald takes it
(`<4>perceiverd.daemon windows-dropped stream=door ...`), so that `journalctl -p warning` shows what matters.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""syslog's, by ours."""
STDOUT = 1
"""The descriptor, which is there even where sys.stdout was replaced by something that has none."""


class Plain(logging.Formatter):
    """`2026-01-31T12:00:00.000Z WARNING perceiverd.daemon what key=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime


class Journal(logging.Formatter):
    """`<4>perceiverd.daemon what key=value`; each line of a traceback has the priority too."""

    def __init__(self) -> None:
        super().__init__("%(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        priority = PRIORITIES.get(record.levelno, PRIORITIES[logging.INFO])
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def journaled(descriptor: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether journald reads what is written there: systemd names the journal's socket by device and inode."""
    try:
        there = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def to_stdout() -> None:
    """Send the log there, from INFO on, in the form that suits who reads it."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Journal() if journaled(STDOUT) else Plain())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
