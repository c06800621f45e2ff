"""Programs: their output is returned, and faults are errors of one line."""

import sys

import pytest

from perceiverd.training.synthesis import programs
from perceiverd.training.synthesis.programs import FetchError


def test_output_is_returned() -> None:
    """The program gets its input, and its output is returned."""
    code = "import sys; print(sys.stdin.read().upper(), end='')"
    assert programs.output([sys.executable, "-c", code], text=b"abc", timeout_s=60) == b"ABC"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program"], "needs the program no-such-program"),
        ([sys.executable, "-c", "raise SystemExit('out of paper')"], "out of paper"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "no reason given"),
    ],
)
def test_failures_are_errors(command: list[str], words: str) -> None:
    """A missing program and a failing one are errors of one line."""
    with pytest.raises(FetchError, match=words) as caught:
        programs.output(command, timeout_s=60)
    assert "\n" not in str(caught.value)


def test_a_program_has_a_time_limit() -> None:
    """A program that does not end in time is ended."""
    with pytest.raises(FetchError, match="did not end within"):
        programs.output([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)


def test_a_missing_dpkg_query_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If packages cannot be queried, the error names the missing program."""
    programs.check.cache_clear()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FetchError, match="needs the program dpkg-query"):
        programs.check("fluidsynth 1")
