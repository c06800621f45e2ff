"""Held-out windows: a corpus without held-out clips is refused."""

from pathlib import Path

import pytest

from perceiverd.core.errors import MediaError
from perceiverd.training.distill import heldout_windows
from tests.support.small_corpus import small_corpus


def test_a_corpus_without_held_out_clips_is_refused(tmp_path: Path) -> None:
    """The error names the empty split, and no folder is written."""
    (tmp_path / "corpus").mkdir()
    small_corpus(tmp_path / "corpus")
    with pytest.raises(MediaError, match="has no clip of the split validation"):
        heldout_windows.build(tmp_path / "corpus", tmp_path / "out", wheel=tmp_path / "none.whl")
    assert not (tmp_path / "out").exists()
