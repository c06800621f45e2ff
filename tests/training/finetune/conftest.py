"""A model of audio and clips of two sounds to fit it to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.clips import make_model
from tests.support.finetune import AUDIO, DOG, NEW_MODEL, RATE_HZ, write_manifest, write_sound


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, twelve clips of two sounds that AudioSet lacks (loud buzz, faint hiss), and twelve held-out clips."""
    folder = tmp_path_factory.mktemp("home")
    make_model(folder / "start", AUDIO)
    (folder / "start" / "calibration.tsv").write_text(
        f"mid\tname\tscale\tshift\tthreshold\n{DOG}\tDog\t2.0\t0.5\t0.25\n"
    )
    rng = np.random.default_rng(0)
    for listed, prefix in (("clips.csv", ""), ("held.csv", "held-")):
        rows = []
        for number in range(12):
            name, label = f"{prefix}{number}.wav", ("Loud buzz", "Faint hiss")[number % 2]
            tone = 0.6 * np.sign(np.sin(2 * np.pi * rng.uniform(90, 110) * np.arange(12_000) / RATE_HZ))
            write_sound(folder / name, tone if number % 2 == 0 else rng.normal(0, 0.02, 12_000))
            rows.append((name, label))
        write_manifest(folder / listed, rows)
    return folder


@pytest.fixture
def new_model(tmp_path: Path) -> Path:
    """A settings file for a tiny new model."""
    path = tmp_path / "new.toml"
    path.write_text(NEW_MODEL)
    return path
