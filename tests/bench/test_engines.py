"""Engines beside each other: which numbers are there. No test checks how fast anything is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perceiverd.bench import energy, engines
from perceiverd.core.errors import PerceiverdError
from perceiverd.model.card import load_card


def test_all_engines_and_forms_are_timed(tiny_model: Path) -> None:
    """Both engines in both forms, the exported graph, and YAMNet's layers; one row is what `auto` uses."""
    rows = {row.name: row for row in engines.timings(load_card(tiny_model), 1, 2)}
    forms = [f"{name}, {form}" for name in ("onnxruntime", "torch") for form in ("plain", "factorised")]
    assert {*forms, "ONNX Runtime, exported graph", "YAMNet's layers, 0.96 s"} <= rows.keys()
    assert [name for name, row in rows.items() if row.used] == ["onnxruntime, plain"]
    for name in forms:
        row = rows[name]
        assert row.window and row.sound and min(row.window.cpu_ms, row.window.wall_ms, row.sound.wall_ms) > 0
        assert row.kept is None  # this model has no stem
    assert rows["YAMNet's layers, 0.96 s"].window is None
    assert "onnxruntime, plain *" in engines.table(list(rows.values()), [])


def test_a_start_is_measured_in_a_process(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The light engine's start has its time and memory; an engine that fails is one line."""
    monkeypatch.setattr(engines, "STARTS", 1)
    card = load_card(tiny_model)
    found = engines._start(card, "onnxruntime", 1)
    assert found.cpu_s > 0 and found.wall_s > 0 and 30 < found.resident_mb < 300
    (shutil.copytree(tiny_model, tmp_path / "broken") / "model.safetensors").unlink()
    with pytest.raises(PerceiverdError, match=r"did not start: .*cannot read the weights"):
        engines._start(load_card(tmp_path / "broken"), "onnxruntime", 1)


def test_energy_is_that_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters of packages are added; those of their parts are not. Without counters there is no energy."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    assert energy.joules() is None
    for name, used_uj in {"intel-rapl:0": 2_500_000, "intel-rapl:1": 500_000, "intel-rapl:0:0": 7}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{used_uj}\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.joules() == 3.0
