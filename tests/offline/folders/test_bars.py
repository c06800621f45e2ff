"""The bars of a run, drawn on a real pseudo-terminal."""

import os
import sys
from pathlib import Path

import pytest

from perceiverd.offline.folders.bars import Bars
from perceiverd.offline.folders.spool import Spool
from perceiverd.offline.folders.tally import Current, Tally
from perceiverd.offline.folders.walk import Found
from tests.support.program import read_until


def test_a_file_has_a_bar_of_its_own_while_it_is_tagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first bar counts files with the time left; the other one shows the time within the file, as of each draw."""
    terminal, end = os.openpty()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    files = [Found(f"/m/{name}", f"{name}", 1000) for name in ("dog\x1b.wav", "cat.wav")]
    current = Current()
    tally = Tally([current])
    with Spool(tmp_path) as spool, os.fdopen(end, "w", encoding="utf-8") as screen:
        spool.fill(files)
        assert [spool.take(), spool.take(), spool.take()] == [*files, None]
        monkeypatch.setattr(sys, "stderr", screen)
        with Bars(tally, spool) as bars:
            current.begin(files[0])
            current.state_length(7.0)
            current.advance(3_000_000_000)
            bars.draw()
            first = read_until(terminal, [b"0 of 2, ", b"dog?.wav", b"0:00:03 of 0:00:07"])
            current.found = None
            tally.add(files[0], 5, 7.0, failed=False)
            bars.draw()
            second = read_until(terminal, [b"1 of 2, ", b"x real time", b" left"])
        monkeypatch.undo()
    os.close(terminal)
    assert b"dog?.wav" in first and b".wav" not in second
