"""Importing a checkpoint from a folder: a complete model, or a one-line error and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from perceiverd.core.errors import ModelError
from perceiverd.model import hub
from perceiverd.model.card import DEFAULT

pytestmark = pytest.mark.timeout(600)  # each test loads or writes a whole checkpoint


def error_of(source: Path, into: Path) -> str:
    """The one-line error for a checkpoint that cannot be used; nothing is left behind."""
    with pytest.raises(ModelError) as error:
        hub.install(str(source), into)
    assert not into.exists() and list(into.parent.glob(f".{into.name}*")) == []
    assert "\n" not in str(error.value)
    return str(error.value)


def test_labels_of_other_names_are_kept(copy: Path, tmp_path: Path) -> None:
    """A checkpoint trained on other labels keeps their names, and the model's README states that."""
    config = copy / "config.json"
    names = {str(index): f"my action {index}" for index in range(700)}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"id2label": names}))
    card = hub.install(str(copy), tmp_path / "into")
    assert (card.labels[699].mid, card.labels[699].name) == ("user/my-action-699", "my action 699")
    assert "700 labels have names" in (card.folder / "README.md").read_text()


def test_a_pickled_checkpoint_gives_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    """Weights in `pytorch_model.bin` give the same bytes."""
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(checkpoint / "config.json", pickled)
    torch.save(load_file(checkpoint / "model.safetensors"), pickled / "pytorch_model.bin")
    one, other = hub.install(str(checkpoint), tmp_path / "one"), hub.install(str(pickled), tmp_path / "other")
    assert one.sha256 == other.sha256


def test_an_extra_tensor_is_refused(copy: Path, tmp_path: Path) -> None:
    """The error names the folder and the tensor, and no model is left behind."""
    weights = copy / "model.safetensors"
    save_file(load_file(weights) | {"more": torch.zeros(1)}, weights)
    assert error_of(copy, tmp_path / "into").startswith(f"{copy}: tensor more is not part")


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_pickle_is_not_run(copy: Path, tmp_path: Path) -> None:
    """A pickle that would run code is refused, and the code does not run."""
    (copy / "model.safetensors").unlink()
    torch.save({"latents": MakesFolder(tmp_path / "run")}, copy / "pytorch_model.bin")
    assert "does not trust" in error_of(copy, tmp_path / "into")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_incomplete_files_are_refused(copy: Path, tmp_path: Path, name: str, kept: int) -> None:
    """A file of weights that is empty or cut off is a one-line error."""
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    path = copy / name
    save_file(weights, path) if name.endswith("safetensors") else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "incomplete" in error_of(copy, tmp_path / "into")


@pytest.mark.parametrize(
    "content",
    [
        {"latents": torch.zeros(3).to_sparse()},
        {"latents": torch.zeros(3, device="meta")},
        {3: torch.zeros(3), "latents": torch.zeros(3)},
        {"latents": [torch.zeros(3)]},
        torch.zeros(3),
    ],
    ids="sparse meta number list tensor".split(),
)
def test_a_pickle_without_named_tensors_is_refused(copy: Path, tmp_path: Path, content: object) -> None:
    """A pickle with sparse or meta tensors, or with something other than named tensors, is a one-line error."""
    (copy / "model.safetensors").unlink()
    torch.save(content, copy / "pytorch_model.bin")
    assert str(copy) in error_of(copy, tmp_path / "into")


def test_a_corrupted_pickle_is_refused(copy: Path, tmp_path: Path) -> None:
    """Any wrong byte in a pickle of the old format leads to a one-line error."""
    (copy / "model.safetensors").unlink()
    path = copy / "pytorch_model.bin"
    torch.save({"latents": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert str(copy) in error_of(copy, tmp_path / "into")


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_latents": 2**62},
        {"num_latents": 2**16 + 1},
        {"image_size": 2**40},
        {"image_size": 2**14},
        {"num_frames": 2**40},
        {"num_frames": 2**13},
        {"num_self_attends_per_block": 2**20},
        {"audio_samples_per_frame": 2**24, "num_frames": 2**10},
    ],
    ids=str,
)
def test_absurd_sizes_are_refused(copy: Path, tmp_path: Path, sizes: dict[str, int]) -> None:
    """Sizes that no machine can hold are refused before anything of that size is made."""
    config = copy / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"image_size": 56} | sizes))
    assert str(copy) in error_of(copy, tmp_path / "into")


def test_a_name_too_long_for_a_folder_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """No folder can have a name of 300 letters; that is a one-line error."""
    with pytest.raises(ModelError, match="cannot save a model here"):
        hub.install(str(checkpoint), tmp_path / ("x" * 300))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": 3}', "\xff"])
def test_an_invalid_config_is_refused(copy: Path, tmp_path: Path, text: str) -> None:
    """The error for a config that is not JSON, or not a Perceiver's, names its path."""
    (copy / "config.json").write_text(text, "latin-1")
    assert str(copy / "config.json") in error_of(copy, tmp_path / "into")


def test_a_folder_without_weights_is_refused(copy: Path, tmp_path: Path) -> None:
    """The error names the files that are missing."""
    (copy / "model.safetensors").unlink()
    assert "neither model.safetensors nor pytorch_model.bin" in error_of(copy, tmp_path / "into")


def test_an_existing_folder_is_not_changed(checkpoint: Path, tmp_path: Path) -> None:
    """If the folder exists, the import is refused and the folder stays as it is."""
    (tmp_path / "into").mkdir()
    with pytest.raises(ModelError, match="already exists"):
        hub.install(str(checkpoint), tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_bundled_models_name_is_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundled model would hide an imported one of the same name, so it is refused there, but not elsewhere."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    source = tmp_path / DEFAULT
    source.symlink_to(checkpoint)
    with pytest.raises(ModelError, match="a bundled model has this name"):
        hub.install(str(source))
    assert not (tmp_path / "perceiverd").exists()
    assert hub.install(str(source), tmp_path / "elsewhere").name == DEFAULT


def test_an_interrupted_conversion_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C or a full disk while the model is written leaves nothing behind."""
    into = tmp_path / "into"
    for fault, wanted in (
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), ModelError),
    ):

        def stop(*_: object, fault: BaseException = fault) -> None:
            raise fault

        monkeypatch.setattr(hub, "load_network", stop)
        with pytest.raises(wanted):
            hub.install(str(checkpoint), into)
        assert [path.name for path in tmp_path.iterdir() if "into" in path.name] == []
