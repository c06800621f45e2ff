"""The check of a GPU works, as far as a CPU can show: its parts run, and the report has them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from tests.gpu_check.__main__ import _parser, main, own_options, run_apart, run_part
from tests.gpu_check.accuracy import mean_average_precision
from tests.gpu_check.parts import PARTS, SECONDS
from tests.gpu_check.result import Result, Setup

QUICK = ["facts", "agreement", "speed", "public", "memory", "soak"]
PROGRAMS = ["faults", "streams", "files", "nvdec", "tests"]
"""Parts that start processes or write video."""


def rehearse(parts: list[str], model: Path, out: Path) -> list[dict[str, object]]:
    """The results of parts on the CPU, in this process."""
    options = ["--device", "cpu", "--model", str(model), "--out", str(out), "--soak-seconds", "0.2", "--in-process"]
    assert main([*options, "--rounds", "2", "--max-batch", "2", *parts]) == 0, (out / "report.md").read_text()
    found: list[dict[str, object]] = json.loads((out / "report.json").read_text())
    assert [(each["name"], each["ok"]) for each in found] == [(name, True) for name in parts]
    return found


def test_parts_run_and_are_reported(tiny_model: Path, tmp_path: Path) -> None:
    """On a CPU the parts pass; what only a GPU can keep is not measured, and the report says so for each line."""
    found = rehearse(QUICK, tiny_model, tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "streams at 4 hops a second" in report
    assert "| our kernel" not in report  # the public sizes need a GPU
    assert "| scores in float32 are within 0.0001 of the CPU's | yes |" in report
    assert re.search(r"5000 windows a second in the network \| not measured here \| \d+/s", report)
    assert all(each["checks"] for each in found[1:])


@pytest.mark.long
@pytest.mark.timeout(400)  # programs that each load torch, on a machine that may be busy
@pytest.mark.parametrize("part", PROGRAMS)
def test_parts_that_run_the_program(tiny_model: Path, tmp_path: Path, part: str) -> None:
    """A daemon with a stream, files one by one and together, a lost device, a decoder and pytest run on a CPU."""
    (found,) = rehearse([part], tiny_model, tmp_path)
    assert found["checks"]
    if part == "faults":
        report = (tmp_path / "report.md").read_text()
        assert "| after a fault of CUDA the CPU computes, and the process ends well | yes | lost: True" in report


def test_the_parts_end_within_ten_minutes() -> None:
    """Each part has a time of its own, and all together fit into one call."""
    assert list(SECONDS) == list(PARTS) and sum(SECONDS.values()) <= 570


def test_a_part_gets_all_options() -> None:
    """Also a value that is the name of a part; the parts themselves are left out."""
    given = ["--out", "speed", "--model", "memory", "--device", "cuda:1", "--soak-seconds", "600.0", "facts", "soak"]
    options = _parser().parse_args(given)
    assert options.parts == ["facts", "soak"]
    own = own_options(options)
    assert sorted(own) == sorted(given[:-2])
    again = vars(_parser().parse_args([*own, "soak"]))
    assert {name: value for name, value in vars(options).items() if again[name] != value} == {"parts": options.parts}


def test_streams_come_and_go(tiny_model: Path, tmp_path: Path) -> None:
    """The soak sees batches of many sizes, begins and ends streams, and goes through short memory and back."""
    options = ["--device", "cpu", "--model", str(tiny_model), "--out", str(tmp_path), "--soak-seconds", "1"]
    assert main([*options, "--in-process", "--max-batch", "8", "soak"]) == 0, (tmp_path / "report.md").read_text()
    report = (tmp_path / "report.md").read_text()
    assert "| short memory in the middle makes batches smaller | yes |" in report
    assert "| afterwards batches are whole again | yes |" in report
    (found,) = json.loads((tmp_path / "report.json").read_text())
    assert len(found["numbers"]["sizes"]) >= 4 and re.search(r"\d+ streams began and \d+ ended", found["summary"])


def test_a_part_that_fails_is_a_result(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    """An exception of one part is in the report, and the others still run."""

    def broken(_: Setup) -> Result:
        raise RuntimeError("CUDA error: misaligned address")

    monkeypatch.setitem(PARTS, "broken", broken)
    result = run_part("broken", Setup(torch.device("cpu"), str(tiny_model), 0, 1))
    assert not result.ok and "misaligned" in result.summary and result.numbers["traceback"]


@pytest.mark.parametrize(
    ("module", "limit_s", "why"),
    [
        ("tests.gpu_check.bad_parts", 60.0, "killed by signal 11"),
        ("no.such.module", 60.0, "its process ended with status 1"),
        ("tests.gpu_check.bad_parts", 8.0, "not done after 8 s"),
        ("tests.gpu_check.bad_parts", 3.0, "no time was left"),
    ],
)
def test_a_part_that_crashes_or_hangs_costs_only_itself(module: str, limit_s: float, why: str) -> None:
    """Its result says why, with the last lines that it printed."""
    part = "hang" if limit_s < 10 else "crash"
    result = run_apart(part, ["--device", "cpu"], limit_s, module)
    assert not result.ok and why in result.summary
    if module != "no.such.module" and limit_s > 5:
        assert result.numbers["traceback"][-1] == f"now I {part}"


def test_agreement_is_scikit_learns_precision() -> None:
    """The mean average precision over the labels that some window has and another lacks."""
    rng = np.random.default_rng(0)
    scores, truth = rng.random((23, 7)), rng.random((23, 7)) < 0.3
    truth[:, 3], truth[:, 4] = True, False
    wanted = np.mean([average_precision_score(truth[:, c], scores[:, c]) for c in (0, 1, 2, 5, 6)])
    assert mean_average_precision(scores, truth) == pytest.approx(wanted)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_one_line_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The check of a GPU that is not there is one line and status 1."""
    assert main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
