"""Importing a model from a hub: a complete model, or a one-line error and nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from perceiverd.model import hub
from perceiverd.model.card import load_card
from tests.support.hub import hub_of, import_model, imported

pytestmark = pytest.mark.timeout(600)  # many processes, each of which loads torch


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one-line error of a run that failed."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_model_is_fetched_from_a_hub(checkpoint: Path, tmp_path: Path) -> None:
    """Config and weights are fetched; the model becomes an imported one with the public checkpoint's licence."""
    with hub_of(checkpoint) as endpoint:
        done = import_model(tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    card = load_card(tmp_path / "perceiverd" / "models" / "perceiver")
    assert (card.licence, card.scores) == (hub.LICENCE, "softmax")
    assert "CC BY 4.0" in (card.folder / "README.md").read_text()


def test_a_wrong_sha256_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Weights with another sha256 than the hub gave are not converted."""
    with hub_of(checkpoint, sha256="0" * 64) as endpoint:
        done = import_model(tmp_path, endpoint)
    assert "sha256 is" in error_of(done)
    assert imported(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """If the hub closes the connection or is gone, that is an error; a later import resumes and succeeds."""
    with hub_of(checkpoint, cut=1000) as endpoint:
        done = import_model(tmp_path, endpoint)
    assert "cannot be fetched" in error_of(done)
    assert "cannot reach the hub" in error_of(import_model(tmp_path, endpoint))  # although the config is in the cache
    assert imported(tmp_path) == []
    with hub_of(checkpoint) as endpoint:
        assert import_model(tmp_path, endpoint).returncode == 0
    assert imported(tmp_path) == ["perceiver"]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ("config.json", "found neither model.safetensors nor pytorch_model.bin"),
        ("model.safetensors", "found no config.json"),
    ],
)
def test_a_repository_without_a_checkpoint_is_refused(
    checkpoint: Path, tmp_path: Path, kept: str, message: str
) -> None:
    """The error for a repository without weights, or without a config, names the missing files."""
    (tmp_path / "other").mkdir()
    shutil.copy(checkpoint / kept, tmp_path / "other")
    with hub_of(tmp_path / "other") as endpoint:
        assert message in error_of(import_model(tmp_path, endpoint))


def test_an_unknown_repository_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """An unknown repository, an invalid name and an unreachable hub are one-line errors."""
    with hub_of(checkpoint) as endpoint:
        assert "cannot be fetched" in error_of(import_model(tmp_path, endpoint, "no/one"))
        assert "cannot be fetched" in error_of(import_model(tmp_path, endpoint, "a/b/c"))
    assert "cannot reach the hub" in error_of(import_model(tmp_path, endpoint))
