"""The report of `perceiverd bench`: complete, printed and written. No test checks how fast anything is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from perceiverd.bench import baselines, engines, latency, profiling
from perceiverd.model.geometry import Geometry
from tests.support.program import Perceiverd


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only torch counts as installed, because the networks of other packages are slow; each engine starts once."""
    monkeypatch.setattr(engines, "STARTS", 1)
    monkeypatch.setattr(
        baselines, "installed_version", lambda package: str(torch.__version__) if package == "torch" else None
    )


@pytest.mark.usefixtures("alone")
@pytest.mark.quiet
def test_a_report_is_printed_and_written(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """The table begins with the engine that users get, then has PyTorch; the JSON has the same numbers."""
    into = tmp_path / "bench.json"
    status, out, err = perceiverd("bench", tiny_model, "--rounds", "2", "--json", into)
    assert (status, err) == (0, "")
    (report,) = msgspec.json.decode(into.read_bytes(), type=list[latency.BenchReport])
    ours, *in_torch = report.rows
    assert ours.name == "perceiverd"
    assert [row.name for row in in_torch] == ["perceiverd, PyTorch, factorised", "perceiverd, PyTorch, plain"]
    used = next(row for row in report.engines if row.used)
    assert used.name.startswith("onnxruntime") and ours.gflop in [row.gflop for row in in_torch]
    assert ours.times == 1 and ours.gflop > 0 and ours.p99_ms >= ours.median_ms > 0
    assert ours.best_batch in latency.BATCHES
    assert [start.engine for start in report.starts] == ["onnxruntime", "torch"] and report.starts[0].cpu_s > 0
    assert sum(row.used for row in report.engines) == 1 and "onnxruntime, plain *" in out
    assert report.machine in out and f"torch {torch.__version__}" in out
    assert [line for line in out.splitlines() if line.startswith("perceiverd   ")]


@pytest.mark.usefixtures("alone")
def test_a_report_that_cannot_be_written_is_one_line(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A path in a missing folder ends with status 1 before anything is timed."""
    status, out, err = perceiverd("bench", tiny_model, "--rounds", "1", "--json", tmp_path / "no" / "bench.json")
    assert (status, out) == (1, "")
    assert err.startswith(f"perceiverd: {tmp_path}/no/bench.json: cannot write the report") and err.count("\n") == 1


def test_growth_needs_the_public_sizes(perceiverd: Perceiverd, tiny_model: Path) -> None:
    """`--growth` without `public` is wrong usage, because only the public sizes can grow."""
    status, out, err = perceiverd("bench", tiny_model, "--growth")
    assert (status, out) == (2, "") and "`public`" in err


def test_the_public_sizes_need_45_gflop() -> None:
    """A window of the public sizes takes about 45 GFLOP; the plain form takes about 250."""
    geometry, network = latency._public_network(16)
    media = latency._noise_window(geometry, torch.device("cpu"))
    with torch.inference_mode():
        ours = latency._our_network("", network, geometry, *media, True)
        gflop = profiling.matmul_flop(lambda: ours.score(1)) / 1e9
    assert 43 < gflop < 47


def test_growth_is_of_frames_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is a window with more frames, or more windows at once, with the number of tokens."""
    monkeypatch.setattr(latency, "FRAMES", (1,))
    monkeypatch.setattr(latency, "STREAMS", (1,))
    with torch.inference_mode():
        (line,) = latency._growth(torch.device("cpu"), 1)
    assert (line.frames, line.streams, line.tokens) == (1, 1, 56 * 56 + 120 + 1)
    assert isinstance(latency._public_network(1)[0], Geometry)
