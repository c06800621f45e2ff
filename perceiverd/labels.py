"""Labels: what a score is for. Keyed by mid, never by name: AudioSet's machine id, or `k700/...` for Kinetics'."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from perceiverd.errors import ModelError

# Derived from AudioSet's ontology (CC BY-SA 4.0) and class indices (CC BY 4.0), Google.
ONTOLOGY = Path(__file__).with_name("ontology.tsv")
# The 700 classes of Kinetics-700-2020 (DeepMind, CC BY 4.0) in the order of the public Perceiver's logits.
KINETICS = Path(__file__).with_name("kinetics700.tsv")


@dataclass(frozen=True, slots=True)
class Label:
    """One output of a model."""

    index: int
    """Its place among the model's logits."""
    mid: str
    name: str


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


@dataclass(frozen=True)
class Ontology:
    """AudioSet's hierarchy: a DAG of 632 nodes, 527 of them classes."""

    labels: tuple[Label, ...]
    """The 527 classes in index order."""
    parents: Mapping[str, tuple[str, ...]]
    """mid to the mids of its parents, for every node."""

    def ancestors(self, mid: str) -> frozenset[str]:
        """Every mid above this one, itself left out; none for a mid that is not AudioSet's."""
        return frozenset(self._above(mid))

    def _above(self, mid: str) -> Iterator[str]:
        for parent in self.parents.get(mid, ()):
            yield parent
            yield from self._above(parent)

    def find(self, name: str) -> Label:
        """The class of this name (case matters). Raises KeyError where there is none."""
        for label in self.labels:
            if label.name == name:
                return label
        raise KeyError(name)


@cache
def ontology() -> Ontology:
    """The ontology that comes with the package."""
    with ONTOLOGY.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    classes = (Label(int(row["index"]), row["mid"], row["name"]) for row in rows if row["index"])
    separator = "," if any("," in (row["parents"] or "") for row in rows) else " "
    return Ontology(
        labels=tuple(sorted(classes, key=lambda label: label.index)),
        parents={row["mid"]: tuple(p for p in (row["parents"] or "").split(separator) if p) for row in rows},
    )
