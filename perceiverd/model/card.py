"""A model's card: what the files in `models/<name>/` state about the model. Reads no weights and loads no torch."""

from __future__ import annotations

import csv
import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from perceiverd.core.errors import ModelError, nearest
from perceiverd.core.labels import Label
from perceiverd.core.paths import SHIPPED_MODELS
from perceiverd.model.geometry import Geometry

DEFAULT = "ear-and-eye-small"
CARD_FILE, LABELS_FILE, WEIGHTS_FILE = "model.toml", "labels.tsv", "model.safetensors"
CALIBRATION_FILE = "calibration.tsv"
SCHEMA = 1

Activation = Literal["sigmoid", "softmax"]


class CardFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model.toml` as it is written."""

    schema: int
    """Version of this file's format: 1."""
    name: str
    """The name that `perceiverd models` and the daemon print."""
    licence: str
    """SPDX expression for the weights."""
    sha256: str
    """Of `model.safetensors`, in hexadecimal."""
    geometry: Geometry
    """Inputs and network; see below."""
    scores: Activation = "sigmoid"
    """How outputs become scores. `sigmoid`: each label has its own probability; `softmax`: all scores sum to 1."""


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
    scores: Activation = "sigmoid"


def load_card(model: str | Path = DEFAULT) -> Card:
    """The card of a bundled or imported model by its name, or of any model folder by its path.

    Raises ModelError if there is no such model, or if its card cannot be used.
    """
    folder = _folder(model)
    file = _read_card(folder / CARD_FILE)
    labels = read_labels(folder / LABELS_FILE)
    if len(labels) != file.geometry.classes:
        raise ModelError(f"{folder}: {len(labels)} labels for {file.geometry.classes} classes")
    calibration = read_calibration(folder / CALIBRATION_FILE, labels)
    return Card(file.name, folder, file.licence, file.sha256, file.geometry, labels, calibration, file.scores)


def _read_card(path: Path) -> CardFile:
    try:
        file = msgspec.toml.decode(path.read_bytes(), type=CardFile)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model's card: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{path}: {error}") from error
    except ValueError as error:  # not UTF-8
        raise ModelError(f"{path}: not a text file ({error})") from error
    if file.schema != SCHEMA:
        raise ModelError(f"{path}: schema {file.schema} is not supported; this perceiverd reads schema {SCHEMA}")
    return file


def bundled() -> tuple[str, ...]:
    """Names of the models that are installed with perceiverd."""
    return tuple(sorted({card.parent.name for folder in SHIPPED_MODELS for card in folder.glob(f"*/{CARD_FILE}")}))


def imports_folder() -> Path:
    """The folder of the models that this user imported. Raises ModelError if the user has no home folder."""
    try:
        data = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    except RuntimeError as error:
        raise ModelError("no home folder for imported models; set XDG_DATA_HOME, or give --into") from error
    return data / "perceiverd" / "models"


def imported() -> tuple[str, ...]:
    """Names of the models that this user imported."""
    with suppress(ModelError, OSError):
        return tuple(sorted(card.parent.name for card in imports_folder().glob(f"[!.]*/{CARD_FILE}")))
    return ()


def _folder(model: str | Path) -> Path:
    """The folder of a model. Raises ModelError, with a suggestion, if there is none."""
    folders = [folder / model for folder in SHIPPED_MODELS if "/" not in str(model)]
    if model in imported():
        folders.append(imports_folder() / model)
    for folder in [*folders, Path(model)]:
        with suppress(OSError):  # the name may be too long for a file, or the folder unreadable
            if (folder / CARD_FILE).is_file():
                return folder
    with suppress(OSError):
        if Path(model).is_dir():
            raise ModelError(f"{model}: this folder is not a model: it has no {CARD_FILE}")
    names = bundled() + imported()
    near = nearest(str(model), names)
    hint = f"did you mean '{near}'?" if near else f"choose from {', '.join(names) or 'none'}, or give a model's folder"
    raise ModelError(f"unknown model '{model}'; {hint}")


def read_labels(path: Path) -> tuple[Label, ...]:
    """The labels of a model's `labels.tsv` (header `index mid name`), in the order of its logits.

    Raises ModelError if the file is missing, or if its indices are not 0, 1, 2, ...
    """
    try:
        labels = tuple(Label(int(row["index"]), row["mid"], row["name"]) for row in _rows(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot read the labels: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a table of labels with columns index, mid, name ({error})") from error
    if [label.index for label in labels] != list(range(len(labels))):
        raise ModelError(f"{path}: the indices are not 0 to {len(labels) - 1} in order")
    return labels


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a label's logit becomes a probability, and which probability is enough for an event."""

    scale: float = 1.0
    """Above 0."""
    shift: float = 0.0
    """score = sigmoid(scale * logit + shift) (Platt 1999)."""
    threshold: float = 0.5
    """0..1, exclusive."""


def read_calibration(path: Path, labels: tuple[Label, ...]) -> tuple[Calibration, ...]:
    """The calibration of each label from a model's `calibration.tsv` (header `mid scale shift threshold`).

    A label that is not in the table gets the default; if there is no file, every label does. Raises ModelError if the
    file cannot be used, or has a label that the model does not have.
    """
    if not path.exists():
        return (Calibration(),) * len(labels)
    try:
        table = {
            row["mid"]: Calibration(float(row["scale"]), float(row["shift"]), float(row["threshold"]))
            for row in _rows(path)
        }
    except OSError as error:
        raise ModelError(f"{path}: cannot read the calibration: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: not a table with columns mid, scale, shift, threshold ({error})") from error
    if unknown := table.keys() - {label.mid for label in labels}:
        raise ModelError(f"{path}: {min(unknown)} is not a label of this model")
    for mid, one in table.items():
        if not (0 < one.scale < math.inf and math.isfinite(one.shift) and 0 < one.threshold < 1):
            wanted = "scale must be above 0, threshold between 0 and 1, and shift finite"
            raise ModelError(f"{path}: {mid}: {wanted}; not {one.scale}, {one.threshold} and {one.shift}")
    return tuple(table.get(label.mid, Calibration()) for label in labels)


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table with tabs and a header. Raises OSError or ValueError."""
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
