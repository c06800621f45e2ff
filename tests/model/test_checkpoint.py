"""Models on disk: what is saved can be loaded, and broken files are one-line errors."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Label
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import load_network, save_model
from perceiverd.model.geometry import Audio, Geometry, Trunk, Video
from perceiverd.model.perceiver import Perceiver

GEOMETRY = Geometry(
    classes=5,
    trunk=Trunk(latents=3, width=8, cross_attends=1, layers=1, heads=2),
    audio=Audio(rate_hz=1000, samples=700, form="raw", patch=(70,), bands=2),
    video=Video(frames=7, fps=10, height=6, width=10, patch=(7, 3, 5), bands=2),
)
LABELS = tuple(Label(i, f"/m/{i}", f"label “{i}”, of some kind") for i in range(5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = Perceiver(GEOMETRY.modalities, GEOMETRY.trunk, GEOMETRY.classes)
    save_model(tmp_path / "tiny", network, GEOMETRY, LABELS, name="tiny", licence="CC0-1.0")
    return tmp_path / "tiny"


def test_a_saved_model_can_be_loaded(tmp_path: Path) -> None:
    """Geometry, labels and all weights are the same after saving and loading."""
    network = Perceiver(GEOMETRY.modalities, GEOMETRY.trunk, GEOMETRY.classes)
    save_model(tmp_path, network, GEOMETRY, LABELS, name="tiny", licence="CC0-1.0")
    card = load_card(tmp_path)
    assert (card.name, card.licence, card.geometry, card.labels) == ("tiny", "CC0-1.0", GEOMETRY, LABELS)
    found = load_network(card).state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(found[name], tensor), name


LIGHT = """
import sys, torch
from perceiverd.model.card import load_card
from perceiverd.model.checkpoint import load_network
torch.manual_seed(7)
before = torch.get_rng_state()
network = load_network(load_card(sys.argv[1]))
assert torch.equal(before, torch.get_rng_state()), "it has drawn random values"
assert all(each.requires_grad for each in network.parameters())
assert "torch._dynamo" not in sys.modules
"""


def test_loading_is_light(folder: Path) -> None:
    """No value is drawn that the file's weights would replace, and torch's compiler, 1 s and 100 MB, is not loaded."""
    subprocess.run([sys.executable, "-c", LIGHT, folder], check=True, timeout=100)


def test_a_saved_model_can_be_read_by_any_user(folder: Path) -> None:
    """Every user may read the files, because the service runs as its own user."""
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights and update their sha256, so that only the change is wrong."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    update_sha256(folder)


def update_sha256(folder: Path) -> None:
    card = folder / "model.toml"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    card.write_text(re.sub(r'sha256 = "\w+"', f'sha256 = "{digest}"', card.read_text()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("latents"), "tensor latents is missing"),
        (lambda w: w.update(more=torch.zeros(1)), "tensor more is not part of the model"),
        (lambda w: w.update(latents=torch.zeros(2, 8)), "tensor latents is (2, 8), but the geometry needs (3, 8)"),
        (lambda w: w["latents"].fill_(float("nan")), "tensor latents has values that are not finite"),
        (lambda w: w.update(latents=torch.full((3, 8), 1e300, dtype=torch.float64)), "not finite in float32"),
        (lambda w: w.update(latents=torch.zeros(3, 8, dtype=torch.complex64)), "tensor latents is torch.complex64"),
        (lambda w: w.update(latents=torch.zeros(3, 8, dtype=torch.int64)), "tensor latents is torch.int64"),
        (lambda w: w.update(latents=torch.zeros(3, 8).to(torch.float8_e5m2)), "tensor latents is torch.float8_e5m2"),
    ],
)
def test_wrong_tensors_are_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    """A tensor that is missing, extra, NaN, of a wrong shape or not a float is named in a one-line error."""
    rewrite(folder, change)
    with pytest.raises(ModelError, match=re.escape(message)) as error:
        load_network(load_card(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_can_be_loaded(folder: Path, dtype: torch.dtype) -> None:
    """Weights in half or double precision are loaded, and become float32."""
    rewrite(folder, lambda w: w.update(latents=torch.full((3, 8), 0.5, dtype=dtype)))
    latents = load_network(load_card(folder)).latents
    assert latents.dtype == torch.float32 and bool((latents == 0.5).all())


def test_changed_weights_are_refused(folder: Path) -> None:
    """Weights whose sha256 is not the card's are not loaded."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelError, match="sha256 is"):
        load_network(load_card(folder))


def test_a_pickle_is_refused(folder: Path) -> None:
    """A pickle instead of the weights is refused, and its code is not run."""
    torch.save({"latents": torch.zeros(3, 8)}, folder / "model.safetensors")
    update_sha256(folder)
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_network(load_card(folder))


def test_a_type_that_torch_lacks_is_refused(folder: Path) -> None:
    """The error names a type that safetensors has but torch's reader does not."""
    header = b'{"latents":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    update_sha256(folder)
    with pytest.raises(ModelError, match="F8_E8M0"):
        load_network(load_card(folder))


@pytest.mark.parametrize(
    "text",
    ["schema = 2", "name = [", "\0"],
)
def test_a_broken_card_is_refused(folder: Path, text: str) -> None:
    """A card that is not TOML, or lacks a required key, is a one-line error with its path."""
    (folder / "model.toml").write_text(text)
    with pytest.raises(ModelError, match=r"model\.toml") as error:
        load_card(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("heads = 2", "heads = 3"),
        ("cross_heads = 1", "cross_heads = 5"),
        ("patch = [\n    70,\n]", "patch = [0]"),
        ("rate_hz = 1000", "rate_hz = 0"),
        ("fps = 10", "fps = nan"),
        ("latents = 3", "latents = -3"),
        ("latents = 3", f"latents = {2**62}"),
        ("layers = 1", f"layers = {2**20}"),
        ("bands = 2", f"bands = {2**40}"),
        ("frames = 7\nfps = 10", f"frames = {7 * 2**20}\nfps = {10 * 2**20}"),
        ("bands = 2", "bands = -2"),
        ('form = "raw"\npatch = [\n    70,\n]', 'form = "mel"\npatch = [1, 1]'),
    ],
)
def test_an_impossible_geometry_is_refused(folder: Path, right: str, wrong: str) -> None:
    """For sizes that no network can have, the error names their place in the card."""
    card = folder / "model.toml"
    assert right in card.read_text()
    card.write_text(card.read_text().replace(right, wrong, 1))
    with pytest.raises(ModelError, match=r"model\.toml: .*\$\.geometry") as error:
        load_card(folder)
    assert "\n" not in str(error.value)


def test_labels_must_match_the_classes(folder: Path) -> None:
    """A table of four labels for five classes is refused."""
    table = folder / "labels.tsv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ModelError, match="4 labels for 5 classes"):
        load_card(folder)
