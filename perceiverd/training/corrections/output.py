"""The folder of a corrected model: new rows in the old weights, new thresholds, and a README.md about them."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from perceiverd.core.labels import Label
from perceiverd.model.card import CALIBRATION_FILE, Calibration, Card
from perceiverd.model.checkpoint import save_model
from perceiverd.training.corrections.learning import LearntRow
from perceiverd.training.corrections.replay import Classifier
from perceiverd.training.corrections.windows import Embedder
from perceiverd.training.distill.rehearsal import REHEARSAL_FILE
from perceiverd.training.finetune.output import calibration_table


def corrected(card: Card, last: nn.Linear, labels: Sequence[Label], rows: Sequence[LearntRow]) -> Classifier:
    """The last layer with the new rows and thresholds; all other rows and thresholds stay, to the bit."""
    width, count = last.in_features, len(labels)
    weight, bias = np.zeros((count, width), np.float32), np.zeros(count, np.float32)
    weight[: len(card.labels)] = last.weight.detach().numpy()
    bias[: len(card.labels)] = last.bias.detach().numpy()
    calibration = [*card.calibration, *[Calibration()] * (count - len(card.labels))]
    for each in rows:
        at = each.label.index
        weight[at], bias[at] = each.row.weight, each.row.bias
        old = calibration[at]
        calibration[at] = Calibration(old.scale, old.shift, each.choice.threshold)
    return Classifier(tuple(labels), weight, bias, tuple(calibration))


def write(out: Path, embedder: Embedder, model: Classifier, rows: Sequence[LearntRow], description: str) -> None:
    """Write the model's folder; the card appears last, so an unfinished folder is no model."""
    card = embedder.card
    last = nn.Linear(model.weight.shape[1], len(model.labels))
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(model.weight))
        last.bias.copy_(torch.from_numpy(model.bias))
    out.mkdir(parents=True, exist_ok=True)
    if (memories := card.folder / REHEARSAL_FILE).exists():
        shutil.copyfile(memories, out / REHEARSAL_FILE)  # nothing before the last layer has changed
    new = model.labels[len(card.labels) :]
    thresholds = {each.label.mid: each.choice.threshold for each in rows}
    (out / CALIBRATION_FILE).write_text(_with_thresholds(calibration_table(card, new), thresholds), encoding="utf-8")
    (out / "README.md").write_text(description, encoding="utf-8")
    headless, embedder.network.head.out = embedder.network.head.out, last
    geometry = msgspec.structs.replace(card.geometry, classes=len(model.labels))
    try:
        save_model(out, embedder.network, geometry, model.labels, name=out.name, licence=card.licence)
    finally:
        embedder.network.head.out = headless


def _with_thresholds(table: str, thresholds: dict[str, float]) -> str:
    """The same table with other thresholds of some labels. A label that it lacks gets a line."""
    rows = list(csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE))
    columns = table.partition("\n")[0].split("\t")
    missing = thresholds.keys() - {row["mid"] for row in rows}
    rows += [{"mid": mid, "scale": "1", "shift": "0"} for mid in sorted(missing)]
    for row in rows:
        if row["mid"] in thresholds:
            row["threshold"] = f"{thresholds[row['mid']]:.4g}"
    lines = ["\t".join(columns), *("\t".join(row.get(column, "") for column in columns) for row in rows)]
    return "\n".join(lines) + "\n"
