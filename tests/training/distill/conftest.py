"""The pool that several tests of distillation learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.distilling import write_shard


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with one shard of fifty windows whose loudness is their class."""
    write_shard(tmp_path)
    return tmp_path
