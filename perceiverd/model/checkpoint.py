"""Weights on disk: safetensors files, checked against the card before anything is built from them."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Label
from perceiverd.model.card import CARD_FILE, LABELS_FILE, SCHEMA, WEIGHTS_FILE, Activation, Card, CardFile
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver

FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types that weights may have on disk. The meaning of integers, complex numbers and 8-bit numbers would be a guess."""


def load_network(card: Card) -> Perceiver:
    """The network of a card with its weights, on the CPU, in float32 and evaluation mode.

    Raises ModelError if the sha256 of the file is wrong, or the name, shape or a value of a tensor.
    """
    path = card.folder / WEIGHTS_FILE
    weights = _read(path, card.sha256)
    with _ZeroWeights():
        network = Perceiver(card.geometry.modalities, card.geometry.trunk, card.geometry.classes)
    weights = _checked(path, {name: tensor.shape for name, tensor in network.state_dict().items()}, weights)
    network.load_state_dict(weights, assign=True)
    return network.eval()


INITS = (nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_, nn.init.kaiming_normal_)
RANDOM = (Tensor.normal_, Tensor.uniform_, *INITS)
"""Of torch's functions, those that draw the values of a new network."""


class _ZeroWeights(TorchFunctionMode):
    """New networks have zeros, not random values, which take a second for 14 million weights.

    The meta device would need no values at all, but torch computes shapes there with `torch._dynamo`, whose import
    takes another second and 100 MB.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        given = kwargs or {}
        if func in RANDOM:
            drawn = args[0] if args else given["tensor"]
            drawn.detach().zero_()
            return drawn
        return torch.zeros(*args, **given) if func is torch.randn else func(*args, **given)


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file with this sha256."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the weights: {error.strerror}") from error
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise ModelError(f"{path}: sha256 is {found[:12]}…, but {CARD_FILE} has {sha256[:12]}…; fetch the model again")
    try:
        return load(data)
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    except KeyError as error:  # a type that the format has, but torch or its reader does not
        raise ModelError(f"{path}: cannot read numbers of type {error}") from error


def _checked(path: Path, shapes: dict[str, torch.Size], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in float32. Raises ModelError unless they have exactly these names and shapes."""
    if missing := sorted(shapes.keys() - weights.keys()):
        raise ModelError(f"{path}: tensor {missing[0]} is missing ({len(missing)} in all); the geometry needs it")
    if extra := sorted(weights.keys() - shapes.keys()):
        raise ModelError(f"{path}: tensor {extra[0]} is not part of the model ({len(extra)} in all)")
    for name, shape in shapes.items():
        if (found := weights[name].shape) != shape:
            raise ModelError(f"{path}: tensor {name} is {tuple(found)}, but the geometry needs {tuple(shape)}")
    try:
        return {name: to_float32(name, tensor) for name, tensor in weights.items()}
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def to_float32(name: str, tensor: Tensor) -> Tensor:
    """A tensor in float32. Raises ModelError if its type is not one of FLOAT_TYPES, or a value is not finite."""
    if tensor.dtype not in FLOAT_TYPES or tensor.layout != torch.strided or tensor.is_meta:
        kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        raise ModelError(f"tensor {name} is {kind}; weights must be dense float16, bfloat16, float32 or float64")
    # Before the check: a finite float64 may be too large for float32. A copy: a file's tensors are parts of one block.
    values = tensor.to(torch.float32, copy=True)
    if not bool(torch.isfinite(values).all()):
        raise ModelError(f"tensor {name} has values that are not finite in float32")
    return values


def save_model(
    folder: Path,
    network: Perceiver,
    geometry: Geometry,
    labels: Sequence[Label],
    *,
    name: str,
    licence: str,
    scores: Activation = "sigmoid",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `model.safetensors`, `labels.tsv` and, last, `model.toml`. Each file appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = _write_weights(folder / WEIGHTS_FILE, network, dtype)
    _write_labels(folder / LABELS_FILE, labels)
    card = CardFile(schema=SCHEMA, name=name, licence=licence, sha256=sha256, geometry=geometry, scores=scores)
    with _replacing(folder / CARD_FILE) as partial, partial.open("wb") as file:
        tomli_w.dump(_without_none(msgspec.to_builtins(card)), file)


def _write_weights(path: Path, network: Perceiver, dtype: torch.dtype) -> str:
    """Write the weights of a network; returns the file's sha256."""
    weights = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in network.state_dict().items()}
    with _replacing(path) as partial:
        save_file(weights, partial)
        partial.chmod(0o644)  # safetensors makes it 0600, so the service's user could not read it
        return hashlib.sha256(partial.read_bytes()).hexdigest()


def _write_labels(path: Path, labels: Sequence[Label]) -> None:
    with _replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        table.writerow(["index", "mid", "name"])
        table.writerows([label.index, label.mid, label.name] for label in labels)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it replaces `path` at the end."""
    partial = path.with_name(f"{path.name}.part")
    yield partial
    os.replace(partial, path)


def _without_none(tree: dict[str, object]) -> dict[str, object]:
    """A tree of plain values without its None values, which TOML does not have."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value is not None
    }
