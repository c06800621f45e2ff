"""Models on disk: what is written is read back, and what is broken is refused in one line."""

from __future__ import annotations

import hashlib
import re
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
LABELS = tuple(Label(i, f"/m/{i}", f"sound “{i}”, of some kind") for i in range(5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = Perceiver(GEOMETRY.modalities, GEOMETRY.trunk, GEOMETRY.classes)
    save_model(tmp_path / "tiny", network, GEOMETRY, LABELS, name="tiny", licence="CC0-1.0")
    return tmp_path / "tiny"


def test_a_saved_model_is_read_back(tmp_path: Path) -> None:
    """Geometry, labels and every weight come back as they were written."""
    network = Perceiver(GEOMETRY.modalities, GEOMETRY.trunk, GEOMETRY.classes)
    save_model(tmp_path, network, GEOMETRY, LABELS, name="tiny", licence="CC0-1.0")
    card = load_card(tmp_path)
    assert (card.name, card.licence, card.geometry, card.labels) == ("tiny", "CC0-1.0", GEOMETRY, LABELS)
    found = load_network(card).state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_a_saved_model_can_be_read_by_any_user(folder: Path) -> None:
    """A service runs as a user of its own, who must be able to read the weights."""
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights and sign them anew, so that only the change itself is wrong."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    sign(folder)


def sign(folder: Path) -> None:
    card = folder / "model.toml"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    card.write_text(re.sub(r'sha256 = "\w+"', f'sha256 = "{digest}"', card.read_text()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("latents"), "tensor latents is missing"),
        (lambda w: w.update(more=torch.zeros(1)), "tensor more is not part of the model"),
        (lambda w: w.update(latents=torch.zeros(2, 8)), "tensor latents is (2, 8), the geometry says (3, 8)"),
        (lambda w: w["latents"].fill_(float("nan")), "tensor latents holds values that are no finite numbers"),
        (lambda w: w.update(latents=torch.full((3, 8), 1e300, dtype=torch.float64)), "no finite numbers in float32"),
        (lambda w: w.update(latents=torch.zeros(3, 8, dtype=torch.complex64)), "tensor latents is torch.complex64"),
        (lambda w: w.update(latents=torch.zeros(3, 8, dtype=torch.int64)), "tensor latents is torch.int64"),
        (lambda w: w.update(latents=torch.zeros(3, 8).to(torch.float8_e5m2)), "tensor latents is torch.float8_e5m2"),
    ],
)
def test_wrong_tensors_are_refused(folder: Path, change: Callable[[dict[str, torch.Tensor]], None], says: str) -> None:
    """A missing, extra, misshaped or NaN tensor, or one of no float type, is named in a one-line error."""
    rewrite(folder, change)
    with pytest.raises(ModelError, match=re.escape(says)) as error:
        load_network(load_card(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_may_be_of_any_float_type(folder: Path, dtype: torch.dtype) -> None:
    """Weights in half or double precision are read, and are float32 in the network."""
    rewrite(folder, lambda w: w.update(latents=torch.full((3, 8), 0.5, dtype=dtype)))
    latents = load_network(load_card(folder)).latents
    assert latents.dtype == torch.float32 and bool((latents == 0.5).all())


def test_changed_weights_are_refused(folder: Path) -> None:
    """Weights that do not have the card's sha256 are not loaded."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelError, match="sha256 is"):
        load_network(load_card(folder))


def test_a_pickle_is_refused(folder: Path) -> None:
    """A pickle in the weights' place is not executed but refused."""
    torch.save({"latents": torch.zeros(3, 8)}, folder / "model.safetensors")
    sign(folder)
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_network(load_card(folder))


def test_numbers_of_a_type_that_cannot_be_read_are_refused(folder: Path) -> None:
    """A type that safetensors knows and torch's reader does not is told by its name."""
    header = b'{"latents":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    sign(folder)
    with pytest.raises(ModelError, match="F8_E8M0"):
        load_network(load_card(folder))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema = 2", "model.toml"),
        ("name = [", "model.toml"),
        ("\0", "model.toml"),
    ],
)
def test_a_broken_card_is_refused(folder: Path, text: str, says: str) -> None:
    """A card that is no TOML, or lacks what it must say, is refused in one line with its path."""
    (folder / "model.toml").write_text(text)
    with pytest.raises(ModelError, match=says) as error:
        load_card(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("heads = 2", "heads = 3"),
        ("cross_heads = 1", "cross_heads = 5"),
        ("patch = [70]", "patch = [0]"),
        ("rate_hz = 1000", "rate_hz = 0"),
        ("fps = 10", "fps = nan"),
        ("latents = 3", "latents = -3"),
        ("latents = 3", f"latents = {2**62}"),
        ("layers = 1", f"layers = {2**20}"),
        ("bands = 2", f"bands = {2**40}"),
        ("frames = 7\nfps = 10", f"frames = {7 * 2**20}\nfps = {10 * 2**20}"),
        ("bands = 2", "bands = -2"),
        ('form = "raw"\npatch = [70]', 'form = "mel"\npatch = [1, 1]'),
    ],
)
def test_an_impossible_geometry_is_refused(folder: Path, right: str, wrong: str) -> None:
    """Sizes that no network can have are the card's fault, told with their place in it."""
    card = folder / "model.toml"
    assert right in card.read_text()
    card.write_text(card.read_text().replace(right, wrong, 1))
    with pytest.raises(ModelError, match=r"model\.toml: .*\$\.geometry") as error:
        load_card(folder)
    assert "\n" not in str(error.value)


def test_a_name_too_long_for_a_file_is_no_model() -> None:
    """It is told in a line like any other name that is none."""
    with pytest.raises(ModelError, match=r"no model x+; "):
        load_card("x" * 300)


def test_a_misspelt_model_gets_a_hint() -> None:
    """A name close to a bundled model's is answered with that name, or with what there is."""
    with pytest.raises(ModelError, match="no model ear-and-eye-smal; "):
        load_card("ear-and-eye-smal")


def test_labels_must_match_the_classes(folder: Path) -> None:
    """A table of four labels for five classes is refused."""
    table = folder / "labels.tsv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ModelError, match="4 labels for 5 classes"):
        load_card(folder)
