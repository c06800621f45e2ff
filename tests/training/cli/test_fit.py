"""Options of `perceiverd train fit` that are refused."""

from __future__ import annotations

from pathlib import Path

from tests.support.finetune import run_fit


def test_a_renamed_option_names_its_new_name(tmp_path: Path) -> None:
    """`--recipe`, the old name of `--settings`, is a usage error that gives the new name."""
    done = run_fit(manifest=tmp_path / "clips.csv", out=tmp_path / "new", recipe="new.toml")
    assert done.exit_code == 2
    assert "Invalid value for '--recipe': the option is now called --settings" in done.stderr


def test_an_unknown_device_is_a_usage_error(tmp_path: Path) -> None:
    """A device is auto, cpu, cuda or cuda:N."""
    done = run_fit(manifest=tmp_path / "clips.csv", out=tmp_path / "new", device="gpu")
    assert done.exit_code == 2 and "'gpu' is not auto, cpu, cuda or cuda:N" in done.stderr
