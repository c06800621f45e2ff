"""Helpers of tests that read configurations."""

import re
from pathlib import Path

import pytest

from perceiverd import config
from perceiverd.core.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
EXAMPLE = CONFIGS / "perceiverd.toml"


def write_config(folder: Path, text: str) -> Path:
    """Write the text into `c.toml` in this folder."""
    path = folder / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    """The one line with which the reader refuses this text, without the file's name."""
    path = write_config(folder, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


def uncommented() -> str:
    """The annotated example with its commented options switched on."""
    return re.sub(r"^# (?=\[|[a-z_]+ = )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
