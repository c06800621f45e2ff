"""`perceiverd models`."""

import shutil
from pathlib import Path

import pytest

from tests.support.program import Perceiverd


def test_a_model_is_described(perceiverd: Perceiverd, tiny_model: Path) -> None:
    """`models info` prints the model's card."""
    status, out, _ = perceiverd("models", "info", tiny_model)
    assert status == 0
    assert dict(line.split(maxsplit=1) for line in out.splitlines())["labels"] == "527"


def test_bundled_models_are_listed(perceiverd: Perceiverd) -> None:
    """`models list` prints a line for each model, and `models info` knows all of them."""
    status, out, _ = perceiverd("models", "list")
    assert status == 0
    for line in out.splitlines():
        assert perceiverd("models", "info", line.split()[0])[0] == 0


def test_a_broken_model_does_not_hide_the_others(
    perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`models list` reports a model that cannot be read, and lists the others by the names that find them."""
    folder = tmp_path / "perceiverd" / "models"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    shutil.copytree(tiny_model, folder / "mine")
    (folder / "broken").mkdir()
    (folder / "broken" / "model.toml").write_text("schema = 1")
    status, out, err = perceiverd("models", "list")
    assert status == 1
    assert err.startswith(f"perceiverd: {folder}/broken/model.toml: ") and err.count("\n") == 1
    names = [line.split()[0] for line in out.splitlines()]
    assert "mine" in names and "tiny" not in names and "broken" not in names
    assert all(perceiverd("models", "info", name)[0] == 0 for name in names)


def test_a_model_is_verified(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """`models verify` loads all of a model; a changed byte in its weights is an error."""
    status, out, err = perceiverd("models", "verify", tiny_model)
    assert (status, err) == (0, "") and out.startswith(f"{tiny_model}: complete; ")
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = bytearray((broken / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "model.safetensors").write_bytes(weights)
    status, out, err = perceiverd("models", "verify", broken)
    assert (status, out, err.count("\n")) == (1, "", 1) and "sha256" in err


def test_a_model_is_exported(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """`models export` writes the graph and a copy of the weights, and says what the graph takes and gives."""
    status, out, err = perceiverd("models", "export", tiny_model, "--into", tmp_path / "new")
    assert (status, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model.onnx", "model.safetensors"]
    assert (tmp_path / "new" / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    assert "audio (batch, 8000) float32, video (batch, 4, 16, 24, 3) uint8" in out and "logits (batch, 527)" in out


def test_an_export_that_cannot_be_written_is_one_line(perceiverd: Perceiverd, tiny_model: Path, tmp_path: Path) -> None:
    """A folder that cannot be made is an error that names the option."""
    (tmp_path / "file").touch()
    status, out, err = perceiverd("models", "export", tiny_model, "--into", tmp_path / "file")
    assert (status, out) == (1, "")
    assert err.startswith(f"perceiverd: {tmp_path}/file/model.onnx: cannot be written: ") and err.endswith("--into\n")
