"""Labels and AudioSet's ontology. Knows no model.

The key of a label is its mid, never its name: AudioSet's machine id, or `k700/...` for a label of Kinetics.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Derived from AudioSet's ontology (CC BY-SA 4.0) and class indices (CC BY 4.0), Google.
ONTOLOGY = Path(__file__).with_name("ontology.tsv")
# The 700 classes of Kinetics-700-2020 (DeepMind, CC BY 4.0) in the order of the public Perceiver's logits.
KINETICS = Path(__file__).with_name("kinetics700.tsv")


@dataclass(frozen=True, slots=True)
class Label:
    """One output of a model."""

    index: int
    """Its place among the model's outputs."""
    mid: str
    name: str


@dataclass(frozen=True)
class Ontology:
    """AudioSet's hierarchy: a DAG of 632 nodes, 527 of them classes."""

    labels: tuple[Label, ...]
    """The 527 classes in index order."""
    parents: Mapping[str, tuple[str, ...]]
    """The mids of the parents of each node, by mid."""

    def ancestors(self, mid: str) -> frozenset[str]:
        """All mids above this one, without itself; empty for a mid that is not AudioSet's."""
        return frozenset(self._above(mid))

    def _above(self, mid: str) -> Iterator[str]:
        for parent in self.parents.get(mid, ()):
            yield parent
            yield from self._above(parent)

    def find(self, name: str) -> Label:
        """The class with exactly this name. Raises KeyError if there is none."""
        for label in self.labels:
            if label.name == name:
                return label
        raise KeyError(name)


@cache
def ontology() -> Ontology:
    """The ontology of AudioSet."""
    with ONTOLOGY.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    classes = (Label(int(row["index"]), row["mid"], row["name"]) for row in rows if row["index"])
    separator = "," if any("," in (row["parents"] or "") for row in rows) else " "
    return Ontology(
        labels=tuple(sorted(classes, key=lambda label: label.index)),
        parents={row["mid"]: tuple(p for p in (row["parents"] or "").split(separator) if p) for row in rows},
    )
