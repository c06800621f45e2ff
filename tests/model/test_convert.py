"""A converted public checkpoint gives the logits that `transformers` gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import KINETICS, Label
from perceiverd.model.card import read_labels
from perceiverd.model.convert import UNUSED, HubConfig, convert, labels_of
from perceiverd.model.encoding import audio_tokens, video_tokens
from perceiverd.model.geometry import Geometry
from perceiverd.model.inference import Inference
from tests.support.published import PUBLIC, SMALL, label_logits, published

SHAPES = Path(__file__).parents[1] / "support" / "multimodal_perceiver.tsv"


def config_of(network: Any) -> HubConfig:
    return msgspec.json.decode(network.config.to_json_string(), type=HubConfig)


def media(geometry: Geometry, batch: int) -> tuple[Tensor, Tensor]:
    assert geometry.audio and geometry.video
    torch.manual_seed(1)
    video = geometry.video
    frames = torch.randint(0, 256, (batch, video.frames, video.height, video.width, 3), dtype=torch.uint8)
    return torch.rand(batch, geometry.audio.samples) * 2 - 1, frames


def tokens(geometry: Geometry, audio: Tensor, frames: Tensor) -> dict[str, Tensor]:
    assert geometry.audio and geometry.video
    return {"audio": audio_tokens(audio, geometry.audio), "video": video_tokens(frames, geometry.video)}


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module")
def theirs() -> Any:
    return published(**SMALL)


@torch.no_grad()
def test_logits_are_those_of_transformers(theirs: Any) -> None:
    """The plain and the factorised form give its 700 logits of audio and video, to 1e-5 in float32."""
    geometry, network = convert(config_of(theirs), theirs.state_dict())
    audio, frames = media(geometry, 2)
    wanted, seen = label_logits(theirs, audio, frames), tokens(geometry, audio, frames)
    assert distance(network(seen), wanted) < 1e-5
    assert distance(Inference(network, factorised=True)(seen), wanted) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("alone", ["audio", "video"])
def test_both_forms_agree_on_one_modality(theirs: Any, alone: str) -> None:
    """With audio or video alone, which `transformers` does not support, both forms agree to 1e-5."""
    geometry, network = convert(config_of(theirs), theirs.state_dict())
    seen = tokens(geometry, *media(geometry, 2))
    only = {alone: seen[alone]}
    masked = {name: torch.tensor([name == alone, True]) for name in seen}
    fast = Inference(network, factorised=True)
    assert distance(fast(only), network(only)) < 1e-5
    torch.testing.assert_close(fast(seen, masked)[0], fast(only)[0])


@torch.no_grad()
@pytest.mark.timeout(900)
def test_the_published_sizes_give_the_published_tensors(theirs: Any) -> None:
    """The published sizes have the published tensors and 52,097 tokens, and give the logits of `transformers`."""
    whole = published(**PUBLIC)
    shapes = {name: str(tuple(tensor.shape)) for name, tensor in whole.state_dict().items()}
    assert shapes == dict(line.split("\t") for line in SHAPES.read_text().splitlines())
    geometry, network = convert(config_of(whole), whole.state_dict())
    assert sum(m.tokens for m in geometry.modalities) + geometry.trunk.constants == 52_097
    assert network.bytes.width == 704 and geometry.window_ns == 640_000_000
    audio, frames = media(geometry, 1)
    wanted = label_logits(whole, audio, frames)
    del whole
    fast = Inference(network)
    assert fast.factorised
    assert distance(fast(tokens(geometry, audio, frames)), wanted) < 1e-5


A_TENSOR = "perceiver.encoder.self_attends.1.mlp.dense2.weight"
CHANGES: list[tuple[Callable[[dict[str, Tensor]], object], str]] = [
    (lambda w: w.pop(A_TENSOR), f"tensor {A_TENSOR} is missing"),
    (lambda w: w.update(more=torch.zeros(1)), "tensor more is not part of a multimodal Perceiver"),
    (
        lambda w: w.update({A_TENSOR: torch.zeros(32, 33)}),
        f"tensor {A_TENSOR} is (32, 33), but the config needs (32, 32)",
    ),
    (
        lambda w: w.update({A_TENSOR: torch.full((32, 32), torch.nan)}),
        f"tensor {A_TENSOR} has values that are not finite",
    ),
    (lambda w: w.update({A_TENSOR: torch.full((32, 32), 1e300, dtype=torch.float64)}), f"tensor {A_TENSOR} has values"),
    (lambda w: w.update({A_TENSOR: torch.zeros(32, 32, dtype=torch.int8)}), f"tensor {A_TENSOR} is torch.int8"),
    (
        lambda w: w.update({A_TENSOR: torch.zeros(32, 32).to_sparse()}),
        f"tensor {A_TENSOR} is torch.float32, torch.sparse_coo",
    ),
    (
        lambda w: w.update({A_TENSOR: torch.zeros(32, 32, device="meta")}),
        f"tensor {A_TENSOR} is torch.float32, torch.strided",
    ),
]


@pytest.mark.parametrize(
    ("change", "message"), CHANGES, ids="missing extra misshaped nan large whole sparse meta".split()
)
def test_wrong_tensors_are_refused(theirs: Any, change: Callable[[dict[str, Tensor]], object], message: str) -> None:
    """A tensor that is missing, extra, NaN, of a wrong shape, type or layout is named in a one-line error."""
    weights = dict(theirs.state_dict())
    change(weights)
    with pytest.raises(ModelError, match=re.escape(message)):
        convert(config_of(theirs), weights)


KINETICS700 = read_labels(KINETICS)


def with_names(names: list[str]) -> HubConfig:
    return HubConfig("perceiver", {str(index): name for index, name in enumerate(names)})


def test_names_of_kinetics_become_its_labels() -> None:
    """A config without names, or with Kinetics' names in any spelling and order, gives Kinetics' labels."""
    names = [label.name for label in KINETICS700]
    assert labels_of(with_names([f"LABEL_{index}" for index in range(700)]), KINETICS700) == KINETICS700
    assert labels_of(with_names([name.title().replace(" ", "_") for name in names]), KINETICS700) == KINETICS700
    reversed_labels = labels_of(with_names(names[::-1]), KINETICS700)
    assert [label.mid for label in reversed_labels] == [label.mid for label in KINETICS700[::-1]]
    assert [label.index for label in reversed_labels] == list(range(700))


def test_other_names_become_labels_of_the_user() -> None:
    """A name that Kinetics does not have becomes a label with an id of its own and the name from the config."""
    labels = labels_of(with_names(["Feeding\tthe (grey) cat", *(label.name for label in KINETICS700[1:])]), KINETICS700)
    assert labels == (Label(0, "user/feeding-the-grey-cat", "Feeding the (grey) cat"), *KINETICS700[1:])


@pytest.mark.parametrize("names", [["a", "b c", "B_C"], ["a", "abseiling", "Abseiling"], ["a", "?"]])
def test_equal_or_empty_label_names_are_refused(names: list[str]) -> None:
    """Two labels with the same name, and a label without a name, are one-line errors."""
    with pytest.raises(ModelError, match=r"id2label: label 1 is .*; each label needs its own name"):
        labels_of(with_names(names), KINETICS700)


def test_unused_tensors_may_be_missing(theirs: Any) -> None:
    """A checkpoint that has only the tensors that score labels can be converted."""
    kept = {name: w for name, w in theirs.state_dict().items() if name.removeprefix("perceiver.") not in UNUSED}
    assert len(kept) == len(theirs.state_dict()) - len(UNUSED)
    convert(config_of(theirs), kept)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "bert"},
        {"id2label": {"0": "a"}},
        {"num_blocks": 2},
        {"hidden_act": "relu"},
        {"num_self_attention_heads": 5},
        {"samples_per_patch": 17},
    ],
    ids=str,
)
def test_other_architectures_are_refused(theirs: Any, change: dict[str, object]) -> None:
    """For a config that is not a multimodal Perceiver's, a one-line error states the difference."""
    config = msgspec.structs.replace(config_of(theirs), **change)
    with pytest.raises(ModelError) as error:
        convert(config, theirs.state_dict())
    assert "\n" not in str(error.value)
