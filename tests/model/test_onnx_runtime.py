"""ONNX Runtime's telemetry is off."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "perceiverd"


def test_the_library_collects_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """A process that loads a model leaves no file in the user's folders, where telemetry would keep its data."""
    program = f"from perceiverd.model.card import load_card; from perceiverd.model.onnx_engine import OnnxEngine; \
        OnnxEngine(load_card({str(tiny_model)!r}))"
    folders = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", program], env=environment | folders, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []


def test_only_one_module_imports_the_library() -> None:
    """Every other module gets ONNX Runtime from the one that turns telemetry off first."""
    pattern = re.compile(r"^\s*(import|from) onnxruntime\b", re.MULTILINE)
    found = [path.name for path in PACKAGE.rglob("*.py") if pattern.search(path.read_text(encoding="utf-8"))]
    assert found == ["onnx_runtime.py"]
