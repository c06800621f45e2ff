"""The bench: what it counts is right, and what it writes is whole. How fast anything is, no test says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from perceiverd.bench import baselines, latency, load, profiling
from perceiverd.core.errors import PerceiverdError
from perceiverd.model.geometry import Geometry
from perceiverd.model.inference import Inference, _Factorised
from tests.support.program import Perceiverd


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no one else's network is installed; theirs take long."""
    monkeypatch.setattr(baselines, "installed", lambda package: str(torch.__version__) if package == "torch" else None)


@pytest.mark.usefixtures("alone")
def test_a_report_is_printed_and_written(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A model's line stands above the plain form's, and the JSON holds the same numbers and names the machine."""
    into = tmp_path / "bench.json"
    status, out, err = perceiverd("bench", tiny_model, "--rounds", "2", "--json", into)
    assert (status, err) == (0, "")
    (report,) = msgspec.json.decode(into.read_bytes(), type=list[latency.BenchReport])
    ours, plain, *_ = report.rows
    assert (ours.name, plain.name) == ("perceiverd", "perceiverd, plain attention")
    assert ours.times == 1 and ours.gflop > 0 and ours.p99_ms >= ours.median_ms > 0
    assert ours.best_batch in latency.BATCHES
    assert report.machine in out and f"torch {torch.__version__}" in out
    assert [line for line in out.splitlines() if line.startswith("perceiverd   ")]


@pytest.mark.usefixtures("alone")
def test_a_report_that_cant_be_written_is_told(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A path into nowhere is a line with status 1, before anything is timed."""
    status, out, err = perceiverd("bench", tiny_model, "--rounds", "1", "--json", tmp_path / "no" / "bench.json")
    assert (status, out) == (1, "")
    assert err.startswith(f"perceiverd: {tmp_path}/no/bench.json: cannot be written") and err.count("\n") == 1


def test_growth_needs_the_public_sizes(perceiverd: Perceiverd, tiny_model: Path) -> None:
    """Growth of another model, which there is none of, is wrong usage."""
    status, out, err = perceiverd("bench", tiny_model, "--growth")
    assert (status, out) == (2, "") and "`public`" in err


def test_all_that_is_kept_is_counted_once() -> None:
    """Weights, buffers and an object's tables count, each piece of memory once however many tensors share it."""
    linear = torch.nn.Linear(30, 50)
    linear.register_buffer("table", torch.zeros(70))
    assert profiling.held(linear, linear.weight, [linear.weight[3:]]) == 4 * (30 * 50 + 50 + 70)
    geometry, network = latency._public(1)
    plain, fast = (Inference(network, factorised) for factorised in (False, True))
    weights = sum(4 * parameter.numel() for parameter in network.parameters())
    positions = sum(4 * m.tokens * (m.width - m.content) for m in geometry.modalities)
    assert profiling.held(plain) == weights + positions
    ready = fast._score
    assert isinstance(ready, _Factorised)
    fixed = ready._crosses[0]._fixed_queries
    assert fixed and profiling.held(fast) > profiling.held(fixed) + weights - 4 * network.bytes.width * 3
    assert not hasattr(ready._grids["video"], "basis")


def test_work_and_traffic_are_counted() -> None:
    """A product of matrices counts two operations a multiplier, attention four; traffic is what goes in and out."""
    a, b = torch.randn(30, 50), torch.randn(50, 70)
    assert profiling.flop(lambda: a @ b) == 2 * 30 * 50 * 70
    assert profiling.traffic(lambda: a @ b) == 4 * (30 * 50 + 50 * 70 + 30 * 70)
    q = torch.randn(1, 2, 30, 8)
    assert profiling.flop(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)) == 4 * 2 * 30 * 30 * 8


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_the_peak_is_what_was_held_at_once() -> None:
    """Two tensors of 40 MB, one after the other, are a peak of 40 MB; held together, of 80."""
    code = (
        "import torch; from perceiverd.bench import profiling as meter; n = 10_000_000; cpu = torch.device('cpu')\n"
        "print(meter.peak(lambda: [torch.ones(n).sum() for _ in range(2)], cpu))\n"
        "print(meter.peak(lambda: torch.ones(n) + torch.ones(n).sum(), cpu))\n"
    )
    # In a process of its own: what other tests have left to threads and collectors would count too.
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=100)
    one, two = map(float, done.stdout.split())
    assert 38e6 < one < 60e6 and 75e6 < two < 100e6


def test_the_public_sizes_cost_what_is_said() -> None:
    """A window of the public sizes takes some 45 GFLOP in place of some 250."""
    geometry, network = latency._public(16)
    media = latency._media(geometry, torch.device("cpu"))
    with torch.inference_mode():
        ours = latency._ours("", network, geometry, *media, True)
        gflop = profiling.flop(lambda: ours.score(1)) / 1e9
    assert 43 < gflop < 47


def test_peers_score_the_same_labels() -> None:
    """The public architecture gives the same logits with fused attention as it is shipped."""
    pytest.importorskip("transformers")
    from tests.support.published import SMALL, published

    network = published(**SMALL)
    sound, frames = torch.rand(1, 5760) * 2 - 1, torch.randint(0, 256, (1, 3, 20, 20, 3), dtype=torch.uint8)
    with torch.inference_mode():
        shipped, fused = (peer.score(2) for peer in baselines.transformers_peers(network, sound, frames))
    assert shipped.shape == (2, 700)
    torch.testing.assert_close(fused, shipped)


def test_growth_is_of_frames_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is a window of more frames, or more windows at once, with its tokens counted."""
    monkeypatch.setattr(latency, "FRAMES", (1,))
    monkeypatch.setattr(latency, "STREAMS", (1,))
    with torch.inference_mode():
        (line,) = latency._growth(torch.device("cpu"), 1)
    assert (line.frames, line.streams, line.tokens) == (1, 1, 56 * 56 + 120 + 1)
    assert isinstance(latency._public(1)[0], Geometry)


@pytest.mark.long
def test_streams_through_a_daemon(perceiverd: Perceiverd, tiny_model: Path) -> None:
    """Two streams of the clip are replayed; the table says what became of their windows and where time went."""
    status, out, err = perceiverd("bench", tiny_model, "--streams", "2", "--seconds", "6")
    assert (status, err) == (0, "")
    assert out.startswith("2 streams for 6 s, a window of each every 0.5 s\n")
    assert "latency from capture to publishing: p50 " in out
    assert "perceiverd's own share, neither network nor decoding: " in out


def test_streams_of_a_model_that_is_missing(perceiverd: Perceiverd) -> None:
    """What the daemon says of it is passed on, in one line."""
    status, out, err = perceiverd("bench", "no-such-model", "--streams", "1")
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "no-such-model" in err


@pytest.mark.parametrize("option", [["--growth"], ["--json", "x"]])
def test_what_is_of_networks_alone_is_refused_with_streams(perceiverd: Perceiverd, option: list[str]) -> None:
    """What would do nothing is wrong usage."""
    status, out, err = perceiverd("bench", "--streams", "1", *option)
    assert (status, out) == (2, "")
    assert f"'{option[0]}': cannot be combined with --streams" in err


def test_a_model_is_found_from_here(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is one from where the command was given; a name is no path."""
    monkeypatch.chdir(tiny_model.parent)
    assert load._absolute(f"./{tiny_model.name}") == str(tiny_model)
    assert load._absolute("ear-and-eye-small") == "ear-and-eye-small"


@pytest.mark.parametrize(
    ("program", "told"), [("raise SystemExit(3)", "failed (status 3)"), ("input()", "was not done")]
)
def test_a_helper_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, program: str, told: str) -> None:
    """Where decoding alone fails or hangs it is said in a line, and its process is gone."""
    monkeypatch.setattr(load, "STARTUP_S", 1.0)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as helper:
        if told.startswith("failed"):
            helper.wait(60)
        held, helper.stdin = helper.stdin, None  # left open, so that it hangs
        with pytest.raises(PerceiverdError) as caught:
            load._told(helper)
        assert held
        held.close()
    assert told in str(caught.value)
    assert helper.returncode


def test_a_process_that_is_gone_is_told() -> None:
    """A daemon or source that ended while it was measured is a line, no traceback."""
    with pytest.raises(PerceiverdError, match="ended while it was measured"):
        load._spent(1, "http://127.0.0.1:9/metrics")
