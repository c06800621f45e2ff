"""What a run of `train fit` refuses before it opens a clip."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perceiverd.core.errors import ConfigError
from tests.support.finetune import NEW_MODEL, fit, write_manifest


def test_a_model_is_not_overwritten(home: Path) -> None:
    """A folder that has a model already is refused."""
    with pytest.raises(ConfigError, match="is a model already"):
        fit(home, home / "start")


def test_a_new_model_starts_from_no_model(home: Path, tmp_path: Path, new_model: Path) -> None:
    """Settings with a geometry and `--from` contradict each other; a new model has AudioSet's classes first."""
    with pytest.raises(ConfigError, match="has a geometry, for a new model"):
        fit(home, tmp_path / "new", settings=new_model)
    new_model.write_text(NEW_MODEL.replace("527", "10"))
    with pytest.raises(ConfigError, match=r"\$\.geometry\.classes must be 527"):
        fit(home, tmp_path / "new", start=None, settings=new_model)


def test_a_manifest_needs_a_label(home: Path, tmp_path: Path) -> None:
    """Clips without any label teach nothing."""
    bare = write_manifest(home / "bare.csv", [("0.wav", "")])
    with pytest.raises(ConfigError, match="no clip has a label"):
        fit(home, tmp_path / "new", manifest=bare)


def test_held_out_labels_must_be_taught(home: Path, tmp_path: Path) -> None:
    """A held-out label that the manifest does not teach is refused."""
    other = write_manifest(home / "other.csv", [("0.wav", "Washing line")])
    with pytest.raises(ConfigError, match=r"unknown label 'Washing line'; .*clips\.csv does not teach it"):
        fit(home, tmp_path / "new", held_out=other)


def test_held_out_clips_are_not_trained_on(home: Path, tmp_path: Path) -> None:
    """A held-out clip with the bytes of a training or rehearsal clip is refused, whatever its name."""
    shutil.copy(home / "3.wav", tmp_path / "renamed.wav")
    twice = write_manifest(tmp_path / "twice.csv", [(f"{home}/held-1.wav", ""), ("renamed.wav", "Faint hiss")])
    with pytest.raises(ConfigError, match=r"twice.csv: line 3: .*renamed.wav is also trained on \(line 5 of"):
        fit(home, tmp_path / "new", held_out=twice)
    (tmp_path / "others").mkdir()
    shutil.copy(home / "held-1.wav", tmp_path / "others")
    with pytest.raises(ConfigError, match=r"line 3: .*held-1.wav is also trained on \(.*others/held-1.wav, for --reh"):
        fit(home, tmp_path / "new", held_out=home / "held.csv", rehearse=tmp_path / "others")


def test_a_precision_that_the_device_lacks_is_refused(home: Path, tmp_path: Path) -> None:
    """float16 needs a GPU."""
    with pytest.raises(ConfigError, match="float16 is for GPUs"):
        fit(home, tmp_path / "new", precision="float16")
