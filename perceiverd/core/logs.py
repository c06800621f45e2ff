"""Log lines on standard output, one per event: `event-name key=value key=value`.

A terminal or a file gets the time in UTC and the level. Under systemd each line starts with its priority instead, as
journald expects (`<4>perceiverd.daemon windows-dropped stream=door ...`), so `journalctl -p warning` filters by it.
`core/log_events.py` lists every event with its meaning.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""The priority in syslog's numbers for each level of `logging`."""
STDOUT, STDERR = 1, 2
"""File descriptors. Standard output exists even if `sys.stdout` was replaced by an object without one."""
BARE = re.compile(r"[^\s\"'=]+")
"""A value that needs no quotes."""

Value = str | int | float | bool | None | Sequence[str] | BaseException


def log_event(
    logger: logging.Logger, level: int, event: str, fault: BaseException | None = None, /, **fields: Value
) -> None:
    """Log one event: its name, a key of `log_events.EVENTS`, then `key=value` for each field, in order.

    A string is quoted if it is empty or has spaces, quotes or `=`; None is written `-`, a list with commas (`-` if
    empty), a bool `true` or `false`. Format a float first if the number of its digits matters. The traceback of `fault`
    follows, if it is given: only for faults of the program itself.
    """
    _log(logger, level, event, fault, fields)


def _log(
    logger: logging.Logger, level: int, event: str, fault: BaseException | None, fields: Mapping[str, Value]
) -> None:
    if logger.isEnabledFor(level):
        line = " ".join((event, *(f"{key}={_written(value)}" for key, value in fields.items())))
        logger.log(level, "%s", line, exc_info=fault)


def _written(value: Value) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case str() | BaseException():
            text = str(value)
            return text if BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
        case int() | float():
            return str(value)
        case _:
            return _written(",".join(value) or "-")


class LogLimit:
    """Limits one kind of log line: a burst, then one line a minute, so that a flapping source cannot fill a disk."""

    BURST = 10
    EACH_NS = 60_000_000_000

    def __init__(self) -> None:
        self._left, self._since_ns, self._held = float(self.BURST), 0, 0

    def admit(self, now_ns: int) -> int | None:
        """None if this line must be held back; otherwise how many lines were held back since the last one written."""
        self._left = min(self.BURST, self._left + (now_ns - self._since_ns) / self.EACH_NS)
        self._since_ns = now_ns
        if self._left < 1:
            self._held += 1
            return None
        self._left -= 1
        held, self._held = self._held, 0
        return held


def log_limited(
    logger: logging.Logger, level: int, event: str, limit: LogLimit, now_ns: int, /, **fields: Value
) -> bool:
    """Log one event unless `limit` holds it back; whether it was logged.

    Its last field is `suppressed`: how many lines were held back since the last one.
    """
    if (suppressed := limit.admit(now_ns)) is None:
        return False
    _log(logger, level, event, None, fields | {"suppressed": suppressed})
    return True


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z WARNING perceiverd.daemon event-name key=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime


class JournalFormatter(logging.Formatter):
    """`<4>perceiverd.daemon event-name key=value`; each line of a traceback has the priority too."""

    def __init__(self) -> None:
        super().__init__("%(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        priority = PRIORITIES.get(record.levelno, PRIORITIES[logging.INFO])
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def journaled(descriptor: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether journald reads this descriptor: systemd names the journal's socket by device and inode."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def to_stdout() -> None:
    """Send log lines from INFO upwards to standard output, formatted for journald or for people."""
    _to(sys.stdout, STDOUT, str)


def to_stderr(cleaned: Callable[[str], str]) -> None:
    """The same to standard error, for a process whose standard output nobody reads; `cleaned` removes secrets."""
    _to(sys.stderr, STDERR, cleaned)


def _to(stream: TextIO, descriptor: int, cleaned: Callable[[str], str]) -> None:
    formatter = JournalFormatter() if journaled(descriptor) else TextFormatter()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Cleaned(formatter, cleaned))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class _Cleaned(logging.Formatter):
    """Another formatter's lines, with a last change to their text."""

    def __init__(self, formatter: logging.Formatter, cleaned: Callable[[str], str]) -> None:
        super().__init__()
        self._formatter, self._cleaned = formatter, cleaned

    def format(self, record: logging.LogRecord) -> str:
        return self._cleaned(self._formatter.format(record))
