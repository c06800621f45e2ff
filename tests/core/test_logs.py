"""Log lines for people and for journald."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perceiverd.core.logs import JournalFormatter, LogLimit, TextFormatter, Value, journaled, log_event, log_limited


def record(level: int, message: str, *, error: bool = False) -> logging.LogRecord:
    try:
        raise ZeroDivisionError("x")
    except ZeroDivisionError:
        info = sys.exc_info() if error else None
    return logging.LogRecord("perceiverd.x", level, __file__, 1, message, (), info)


def test_lines_for_people_have_the_time() -> None:
    """The time is UTC with milliseconds."""
    line = TextFormatter().format(record(logging.WARNING, "drops stream=door"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING perceiverd\.x drops stream=door", line)


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2), (35, 6)],
)
def test_lines_for_journald_have_the_priority(level: int, priority: int) -> None:
    """The priority is in front of the line; journald adds the time."""
    assert (
        JournalFormatter().format(record(level, "drops stream=door")) == f"<{priority}>perceiverd.x drops stream=door"
    )


def test_a_traceback_has_its_priority_on_every_line() -> None:
    """Each line has the priority; otherwise journald would log all but the first as information."""
    lines = JournalFormatter().format(record(logging.ERROR, "broken", error=True)).splitlines()
    assert len(lines) > 2
    assert all(line.startswith("<3>") for line in lines)


def test_the_journal_is_recognised_by_its_inode(tmp_path: Path) -> None:
    """A redirected or closed output is not the journal."""
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        there = os.fstat(journal.fileno())
        environment = {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"}
        assert journaled(journal.fileno(), environment)
        assert not journaled(other.fileno(), environment)
        assert not journaled(journal.fileno(), {})
    assert not journaled(9999, environment)


def test_a_worker_logs_on_standard_error_without_secrets() -> None:
    """Lines on standard error pass a function that removes secrets, tracebacks included."""
    code = (
        "from perceiverd.core import logs\n"
        "logs.to_stderr(lambda text: text.replace('hunter2', '***'))\n"
        "try:\n"
        "    raise ValueError('hunter2')\n"
        "except ValueError:\n"
        "    logs.logging.getLogger('x').info('opened url=%s', 'hunter2', exc_info=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "INFO x opened url=***\n" in done.stderr and done.stderr.endswith("ValueError: ***\n")
    assert "hunter2" not in done.stderr and done.stdout == ""


def test_the_output_decides_the_format(tmp_path: Path) -> None:
    """Lines have journald's format if standard output is the journal, and a time otherwise."""
    code = "from perceiverd.core import logs; logs.to_stdout(); logs.logging.getLogger('x').warning('a b=%d', 1)"
    lines = []
    for journal in (True, False):
        with (tmp_path / "out").open("w") as out:
            there = os.fstat(out.fileno())
            environment = {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino if journal else 0}"}
            subprocess.run([sys.executable, "-c", code], stdout=out, env=os.environ | environment, check=True)
        lines.append((tmp_path / "out").read_text())
    assert lines[0] == "<4>x a b=1\n"
    assert lines[1].endswith("Z WARNING x a b=1\n")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("door", "door"),
        ("no route to host", '"no route to host"'),
        ("", '""'),
        ('a "b"', '"a \\"b\\""'),
        ("a=b", '"a=b"'),
        ("a\nb", '"a\\nb"'),
        (None, "-"),
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        (("a", "b"), "a,b"),
        ([], "-"),
        (ValueError("too big"), '"too big"'),
    ],
)
def test_a_field_is_written_so_that_it_can_be_parsed(
    value: Value, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A value with spaces, quotes or `=` is quoted; None, bools and lists have one form each."""
    log_event(logging.getLogger("perceiverd.x"), logging.WARNING, "source-lost", stream="a", detail=value)
    assert caplog.messages == [f"source-lost stream=a detail={written}"]


def test_a_limited_event_says_how_many_were_held_back(caplog: pytest.LogCaptureFixture) -> None:
    """A burst is logged; what is held back after it is a count in the next line."""
    logger, limit = logging.getLogger("perceiverd.x"), LogLimit()
    minute_ns, burst = LogLimit.EACH_NS, LogLimit.BURST
    admitted = [log_limited(logger, logging.WARNING, "drops", limit, minute_ns, at=i) for i in range(burst + 3)]
    assert admitted == [True] * burst + [False] * 3
    assert log_limited(logger, logging.WARNING, "drops", limit, 2 * minute_ns, at="later")
    assert caplog.messages[0] == "drops at=0 suppressed=0"
    assert caplog.messages[burst:] == ["drops at=later suppressed=3"]
