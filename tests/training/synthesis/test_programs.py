"""Programs: what they say is returned, what goes wrong is told in one line."""

import sys

import pytest

from perceiverd.training.synthesis import programs
from perceiverd.training.synthesis.programs import FetchError


def test_output_is_returned() -> None:
    """What is given to the program's input comes back from its output."""
    code = "import sys; print(sys.stdin.read().upper(), end='')"
    assert programs.output([sys.executable, "-c", code], text=b"abc", timeout_s=60) == b"ABC"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["no-such-program"], "needs the program no-such-program"),
        ([sys.executable, "-c", "raise SystemExit('out of paper')"], "out of paper"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "no reason given"),
    ],
)
def test_failure_is_told(command: list[str], told: str) -> None:
    """A program that isn't there or fails is a FetchError of one line."""
    with pytest.raises(FetchError, match=told) as caught:
        programs.output(command, timeout_s=60)
    assert "\n" not in str(caught.value)


def test_waiting_has_an_end() -> None:
    """A program that does not end is ended."""
    with pytest.raises(FetchError, match="did not end within"):
        programs.output([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the renderer's package isn't installed, or packages can't be asked for, the error says what to do."""
    programs.check.cache_clear()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FetchError, match="needs the program dpkg-query"):
        programs.check("fluidsynth 1")
