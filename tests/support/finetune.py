"""`perceiverd train fit` on small clips: the command, the clips, the weights that it writes."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner, Result

from perceiverd.model.geometry import Audio, Geometry, Trunk
from perceiverd.training.cli.app import app

RATE_HZ = 16_000
DOG = "/m/0bt9lr"
AUDIO = Geometry(
    classes=527,
    trunk=Trunk(latents=3, width=8, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=RATE_HZ, samples=4_000, form="raw", patch=(100,), bands=2),
)
"""A tiny model of audio alone."""
NEW_MODEL = """
[geometry]
classes = 527
[geometry.trunk]
latents = 3
width = 8
cross_attends = 1
layers = 1
heads = 2
[geometry.audio]
rate_hz = 16000
samples = 4000
form = "raw"
patch = [100]
bands = 2
[fit]
epochs = 2
batch = 5
slice = 2
"""
"""A settings file for a new model of the same geometry."""


def write_sound(path: Path, samples: NDArray[np.floating]) -> Path:
    """A sound file of samples within ±1 at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def write_manifest(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A manifest of (file, labels)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "labels"), *rows])
    return path


def run_fit(**options: object) -> Result:
    """Run the command. `start` is `--from`, None leaves an option out, True is a flag, a tuple repeats an option."""
    given: list[str] = []
    for name, value in options.items():
        option = "--from" if name == "start" else f"--{name.replace('_', '-')}"
        if value is True:
            given.append(option)
        elif value not in (None, False):
            given += [part for one in (value if isinstance(value, tuple) else (value,)) for part in (option, str(one))]
    return CliRunner().invoke(app, ["fit", *given], catch_exceptions=False)


def fit(home: Path, out: Path, **options: object) -> str:
    """Fit to the two sounds in `home`, from the model there; returns what the command prints. It ends with status 0."""
    usual = {"manifest": home / "clips.csv", "start": home / "start", "cache": home / "cache"}
    done = run_fit(**{**usual, "out": out, "threads": 1, "device": "cpu", **options})
    assert done.exit_code == 0, done.output
    return done.stdout


def weights(model: Path) -> dict[str, Tensor]:
    """All tensors of a model."""
    return load_file(model / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    """Whether two models are equal to the bit."""
    return all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(one).items())
