"""Streams through a real daemon: what is measured, and how failures are reported."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from perceiverd.bench import load
from perceiverd.core.errors import PerceiverdError
from tests.support.program import Perceiverd


@pytest.mark.long
def test_streams_through_a_daemon(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """Two streams of the clip are replayed; the table shows their windows, latency and CPU time."""
    into = tmp_path / "load.json"
    options = ("--streams", "2", "--seconds", "6", "--hop", "0.4", "--still", "--json", into)
    status, out, err = perceiverd("bench", tiny_model, *options)
    assert (status, err) == (0, "")
    assert out.startswith("2 streams for 6 s, a window of each every 0.4 s, still pictures\n")
    (report,) = msgspec.json.decode(into.read_bytes(), type=list[load.LoadReport])
    assert report.streams == 2 and report.still and report.resident_mb > 20
    assert "latency from capture to publishing: p50 " in out
    assert "perceiverd's own share, without network and decoding: " in out


def test_a_missing_model_is_one_line(perceiverd: Perceiverd) -> None:
    """The error has the daemon's last log line."""
    status, out, err = perceiverd("bench", "no-such-model", "--streams", "1")
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "no-such-model" in err


def test_options_for_networks_cannot_be_combined_with_streams(perceiverd: Perceiverd) -> None:
    """An option that would have no effect is wrong usage."""
    status, out, err = perceiverd("bench", "--streams", "1", "--growth")
    assert (status, out) == (2, "")
    assert "'--growth': cannot be combined with --streams" in err


def test_a_relative_model_path_becomes_absolute(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path starts at the working directory of the command; a name is not a path."""
    monkeypatch.chdir(tiny_model.parent)
    assert load._absolute(f"./{tiny_model.name}") == str(tiny_model)
    assert load._absolute("ear-and-eye-small") == "ear-and-eye-small"


@pytest.mark.parametrize(
    ("program", "error"), [("raise SystemExit(3)", "failed (status 3)"), ("input()", "did not end")]
)
def test_a_helper_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, program: str, error: str) -> None:
    """If the decoding helper fails or hangs, that is an error in one line, and its process has ended."""
    monkeypatch.setattr(load, "STARTUP_S", 1.0)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as helper:
        if error.startswith("failed"):
            helper.wait(60)
        held, helper.stdin = helper.stdin, None  # stays open, so that it hangs
        with pytest.raises(PerceiverdError) as caught:
            load._decoder_result(helper)
        assert held
        held.close()
    assert error in str(caught.value)
    assert helper.returncode


def test_a_process_that_has_ended_is_one_line() -> None:
    """A daemon or source that ends during the measurement gives an error in one line."""
    with pytest.raises(PerceiverdError, match="ended during the measurement"):
        load._cpu_times(1, "http://127.0.0.1:9/metrics")
