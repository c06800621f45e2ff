"""The check of a GPU works, as far as a CPU can show: its parts run, and the report has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.gpu_check.__main__ import main, run_part
from tests.gpu_check.parts import PARTS, Result, Setup


def test_parts_run_and_are_reported(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a CPU all parts but those that start processes pass, and both reports have their results."""
    options = ["--device", "cpu", "--model", str(tiny_model), "--out", str(tmp_path), "--soak-seconds", "0.2"]
    parts = ["facts", "agreement", "speed", "public", "short-memory", "soak"]
    assert main([*options, "--rounds", "3", "--max-batch", "2", *parts]) == 0, capsys.readouterr().out
    found = json.loads((tmp_path / "report.json").read_text())
    assert [(each["name"], each["ok"]) for each in found] == [(name.replace("-", " "), True) for name in parts]
    assert "streams at 4 hops a second" in (tmp_path / "report.md").read_text()


def test_a_part_that_fails_is_a_result(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    """An exception of one part is in the report, and the others still run."""

    def broken(_: Setup) -> Result:
        raise RuntimeError("CUDA error: misaligned address")

    monkeypatch.setitem(PARTS, "broken", broken)
    result = run_part("broken", Setup(torch.device("cpu"), str(tiny_model), 0, 1))
    assert not result.ok and "misaligned" in result.summary and result.numbers["traceback"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_one_line_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The check of a GPU that is not there is one line and status 1."""
    assert main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
