"""Which engine runs a model, and that the light one needs no PyTorch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from perceiverd.core.errors import ConfigError
from perceiverd.model import engine_choice
from perceiverd.model.card import load_card
from perceiverd.model.engine import EngineName
from perceiverd.model.engine_choice import load_engine
from tests.support.program import DEADLINE_S, Start

WITHOUT_TORCH = """
import sys
from perceiverd.cli import main
try:
    main()
finally:
    print("torch" in sys.modules, "onnxruntime" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(("name", "used"), [("auto", "onnxruntime"), ("torch", "torch"), ("onnxruntime",) * 2])
def test_a_cpu_uses_onnxruntime_unless_told_otherwise(tiny_model: Path, name: EngineName, used: str) -> None:
    """`auto` on a CPU is ONNX Runtime; a name is that engine."""
    engine = load_engine(load_card(tiny_model), name, "cpu")
    assert (engine.name, engine.device) == (used, "cpu")


def test_auto_on_a_gpu_that_cannot_be_used_is_the_light_engine(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the driver's files are there but torch finds no GPU, ONNX Runtime runs on the CPU, not PyTorch."""
    monkeypatch.setattr(engine_choice, "may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    engine = load_engine(load_card(tiny_model), "auto", "auto")
    assert (engine.name, engine.device) == ("onnxruntime", "cpu")


def test_auto_does_without_onnxruntime(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If ONNX Runtime is not installed, `auto` is PyTorch, and its name is an error that says what to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for module in ("onnx_engine", "onnx_runtime"):
        monkeypatch.delitem(sys.modules, f"perceiverd.model.{module}", raising=False)
    card = load_card(tiny_model)
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        load_engine(card, "onnxruntime", "cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert load_engine(card, "auto", "cpu").name == "torch"


def test_a_broken_onnxruntime_is_reported_once(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If ONNX Runtime is installed but does not load, `auto` is PyTorch, with one line in the log."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for module in ("onnx_engine", "onnx_runtime"):
        monkeypatch.delitem(sys.modules, f"perceiverd.model.{module}", raising=False)
    monkeypatch.setattr(engine_choice, "_prefers_onnxruntime", lambda _: True)
    assert load_engine(load_card(tiny_model), "auto", "cpu").name == "torch"
    assert [record.message.split()[0] for record in caplog.records] == ["engine-unusable"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_is_only_for_torch(tiny_model: Path) -> None:
    """ONNX Runtime with a CUDA device is an error; `auto` with a CUDA device asks PyTorch, which finds none."""
    with pytest.raises(ConfigError, match='use engine "torch"'):
        load_engine(load_card(tiny_model), "onnxruntime", "cuda")
    with pytest.raises(ConfigError, match="no CUDA"):
        load_engine(load_card(tiny_model), "auto", "cuda:0")


def test_tag_loads_no_torch(tiny_model: Path, tmp_path: Path) -> None:
    """`perceiverd tag` labels a file with the light engine, and PyTorch is never imported."""
    clip = Path(__file__).parents[2] / "configs" / "demo" / "clip.mp4"
    arguments = ["tag", str(clip), "--model", str(tiny_model), "--summary", "--device", "cpu"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False True"


def test_the_daemon_loads_no_torch(tiny_model: Path, tmp_path: Path, start: Start) -> None:
    """A daemon that has published scores with the light engine has no library of PyTorch in its memory."""
    config = tmp_path / "c.toml"
    config.write_text(
        f'model = {{ name = "{tiny_model}", device = "cpu" }}\npublish.endpoint = "ipc://{tmp_path}/labels"\n'
        '[streams.a]\nsources = [{ kind = "synthetic" }]\n'
    )
    log = tmp_path / "log"
    process = start("run", "--config", str(config), log=log)
    for _ in range(10 * DEADLINE_S):
        if "daemon-ready" in log.read_text():
            break
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "engine=onnxruntime" in log.read_text() and "reason=first-window" in log.read_text()
    assert "onnxruntime" in maps and "libtorch" not in maps
