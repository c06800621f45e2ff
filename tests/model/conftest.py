"""A small public checkpoint, as `transformers` saves it, for the tests of importing."""

import shutil
from pathlib import Path

import pytest

from tests.support.published import SMALL, write


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint; do not change it."""
    folder = tmp_path_factory.mktemp("hub") / "perceiver"
    write(folder, **SMALL)
    return folder


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))
