"""Weights on disk and back: safetensors, checked against the card before anything is built from them."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Label
from perceiverd.model.card import CARD_FILE, LABELS_FILE, WEIGHTS_FILE, Card, CardFile, Scores
from perceiverd.model.geometry import Geometry
from perceiverd.model.perceiver import Perceiver

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types in which weights may lie on disk. Of an integer, a complex number or 8 bits nobody knows what was meant."""


def load_network(card: Card) -> Perceiver:
    """The network of a card with its weights, on the CPU, in float32 and evaluation mode.

    Raises ModelError in one line where the file's sha256, a tensor's name, shape or a value is not what it should be.
    """
    path = card.folder / WEIGHTS_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the weights: {error.strerror}") from error
    if (found := hashlib.sha256(data).hexdigest()) != card.sha256:
        raise ModelError(
            f"{path}: sha256 is {found[:12]}…, {CARD_FILE} says {card.sha256[:12]}…: fetch the model again"
        )
    try:
        weights = load(data)
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    except KeyError as error:  # of types that the format knows and torch, or its reader, does not
        raise ModelError(f"{path}: holds numbers of type {error}, which can't be read") from error
    with torch.device("meta"):
        network = Perceiver(card.geometry.modalities, card.geometry.trunk, card.geometry.classes)
    weights = _checked(path, {name: tensor.shape for name, tensor in network.state_dict().items()}, weights)
    # Built a second time for its position tables, which are not weights and were left empty above.
    network = Perceiver(card.geometry.modalities, card.geometry.trunk, card.geometry.classes)
    network.load_state_dict(weights)
    return network.eval()


def _checked(path: Path, wanted: dict[str, torch.Size], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """In single precision."""
    if missing := sorted(wanted.keys() - weights.keys()):
        raise ModelError(f"{path}: tensor {missing[0]} is missing ({len(missing)} in all): not this geometry's weights")
    if extra := sorted(weights.keys() - wanted.keys()):
        raise ModelError(f"{path}: tensor {extra[0]} is not part of the model ({len(extra)} in all)")
    for name, shape in wanted.items():
        if weights[name].shape != shape:
            raise ModelError(f"{path}: tensor {name} is {tuple(weights[name].shape)}, the geometry says {tuple(shape)}")
    try:
        return {name: single(name, tensor) for name, tensor in weights.items()}
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def single(name: str, tensor: Tensor) -> Tensor:
    """A tensor in float32. Raises ModelError where it is of no type of FLOATS, or a number is not finite there."""
    if tensor.dtype not in FLOATS or tensor.layout != torch.strided or tensor.is_meta:
        kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        raise ModelError(f"tensor {name} is {kind}; weights are plain float16, bfloat16, float32 or float64")
    numbers = tensor.float()  # first: a float64 may be finite and its float32 not
    if not bool(torch.isfinite(numbers).all()):
        raise ModelError(f"tensor {name} holds values that are no finite numbers in float32")
    return numbers


def save_model(
    folder: Path,
    network: Perceiver,
    geometry: Geometry,
    labels: Sequence[Label],
    *,
    name: str,
    licence: str,
    scores: Scores = "sigmoid",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `model.safetensors`, `labels.tsv` and, last, `model.toml`; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in network.state_dict().items()}
    partial = folder / f"{WEIGHTS_FILE}.part"
    save_file(weights, partial)
    partial.chmod(0o644)  # safetensors makes it 0600, which no service's own user could read
    digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    os.replace(partial, folder / WEIGHTS_FILE)

    partial = folder / f"{LABELS_FILE}.part"
    with partial.open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        table.writerow(["index", "mid", "name"])
        table.writerows([label.index, label.mid, label.name] for label in labels)
    os.replace(partial, folder / LABELS_FILE)

    file = CardFile(schema=1, name=name, licence=licence, sha256=digest, geometry=geometry, scores=scores)
    partial = folder / f"{CARD_FILE}.part"
    partial.write_bytes(_toml(msgspec.to_builtins(file)))
    os.replace(partial, folder / CARD_FILE)


def _toml(tree: dict[str, object], path: str = "") -> bytes:
    """A tree of plain values as TOML (msgspec writes TOML only through a further package)."""
    lines = [f"[{path}]"] if path else []
    tables = []
    for key, value in tree.items():
        if isinstance(value, dict):
            tables.append(_toml(value, f"{path}.{key}" if path else key))
        elif value is not None:
            lines.append(f"{key} = {msgspec.json.encode(value).decode()}")
    return "\n".join(lines).encode() + b"\n\n" + b"".join(tables)
