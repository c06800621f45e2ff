"""A model's card: what `models/<name>/` says of itself. Reads no weights and loads no torch."""

from __future__ import annotations

import csv
import math
import os
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import msgspec

from perceiverd.core.errors import ModelError
from perceiverd.core.labels import Label
from perceiverd.core.paths import SHIPPED_MODELS
from perceiverd.model.geometry import Geometry

DEFAULT = "ear-and-eye-small"
CARD_FILE, LABELS_FILE, WEIGHTS_FILE = "model.toml", "labels.tsv", "model.safetensors"
CALIBRATION_FILE = "calibration.tsv"


Scores = Literal["sigmoid", "softmax"]
"""How logits become scores: each label for itself, or one label of all."""


class CardFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model.toml` as it is written."""

    schema: int
    """Version of this file's form: 1."""
    name: str
    licence: str
    """SPDX expression for the weights."""
    sha256: str
    """Of `model.safetensors`."""
    geometry: Geometry
    scores: Scores = "sigmoid"


@dataclass(frozen=True, slots=True)
class Card:
    """A model that can be loaded."""

    name: str
    folder: Path
    licence: str
    sha256: str
    """Of the weights, in hexadecimal."""
    geometry: Geometry
    labels: tuple[Label, ...]
    calibration: tuple[Calibration, ...]
    """Of each label, in the order of `labels`."""
    scores: Scores = "sigmoid"


def load_card(model: str | Path = DEFAULT) -> Card:
    """The card of a bundled model by its name, or of any model folder by its path.

    Raises ModelError where there is no such model, or its card cannot be used.
    """
    folder = _folder(model)
    path = folder / CARD_FILE
    try:
        file = msgspec.toml.decode(path.read_bytes(), type=CardFile)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model's card: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{path}: {error}") from error
    except ValueError as error:  # not UTF-8
        raise ModelError(f"{path}: not a text file ({error})") from error
    if file.schema != 1:
        raise ModelError(f"{path}: schema {file.schema}; this perceiverd reads schema 1")
    labels = read_labels(folder / LABELS_FILE)
    if len(labels) != file.geometry.classes:
        raise ModelError(f"{folder}: {len(labels)} labels for {file.geometry.classes} classes")
    calibration = read_calibration(folder / CALIBRATION_FILE, labels)
    return Card(file.name, folder, file.licence, file.sha256, file.geometry, labels, calibration, file.scores)


def bundled() -> tuple[str, ...]:
    """Names of the models that come with perceiverd."""
    return tuple(sorted({card.parent.name for shelf in SHIPPED_MODELS for card in shelf.glob(f"*/{CARD_FILE}")}))


def own_shelf() -> Path:
    """Where a user's imported models lie. Raises ModelError where there is no home."""
    try:
        data = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    except RuntimeError as error:
        raise ModelError("there is no home folder for imported models: set XDG_DATA_HOME, or give --into") from error
    return data / "perceiverd" / "models"


def imported() -> tuple[str, ...]:
    """Names of the models that this user has imported."""
    with suppress(ModelError, OSError):
        return tuple(sorted(card.parent.name for card in own_shelf().glob(f"[!.]*/{CARD_FILE}")))
    return ()


def _folder(model: str | Path) -> Path:
    folders = [shelf / model for shelf in SHIPPED_MODELS if "/" not in str(model)]
    if model in imported():
        folders.append(own_shelf() / model)
    for folder in [*folders, Path(model)]:
        with suppress(OSError):  # a name too long for a file, a folder that may not be looked into
            if (folder / CARD_FILE).is_file():
                return folder
    with suppress(OSError):
        if Path(model).is_dir():
            raise ModelError(f"{model}: a folder without {CARD_FILE} is no model")
    names = bundled() + imported()
    near = get_close_matches(str(model), names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}; or give a model's folder"
    raise ModelError(f"no model {model}; {hint}")


def read_labels(path: Path) -> tuple[Label, ...]:
    """The labels of a model's `labels.tsv` (header `index mid name`), in the order of its logits.

    Raises ModelError where the file is missing, or its indices are not 0, 1, 2, ...
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        labels = tuple(Label(int(row["index"]), row["mid"], row["name"]) for row in rows)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the labels: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a table of labels with columns index, mid, name ({error})") from error
    if [label.index for label in labels] != list(range(len(labels))):
        raise ModelError(f"{path}: the indices are not 0 to {len(labels) - 1} in order")
    return labels


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a label's logit becomes a probability, and from which probability on the label is worth an event."""

    scale: float = 1.0
    shift: float = 0.0
    """score = sigmoid(scale * logit + shift) (Platt 1999)."""
    threshold: float = 0.5
    """0..1, exclusive."""


def read_calibration(path: Path, labels: tuple[Label, ...]) -> tuple[Calibration, ...]:
    """The calibration of each label from a model's `calibration.tsv` (header `mid scale shift threshold`).

    A label that the table lacks, or all where there is no file, has the default. Raises ModelError where the file
    can't be used, or names a label that the model lacks.
    """
    if not path.exists():
        return (Calibration(),) * len(labels)
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        table = {row["mid"]: Calibration(*(float(row[key]) for key in ("scale", "shift", "threshold"))) for row in rows}
    except OSError as error:
        raise ModelError(f"{path}: cannot read the calibration: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a table with columns mid, scale, shift, threshold ({error})") from error
    if unknown := table.keys() - {label.mid for label in labels}:
        raise ModelError(f"{path}: {min(unknown)} is no label of this model")
    for mid, one in table.items():
        if not (0 < one.scale < math.inf and math.isfinite(one.shift) and 0 < one.threshold < 1):
            raise ModelError(f"{path}: {mid}: scale is above 0, threshold between 0 and 1, all are finite; not {one}")
    return tuple(table.get(label.mid, Calibration()) for label in labels)
